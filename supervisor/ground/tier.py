"""What a tier hands to the supervisor, and what a worker hands to a tier.

The supervisor knows tiers only as `Tier` values; only the command line names them. After the fork a worker calls
`Tier.start` with everything it owns in this process (`Worker`) and drives the `Runtime` that comes back: it gives it
sockets, configurations in two steps, messages, and in the end a drain.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from supervisor.ground.queues import Queues

if TYPE_CHECKING:
    from OpenSSL import SSL
    from structlog.typing import FilteringBoundLogger

    from supervisor.ground.config import Bind, Config, Problem
    from supervisor.ground.lane import Lane
    from supervisor.ground.log import AccessLog
    from supervisor.ground.net.tickets import Tickets
    from supervisor.ground.pools import Pools
    from supervisor.ground.privileges import Identity
    from supervisor.ground.service import Resident
    from supervisor.ground.wire import Mailbox
    from supervisor.plane.layout import Kind
    from supervisor.plane.memory import Plane


class Transport(Enum):
    """What a listener's sockets speak."""

    TCP = socket.SOCK_STREAM
    UDP = socket.SOCK_DGRAM


@attrs.frozen
class ListenerSpec:
    """A listener that the supervisor is to open: one socket for each slot."""

    name: str  # within its tier, as the configuration names it
    bind: Bind
    transport: Transport = Transport.TCP
    backlog: int = 4096  # Linux's own default for somaxconn


@attrs.define(eq=False)
class Worker:
    """What one process of a tier owns. Made after the fork."""

    tier: str
    number: int  # 1..n, for titles and people; `incarnation` is the identity
    column: int  # its column in the plane, and its address on the wire
    incarnation: int
    config: Config
    plane: Plane
    mailbox: Mailbox
    lane: Lane
    log: FilteringBoundLogger
    access: AccessLog
    pools: Pools
    inherited: Any = None  # what the tier's `inherit` made before any fork
    queues: Queues = attrs.field(init=False)
    _tickets: Tickets | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.queues = Queues(self.pools, self.lane, self.mailbox)

    def base_context(self, listener: str, alpn: Sequence[bytes]) -> SSL.Context:
        """What the TLS connections of a listener begin with. It is from before the fork where the listener is that old;
        wherever it is from, its tickets are good in every worker of the tier, and after an upgrade."""
        from supervisor.ground.net.tickets import LOOK, Tickets  # OpenSSL is loaded only where TLS is asked for
        from supervisor.ground.net.tls import base_context

        if self._tickets is None:
            self._tickets = Tickets(self.plane.cells, self.log)
            self.lane.every(LOOK, self._tickets.look)
        context: SSL.Context = (self.inherited or {}).get(listener) or base_context(alpn)
        self._tickets.share(context, f"{self.tier}/{listener}")
        return context


class Runtime(Protocol):
    """A tier at work in one worker."""

    def attach(self, listener: str, slot: int, sock: socket.socket) -> None:
        """Poll this slot of `listener` from now on."""

    def detach(self, listener: str, slot: int) -> None:
        """Poll it no longer. The socket stays open: it belongs to the supervisor."""

    def prepare(self, config: Config) -> Any:
        """Make everything that `config` asks for beside what runs, and return it. Raises ValueError with the reason
        when it can't; then nothing has changed."""

    def commit(self, prepared: Any) -> None:
        """Swap to what `prepare` returned. Must not fail."""

    def renew(self, config: Config) -> None:
        """Certificates have been renewed: `config` is what runs, with other contents of their files."""

    def receive(self, message: Any, descriptors: Sequence[int]) -> None:
        """A message over the wire that is of this tier's own kinds. The descriptors are now ours to close."""

    def drain(self) -> None:
        """Begin to end: every slot is detached already; let what runs come to its border."""

    def holding(self) -> Sequence[str]:
        """What still holds a drain up, a line each. Empty: the worker may end."""

    def close(self) -> None:
        """End at once whatever is left."""


@attrs.frozen
class TierService:
    """A task of a tier that must exist once: a process of its own, beside the tier's workers."""

    run: Callable[[Worker], Awaitable[None]] | Resident
    wanted: Callable[[Config], bool] = lambda config: True
    net_admin: bool = False  # it keeps CAP_NET_ADMIN when it becomes another user

    def identity(self, others: Identity | None) -> Identity | None:
        """Whom it runs as, given whom all other processes do."""
        return None if others is None else attrs.evolve(others, net_admin=self.net_admin)


@attrs.frozen
class Tier:
    """A tier as the supervisor sees it."""

    name: str  # also its table in the configuration
    table: type[Any]
    listeners: Callable[[Config], Sequence[ListenerSpec]]
    rows: Callable[[Config], Iterable[tuple[Kind, str]]]  # the plane's rows that it needs beside its listeners'
    start: Callable[[Worker], Runtime]
    inherit: Callable[[Config], Any] = lambda config: None  # made once, before any fork: what workers are to share
    unable: Callable[[Config], Iterable[Problem]] = lambda config: ()  # what this machine lacks, seen at the start
    refuse: Callable[[Config, Config], Iterable[Problem]] = lambda old, new: ()  # what a reload can't change yet
    services: Mapping[str, TierService] = attrs.Factory(dict)
    net_admin: Callable[[Config], bool] = lambda config: False  # workers keep CAP_NET_ADMIN as another user

    def identity(self, config: Config, others: Identity | None) -> Identity | None:
        """Whom its workers run as, given whom all other processes do."""
        return None if others is None else attrs.evolve(others, net_admin=self.net_admin(config))
