"""A TLS connection on the lane: OpenSSL straight on the socket, in the place of the plain connection it was made of.

pyOpenSSL makes the connection and explains its failures; reading and writing, which happen with every message, call
OpenSSL itself, with one buffer for all connections of the process.
"""

from __future__ import annotations

import errno
import os
import select
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from OpenSSL._util import ffi as _ffi
from OpenSSL._util import lib as _openssl

from supervisor.ground.lane.conn import Conn, closed_here
from supervisor.ground.lane.sessions import PARK

RECORD = 16 * 1024  # RFC 8446 §5.1: a record carries at most 2^14 bytes
# A system error stays in OpenSSL's queue, which is one for the thread: OpenSSL 3 would give it to the next connection
# that only has to wait. pyOpenSSL has no public name for this, nor for the reading and writing beneath its own methods,
# which allocate 16 KiB and ask for errors where there are none: 1 µs each.
_forget_errors = _openssl.ERR_clear_error
_ssl_read, _ssl_write, _ssl_pending = _openssl.SSL_read, _openssl.SSL_write, _openssl.SSL_pending
_from_buffer = _ffi.from_buffer
_record = _ffi.new("char[]", RECORD)
_read = _ffi.buffer(_record, RECORD)  # sliced, it gives bytes
_EDGE = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_EDGE_READ = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET  # while it is writable anyway


class TlsError(OSError):
    """The peer broke TLS, or the connection under it broke."""


class PlainHttp(TlsError):
    """The peer speaks HTTP where TLS begins."""


class TlsConn(Conn):
    """A TLS connection. It takes the place of `conn` on the lane, which is as good as closed from then on: whoever
    wrapped it closes this one. Errors are `TlsError` or another OSError."""

    __slots__ = ("_handle", "_ssl", "_up")

    def __init__(self, conn: Conn, ssl: SSL.Connection) -> None:
        super().__init__(conn.lane, conn.sock)
        self.readable, self.writable, self.last = conn.readable, conn.writable, conn.last
        self.waiter, self.on_idle = conn.waiter, conn.on_idle
        self.lane.conns[self.fd] = self
        conn.fd = -1
        conn.readable = conn.writable = False
        conn.waiter = conn.on_idle = None
        self._ssl = ssl
        self._handle: Any = ssl._ssl  # what OpenSSL calls the connection
        self._up = False  # the handshake is done and nothing fatal came: close_notify may be sent

    async def handshake(self) -> None:
        """Shake hands. Raises TlsError; the deadline is the caller's."""
        self.attach()
        while self.fd >= 0:
            try:
                self._ssl.do_handshake()
            except SSL.WantReadError:
                self.readable = False
                while not self.readable and self.fd >= 0:
                    await PARK
            except SSL.WantWriteError:
                self.writable = False
                while not self.writable and self.fd >= 0:
                    await PARK
            except SSL.Error as error:
                raise _failure(error) from None
            else:
                self._up = True
                self.readable = True
                return
        raise closed_here()

    def alpn(self) -> bytes:
        """The protocol that was agreed on; b"" for none."""
        return self._ssl.get_alpn_proto_negotiated()

    def server_name(self) -> bytes | None:
        """The name the client asked for (SNI)."""
        return self._ssl.get_servername()

    def certificate(self) -> bytes | None:
        """What this side has shown, DER."""
        return _der(self._ssl.get_certificate())

    def peer_certificate(self) -> bytes | None:
        """What the peer has shown, DER."""
        return _der(self._ssl.get_peer_certificate())

    def version(self) -> str:
        return self._ssl.get_protocol_version_name()

    def cipher(self) -> str:
        """The cipher suite, as OpenSSL calls it."""
        return self._ssl.get_cipher_name() or ""

    def recv_nowait(self, size: int = RECORD) -> bytes | None:
        """At most a record. None: nothing is known to be there; whatever is will make an event."""
        if not self.readable:
            return None
        got = _ssl_read(self._handle, _record, size if size < RECORD else RECORD)
        if got <= 0:
            return self._nothing(got)
        if got < RECORD and not self.last and not _ssl_pending(self._handle):
            # A failing read costs 3 µs, asking epoll for a fresh edge half a microsecond. For reading alone: a writable
            # socket would answer at once, to no purpose.
            self.readable = False
            self.lane.epoll.modify(self.fd, _EDGE_READ if self.writable else _EDGE)
        data: bytes = _read[:got]
        return data

    def _nothing(self, got: int) -> bytes | None:
        """Why a read gave nothing."""
        try:
            self._ssl._raise_ssl_error(self._handle, got)
        except SSL.WantReadError:
            self.readable = False
            return None
        except SSL.WantWriteError:
            self._full()  # the answer to a key update, with the socket full: stays readable, to be tried again
            return None
        except SSL.ZeroReturnError:
            return b""
        except SSL.Error as error:
            self._up = False
            if _failure(error).errno == 0:
                return b""  # closed without close_notify: common, and framing tells truncation
            # Not by a name: an error that its own frame refers to is a cycle, and holds all that OpenSSL has allocated.
            raise _failure(error) from None
        raise TlsError(errno.EPROTO, "a read of nothing, for no reason")

    async def recv(self, size: int = RECORD) -> bytes:
        lane = self.lane
        lane.credit -= 1
        if lane.credit < 0:
            await lane.pause()
        self.waiter = lane.current
        while True:
            data = self.recv_nowait(size)
            if data is not None:
                return data
            if self.fd < 0:
                raise closed_here()
            await PARK

    def send_nowait(self, data: bytes | memoryview) -> int:
        if not self.writable or not data:
            return 0
        sent: int = _ssl_write(self._handle, data if type(data) is bytes else _from_buffer(data), len(data))
        if sent > 0:
            return sent
        try:
            self._ssl._raise_ssl_error(self._handle, sent)
        except SSL.WantWriteError:
            self._full()
            return 0
        except SSL.WantReadError:  # only while shaking hands; whatever comes tells also that it can write
            self.writable = False
            return 0
        except SSL.Error as error:
            self._up = False
            raise _failure(error) from None
        return 0

    def _full(self) -> None:
        self.writable = False
        self.lane.epoll.modify(self.fd, _EDGE)

    async def send(self, data: bytes | memoryview) -> None:
        self.waiter = self.lane.current
        rest: bytes | memoryview = data
        while rest:
            sent = self.send_nowait(rest)
            if sent == len(rest):
                return
            rest = memoryview(rest)[sent:]
            if not self.writable:
                if self.fd < 0:
                    raise closed_here()
                await PARK

    def shutdown_write(self) -> None:
        """Send close_notify, then end our side of the connection."""
        self._notify()
        super().shutdown_write()

    def close(self) -> None:
        self._notify()
        super().close()

    def abort(self) -> None:
        self._up = False
        super().abort()

    def release(self) -> Any:
        """What OpenSSL knows of a connection can't leave the process."""
        raise OSError(errno.EOPNOTSUPP, "a TLS connection can't be handed on")

    def _notify(self) -> None:
        if self._up and self.fd >= 0:
            self._up = False
            try:
                self._ssl.shutdown()
            except SSL.Error:
                _forget_errors()


def _der(certificate: Any) -> bytes | None:
    if certificate is None:
        return None
    found: bytes = certificate.to_cryptography().public_bytes(Encoding.DER)
    return found


def _failure(error: SSL.Error) -> OSError:
    """pyOpenSSL's errors as OSError; errno 0 means that the peer just closed."""
    _forget_errors()
    if isinstance(error, SSL.SysCallError):
        number = error.args[0] if error.args and isinstance(error.args[0], int) else -1
        if number <= 0:
            return TlsError(0, "closed without close_notify")
        return OSError(number, os.strerror(number))
    reason = reason_of(error)
    if "unexpected eof" in reason:
        return TlsError(0, "closed without close_notify")
    if reason in ("http request", "https proxy request"):
        return PlainHttp(errno.EPROTO, reason)
    return TlsError(errno.EPROTO, reason)


def reason_of(error: SSL.Error) -> str:
    return "; ".join(part[-1] for part in error.args[0]) if error.args and error.args[0] else "TLS failed"
