"""TLS on the lane: pyOpenSSL straight on the socket, behind the methods of a plain connection.

Owns the server side's contexts. A listener has one *base* context, whose ticket keys are the same in every worker
(`tickets`), so a session resumes in any of them. Its SNI callback always moves the connection to a context made in this
worker from the current certificates, so a reload swaps certificates without touching the base.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Sequence
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from OpenSSL._util import lib as _openssl

from supervisor.ground.lane.conn import Conn, closed_here
from supervisor.ground.lane.sessions import Session, park

RECORD = 16 * 1024  # RFC 8446 §5.1: a record carries at most 2^14 bytes
# Mozilla's "intermediate" list: forward secrecy and AEAD only; TLS 1.3 suites are OpenSSL's own defaults.
CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    b"ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
_OPTIONS = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE
# A system error stays in OpenSSL's queue, which is one for the thread: OpenSSL 3 would give it to the next connection
# that only has to wait. pyOpenSSL has no public name for this.
_forget_errors = _openssl.ERR_clear_error
_EDGE = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_EDGE_READ = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET  # while it is writable anyway


class TlsError(OSError):
    """The peer broke TLS, or the connection under it broke."""


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


def certificate_context(pair: KeyPair, alpn: Sequence[bytes] = ()) -> SSL.Context:
    """A context for one certificate. Raises ValueError, saying what is wrong with the pair."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    _settle(context, alpn)
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
        raise ValueError(f"OpenSSL refuses the certificate: {_reason(error)}") from None
    return context


class Certificates:
    """Which context serves which name: exact, then wildcard by one label (RFC 6125 §6.4.3), else the first."""

    def __init__(self, pairs: Sequence[KeyPair], alpn: Sequence[bytes] = ()) -> None:
        if not pairs:
            raise ValueError("no certificate")
        self._by_name: dict[str, SSL.Context] = {}
        self._default: SSL.Context | None = None
        for pair in pairs:
            context = certificate_context(pair, alpn)
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


class Acceptor:
    """Makes server connections for one listener. `certificates` may be replaced at any time."""

    def __init__(self, base: SSL.Context, certificates: Certificates) -> None:
        self.certificates = certificates
        self._base = base
        base.set_tlsext_servername_callback(self._named)

    def _named(self, connection: SSL.Connection) -> None:
        connection.set_context(self.certificates.pick(connection.get_servername()))

    def wrap(self, conn: Conn) -> TlsConn:
        ssl = SSL.Connection(self._base, conn.sock)
        ssl.set_accept_state()
        return TlsConn(conn, ssl)


class TlsConn:
    """A TLS connection with the methods of `Conn`. Errors are `TlsError` or another OSError."""

    __slots__ = ("_conn", "_recv", "_send", "_ssl", "_up", "lane")

    def __init__(self, conn: Conn, ssl: SSL.Connection) -> None:
        self._conn = conn
        self._ssl = ssl
        self._recv = ssl.recv
        self._send = ssl.send
        self._up = False  # the handshake is done and nothing fatal came: close_notify may be sent
        self.lane = conn.lane

    @property
    def sock(self) -> socket.socket:
        return self._conn.sock

    @property
    def fd(self) -> int:
        return self._conn.fd

    @property
    def readable(self) -> bool:
        return self._conn.readable

    @readable.setter
    def readable(self, value: bool) -> None:
        self._conn.readable = value

    @property
    def writable(self) -> bool:
        return self._conn.writable

    @writable.setter
    def writable(self, value: bool) -> None:
        self._conn.writable = value

    @property
    def waiter(self) -> Session | None:
        return self._conn.waiter

    @waiter.setter
    def waiter(self, session: Session | None) -> None:
        self._conn.waiter = session

    async def handshake(self) -> None:
        """Shake hands. Raises TlsError; the deadline is the caller's."""
        conn = self._conn
        conn.attach()
        while conn.fd >= 0:
            try:
                self._ssl.do_handshake()
            except SSL.WantReadError:
                conn.readable = False
                while not conn.readable and conn.fd >= 0:
                    await park()
            except SSL.WantWriteError:
                conn.writable = False
                while not conn.writable and conn.fd >= 0:
                    await park()
            except SSL.Error as error:
                raise _failure(error) from None
            else:
                self._up = True
                conn.readable = True
                return
        raise closed_here()

    def alpn(self) -> bytes:
        """The protocol that was agreed on; b"" for none."""
        return self._ssl.get_alpn_proto_negotiated()

    def server_name(self) -> bytes | None:
        """The name the client asked for (SNI)."""
        return self._ssl.get_servername()

    def version(self) -> str:
        return self._ssl.get_protocol_version_name()

    def recv_nowait(self, size: int = RECORD) -> bytes | None:
        """At most a record. None: nothing is known to be there; whatever is will make an event."""
        conn = self._conn
        if not conn.readable:
            return None
        try:
            data = self._recv(size if size < RECORD else RECORD)
        except SSL.WantReadError:
            conn.readable = False
            return None
        except (
            SSL.WantWriteError
        ):  # the answer to a key update, with the socket full: stays readable, to be tried again
            self._full()
            return None
        except SSL.ZeroReturnError:
            return b""
        except SSL.Error as error:
            self._up = False
            if _failure(error).errno == 0:
                return b""  # closed without close_notify: common, and framing tells truncation
            # Not by a name: an error that its own frame refers to is a cycle, and holds all that OpenSSL has allocated.
            raise _failure(error) from None
        if len(data) < RECORD and not conn.last and not self._ssl.pending():
            # A failing read costs 3 µs, asking epoll for a fresh edge half a microsecond. For reading alone: a writable
            # socket would answer at once, to no purpose.
            conn.readable = False
            conn.lane.epoll.modify(conn.fd, _EDGE_READ if conn.writable else _EDGE)
        return data

    async def recv(self, size: int = RECORD) -> bytes:
        conn, lane = self._conn, self.lane
        lane.credit -= 1
        if lane.credit < 0:
            await lane.pause()
        conn.waiter = lane.current
        while True:
            data = self.recv_nowait(size)
            if data is not None:
                return data
            if conn.fd < 0:
                raise closed_here()
            await park()

    def send_nowait(self, data: bytes | memoryview) -> int:
        conn = self._conn
        if not conn.writable or not data:
            return 0
        try:
            sent = self._send(data)
        except SSL.WantWriteError:
            self._full()
            return 0
        except SSL.WantReadError:  # only while shaking hands; whatever comes tells also that it can write
            conn.writable = False
            return 0
        except SSL.Error as error:
            self._up = False
            raise _failure(error) from None
        return sent

    def _full(self) -> None:
        self._conn.writable = False
        self.lane.epoll.modify(self._conn.fd, _EDGE)

    async def send(self, data: bytes | memoryview) -> None:
        conn = self._conn
        conn.waiter = self.lane.current
        rest: bytes | memoryview = data
        while rest:
            sent = self.send_nowait(rest)
            if sent == len(rest):
                return
            rest = memoryview(rest)[sent:]
            if not conn.writable:
                if conn.fd < 0:
                    raise closed_here()
                await park()

    def attach(self) -> None:
        self._conn.attach()

    def shutdown_write(self) -> None:
        """Send close_notify, then end our side of the connection."""
        self._notify()
        self._conn.shutdown_write()

    def close(self) -> None:
        self._notify()
        self._conn.close()

    def abort(self) -> None:
        self._up = False
        self._conn.abort()

    def _notify(self) -> None:
        if self._up and self._conn.fd >= 0:
            self._up = False
            try:
                self._ssl.shutdown()
            except SSL.Error:
                _forget_errors()


def _failure(error: SSL.Error) -> OSError:
    """pyOpenSSL's errors as OSError; errno 0 means that the peer just closed."""
    _forget_errors()
    if isinstance(error, SSL.SysCallError):
        number = error.args[0] if error.args and isinstance(error.args[0], int) else -1
        if number <= 0:
            return TlsError(0, "closed without close_notify")
        return OSError(number, os.strerror(number))
    reason = _reason(error)
    if "unexpected eof" in reason:
        return TlsError(0, "closed without close_notify")
    return TlsError(errno.EPROTO, reason)


def _reason(error: SSL.Error) -> str:
    return "; ".join(part[-1] for part in error.args[0]) if error.args and error.args[0] else "TLS failed"
