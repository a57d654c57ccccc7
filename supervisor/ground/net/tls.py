"""TLS on the lane: pyOpenSSL straight on the socket, behind the methods of a plain connection.

Owns the server side's contexts. A listener has one *base* context, whose ticket keys are the same in every worker
(`tickets`), so a session resumes in any of them. Its SNI callback always moves the connection to a context made in this
worker from the current certificates, so a reload swaps certificates without touching the base.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from cryptography import x509
from OpenSSL import SSL
from OpenSSL._util import lib as _openssl
from OpenSSL.crypto import X509

from supervisor.ground.lane.conn import Conn
from supervisor.ground.net.keypairs import KeyPair
from supervisor.ground.net.peers import PeerPolicy
from supervisor.ground.net.staples import Staple, shown, staple_of
from supervisor.ground.net.tlsconn import TlsConn, reason_of

# Mozilla's "intermediate" list: forward secrecy and AEAD only; TLS 1.3 suites are OpenSSL's own defaults.
CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    b"ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
# The same authority's curves, after the hybrid that a quantum computer does not break (OpenSSL 3.5 has it).
GROUPS = (b"X25519MLKEM768:X25519:P-256:P-384", b"X25519:P-256:P-384")
SESSION_ID = b"portway"  # what sessions of listeners without client certificates are bound to
_OPTIONS = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE


def _settle(context: SSL.Context, alpn: Sequence[bytes]) -> None:
    """What base and certificate contexts have in common: OpenSSL reads some of it from the one, some from the other."""
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(CIPHERS)
    # pyOpenSSL has a name for one curve only.
    if not any(_openssl.SSL_CTX_set1_curves_list(context._context, groups) for groups in GROUPS):
        raise ValueError("OpenSSL knows none of the curves")
    _openssl.ERR_clear_error()
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # 22 KiB instead of 44 for an idle connection
    context.set_session_id(SESSION_ID)
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


def certificate_context(
    *pairs: KeyPair, alpn: Sequence[bytes] = (), peers: PeerPolicy | None = None
) -> SSL.Context:  # fmt: skip
    """A context for one certificate, or for one of each kind of key. Raises ValueError, saying what is wrong."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    _settle(context, alpn)
    staples: dict[x509.Certificate, Staple] = {}
    for pair in pairs:
        install(context, pair, alone=len(pairs) == 1)
        leaf = x509.load_pem_x509_certificate(pair.cert)
        if pair.ocsp and (staple := staple_of(leaf, pair.ocsp)) is not None:
            staples[leaf] = staple
    if staples:
        context.set_ocsp_server_callback(shown(staples))
    if peers is not None:
        trust(context, peers.authorities)
        peers.settle(context)
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


def install(context: SSL.Context, pair: KeyPair, *, alone: bool = True) -> None:
    """Let connections of `context` show this certificate; not `alone`, beside those with keys of other kinds. Raises
    ValueError, saying what is wrong with the pair."""
    chain, key = pair.load()
    try:
        if alone:
            context.use_certificate(chain[0])
            for issuer in chain[1:]:
                context.add_extra_chain_cert(issuer)
        else:
            _use_chain(context, pair.cert)
        context.use_privatekey(key)
    except SSL.Error as error:
        raise ValueError(f"OpenSSL refuses the certificate: {reason_of(error)}") from None


def _use_chain(context: SSL.Context, chain: bytes) -> None:
    """A chain for its kind of key alone, which OpenSSL takes from files only."""
    fd = os.memfd_create("portway-chain", os.MFD_CLOEXEC)
    try:
        os.write(fd, chain)
        context.use_certificate_chain_file(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


class Certificates:
    """Which context serves which name: exact, then wildcard by one label (RFC 6125 §6.4.3), else the first.

    A name that stands in certificates with keys of different kinds is served with whichever the client can verify.
    """

    def __init__(
        self, pairs: Sequence[KeyPair], alpn: Sequence[bytes] = (), peers: PeerPolicy | None = None
    ) -> None:  # fmt: skip
        if not pairs:
            raise ValueError("no certificate")
        self.peers = peers
        names = [pair.names() for pair in pairs]
        kinds = [pair.kind() for pair in pairs]
        chosen: dict[str, tuple[int, ...]] = {}
        for number, own in enumerate(names):
            for name in own:
                others = chosen.get(name, ())
                if kinds[number] not in {kinds[other] for other in others}:
                    chosen[name] = (*others, number)
        first = [0]
        for number, own in enumerate(names):
            if own == names[0] and kinds[number] not in {kinds[other] for other in first}:
                first.append(number)
        groups = {*chosen.values(), tuple(first)}
        contexts = {
            group: certificate_context(*(pairs[number] for number in group), alpn=alpn, peers=peers) for group in groups
        }
        self._by_name = {name: (contexts[group], group[0]) for name, group in chosen.items()}
        self._default = (contexts[tuple(first)], 0)

    def pick(self, name: bytes | None) -> SSL.Context:
        """The context for the name that a client asks for."""
        return self._find(name)[0]

    def number(self, name: bytes | None) -> int:
        """Which of the pairs it is; of several kinds the first."""
        return self._find(name)[1]

    def _find(self, name: bytes | None) -> tuple[SSL.Context, int]:
        if not name:
            return self._default
        host = name.decode("ascii", "replace").lower().rstrip(".")
        return self._by_name.get(host) or self._by_name.get("*." + host.partition(".")[2]) or self._default


class Acceptor:
    """Makes server connections for one listener. `certificates` may be replaced at any time."""

    def __init__(self, base: SSL.Context, certificates: Certificates) -> None:
        self._base = base
        # Shared with the context's callback, which must not hold the acceptor, and so the context itself: a cycle would
        # keep what OpenSSL has allocated until the collector comes.
        self._current = current = [certificates]
        self._bound = SESSION_ID

        def named(connection: SSL.Connection) -> None:
            connection.set_context(current[0].pick(connection.get_servername()))

        base.set_tlsext_servername_callback(named)
        self.certificates = certificates

    @property
    def certificates(self) -> Certificates:
        return self._current[0]

    @certificates.setter
    def certificates(self, certificates: Certificates) -> None:
        self._current[0] = certificates
        bound = SESSION_ID if certificates.peers is None else certificates.peers.session_id()
        if bound != self._bound:
            # A session is looked for before the name is, so it is the base that it must be bound to. pyOpenSSL lets no
            # context be changed once it is used, which is a rule for threads; there is one here.
            _openssl.SSL_CTX_set_session_id_context(self._base._context, bound, len(bound))
            self._bound = bound

    def wrap(self, conn: Conn) -> TlsConn:
        ssl = SSL.Connection(self._base, conn.sock)
        if self._current[0].peers is not None:
            self._current[0].peers.ask(ssl)  # of the connection: a change of its context leaves this alone
        ssl.set_accept_state()
        return TlsConn(conn, ssl)
