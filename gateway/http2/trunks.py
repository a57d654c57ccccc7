"""The HTTP/2 connections of a worker to its servers: few to each, and each with many requests on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gateway.http2.trunk import Trunk
from supervisor.ground.pools import Server

if TYPE_CHECKING:
    from gateway.shared import Shared


class Trunks:
    """Those that may take requests, by server."""

    __slots__ = ("_of", "_shared")

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._of: dict[Server, list[Trunk]] = {}

    def find(self, server: Server) -> Trunk | None:
        """One with room for a request: the oldest, so that those opened in a rush come to rest."""
        for trunk in self._of.get(server, ()):
            if trunk.room > 0:
                return trunk
        return None

    def add(self, server: Server, conn: Any) -> Trunk:
        """A fresh connection, ready for requests."""
        trunk = Trunk(self._shared, server, conn, self._gone)
        self._of.setdefault(server, []).append(trunk)
        return trunk

    def _gone(self, trunk: Trunk) -> None:
        trunks = self._of.get(trunk.server, [])
        if trunk in trunks:
            trunks.remove(trunk)
        if not trunks:
            self._of.pop(trunk.server, None)

    def leave(self, server: Server) -> None:
        """Let the connections to this server end with the requests that are on them."""
        for trunk in list(self._of.get(server, ())):
            trunk.retire()

    def keep_only(self, servers: Iterable[Server]) -> None:
        """Let the connections to all other servers end with the requests that are on them."""
        for server in self._of.keys() - set(servers):
            self.leave(server)
