"""A client's connection as its session and the drain know it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.forwarded import Client

if TYPE_CHECKING:
    from gateway.listener import Listener
    from gateway.tunnel import Farewell


class Connection:
    """One accepted connection. `stream` is plain or TLS; whoever serves it notes when it last had something to do."""

    __slots__ = ("busy", "client", "farewell", "listener", "seen", "stream")

    def __init__(self, listener: Listener, stream: Any, client: Client, now: float) -> None:
        self.listener = listener
        self.stream = stream
        self.client = client
        self.busy = False  # a request is under way
        self.seen = now  # monotonic seconds at which the last request began
        self.farewell: Farewell | None = None  # of a WebSocket

    def silent(self, since: float) -> bool:
        """Whether it has been at rest since that time."""
        return not self.busy and self.seen <= since
