"""TLS for the checks of pools that have it: a server is asked in the way in which it gets its work."""

from __future__ import annotations

import functools
import os
import ssl

import trio

from supervisor.ground.config import PoolTlsTable
from supervisor.ground.net.authorities import client_context


async def secured(stream: trio.abc.Stream, tls: PoolTlsTable, name: str, alpn: str) -> trio.abc.Stream:
    """The stream under TLS, with the server's certificate verified as the pool says; `name` is the server's, or its
    address. Raises ssl.SSLError, trio.BrokenResourceError."""
    secure = trio.SSLStream(stream, _context(tls, alpn), server_hostname=tls.sni or name, https_compatible=True)
    try:
        await secure.do_handshake()
    except trio.BrokenResourceError as error:
        if isinstance(error.__cause__, ssl.SSLError):
            raise error.__cause__ from None
        raise
    return secure


@functools.lru_cache(maxsize=256)
def _context(tls: PoolTlsTable, alpn: str) -> ssl.SSLContext:
    context = client_context(None if tls.ca is None else tls.ca.data)
    if not tls.verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    if tls.cert is not None and tls.key is not None:
        # The module reads files only, and these may be anybody's to read no more.
        with _InMemory(tls.cert.data) as cert, _InMemory(tls.key.data) as key:
            context.load_cert_chain(cert.name, key.name)
    return context


class _InMemory:
    """A file in memory, for as long as the block lasts."""

    def __init__(self, data: bytes) -> None:
        self._fd = os.memfd_create("portway-check")
        os.write(self._fd, data)
        self.name = f"/proc/self/fd/{self._fd}"

    def __enter__(self) -> _InMemory:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
