"""TLS on the lane: pyOpenSSL straight on the socket, behind the methods of a plain connection.

Owns the server side's contexts. A listener has one *base* context, whose ticket keys are the same in every worker
(`tickets`), so a session resumes in any of them. Its SNI callback always moves the connection to a context made in this
worker from the current certificates, so a reload swaps certificates without touching the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from OpenSSL.crypto import X509

from supervisor.ground.lane.conn import Conn
from supervisor.ground.net.tlsconn import TlsConn, reason_of

# Mozilla's "intermediate" list: forward secrecy and AEAD only; TLS 1.3 suites are OpenSSL's own defaults.
CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    b"ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
_OPTIONS = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE


@attrs.frozen
class KeyPair:
    """A certificate chain and its key, as PEM bytes."""

    cert: bytes
    key: bytes = attrs.field(repr=False)

    def names(self) -> frozenset[str]:
        """The DNS names the certificate is for, in lower case, wildcards as they stand."""
        leaf = x509.load_pem_x509_certificate(self.cert)
        try:
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return frozenset()
        return frozenset(name.lower() for name in names.get_values_for_type(x509.DNSName))


def _settle(context: SSL.Context, alpn: Sequence[bytes]) -> None:
    """What base and certificate contexts have in common: OpenSSL reads some of it from the one, some from the other."""
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(CIPHERS)
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # 22 KiB instead of 44 for an idle connection
    context.set_session_id(b"portway")
    if alpn:
        offered = list(alpn)

        def select_protocol(connection: SSL.Connection, protocols: list[bytes]) -> Any:
            for protocol in offered:
                if protocol in protocols:
                    return protocol
            return SSL.NO_OVERLAPPING_PROTOCOLS

        context.set_alpn_select_callback(select_protocol)


def base_context(alpn: Sequence[bytes] = ()) -> SSL.Context:
    """The context that a listener's connections begin with. One made before the fork has its ticket keys in every
    worker even where `tickets` can't give it any."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    _settle(context, alpn)
    return context


def certificate_context(pair: KeyPair, alpn: Sequence[bytes] = (), authorities: bytes | None = None) -> SSL.Context:
    """A context for one certificate; it asks clients for theirs, if `authorities` (PEM) says whom to trust. Raises
    ValueError, saying what is wrong with the pair."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    _settle(context, alpn)
    install(context, pair)
    if authorities is not None:
        trust(context, authorities)
    return context


def trust(context: SSL.Context, authorities: bytes) -> None:
    """Let connections of `context` believe these PEM certificates. Raises ValueError."""
    try:
        certificates = x509.load_pem_x509_certificates(authorities)
    except ValueError as error:
        raise ValueError(f"not PEM certificates: {error}") from None
    store = context.get_cert_store()
    assert store is not None
    for certificate in certificates:
        store.add_cert(X509.from_cryptography(certificate))


def install(context: SSL.Context, pair: KeyPair) -> None:
    """Let connections of `context` show this certificate. Raises ValueError, saying what is wrong with the pair."""
    try:
        chain = x509.load_pem_x509_certificates(pair.cert)
        key = load_pem_private_key(pair.key, None)
    except (ValueError, TypeError) as error:
        raise ValueError(f"not a PEM certificate and unencrypted key: {error}") from None
    if key.public_key() != chain[0].public_key():
        raise ValueError("the key does not belong to the certificate")
    try:
        context.use_certificate(chain[0])
        for issuer in chain[1:]:
            context.add_extra_chain_cert(issuer)
        context.use_privatekey(key)  # type: ignore[arg-type]  # checked by OpenSSL
    except SSL.Error as error:
        raise ValueError(f"OpenSSL refuses the certificate: {reason_of(error)}") from None


class Certificates:
    """Which context serves which name: exact, then wildcard by one label (RFC 6125 §6.4.3), else the first."""

    def __init__(self, pairs: Sequence[KeyPair], alpn: Sequence[bytes] = (), authorities: bytes | None = None) -> None:
        if not pairs:
            raise ValueError("no certificate")
        self.asks = authorities is not None  # clients for their certificates
        self._by_name: dict[str, SSL.Context] = {}
        self._default: SSL.Context | None = None
        for pair in pairs:
            context = certificate_context(pair, alpn, authorities)
            self._default = self._default or context
            for name in pair.names():
                self._by_name.setdefault(name, context)

    def pick(self, name: bytes | None) -> SSL.Context:
        found = None
        if name:
            host = name.decode("ascii", "replace").lower().rstrip(".")
            found = self._by_name.get(host) or self._by_name.get("*." + host.partition(".")[2])
        context = found or self._default
        assert context is not None
        return context


def _judged(ssl: SSL.Connection, certificate: Any, error: int, depth: int, fine: int) -> bool:
    """OpenSSL's judgement is ours: a client may come without a certificate, but not with one that nobody trusts."""
    return bool(fine)


class Acceptor:
    """Makes server connections for one listener. `certificates` may be replaced at any time."""

    def __init__(self, base: SSL.Context, certificates: Certificates) -> None:
        self._base = base
        # Shared with the context's callback, which must not hold the acceptor, and so the context itself: a cycle would
        # keep what OpenSSL has allocated until the collector comes.
        self._current = current = [certificates]

        def named(connection: SSL.Connection) -> None:
            connection.set_context(current[0].pick(connection.get_servername()))

        base.set_tlsext_servername_callback(named)

    @property
    def certificates(self) -> Certificates:
        return self._current[0]

    @certificates.setter
    def certificates(self, certificates: Certificates) -> None:
        self._current[0] = certificates

    def wrap(self, conn: Conn) -> TlsConn:
        ssl = SSL.Connection(self._base, conn.sock)
        if self._current[0].asks:
            ssl.set_verify(SSL.VERIFY_PEER, _judged)  # of the connection: a change of its context leaves this alone
        ssl.set_accept_state()
        return TlsConn(conn, ssl)
