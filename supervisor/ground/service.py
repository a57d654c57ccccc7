"""A process that runs one async function instead of a tier's runtime: prober, admin, and the services of tiers.

It looks to the worker like a runtime without listeners. A reload starts the function anew with the new configuration in
its Worker, but a `Resident` goes on and looks there by itself; a drain ends it. It may take a socket or anything else
that was made for it before the fork from `worker.inherited`.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import trio

from supervisor.ground.config import Config
from supervisor.ground.tier import Worker
from supervisor.ground.wire import close_all

Service = Callable[[Worker], Awaitable[None]]


@runtime_checkable
class Resident(Protocol):
    """A service that reloads don't interrupt, and that takes messages."""

    async def run(self, worker: Worker) -> None:
        """Until cancelled; `worker.config` is another after each reload."""

    def receive(self, message: Any) -> None:
        """What came over the wire for it."""


@runtime_checkable
class Drainable(Protocol):
    """A service with something to bring to its end; any other is ended by a drain at once."""

    def drain(self) -> None:
        """Begin nothing new; `run` goes on until it is cancelled."""

    def holding(self) -> Sequence[str]:
        """What is under way still, a line each."""


class ServiceEnded(Exception):
    """The function returned although nobody asked it to end."""


class ServiceRuntime:
    """The function at work in one process. `run` is a trio task of that process."""

    def __init__(self, worker: Worker, service: Service | Resident) -> None:
        self._worker = worker
        self._resident = service if isinstance(service, Resident) else None
        self._drainable: Drainable | None = service if isinstance(service, Drainable) else None
        self._function: Service = service.run if isinstance(service, Resident) else service
        self._scope = trio.CancelScope()
        self._again = False
        self._ending = False

    async def run(self) -> None:
        """Until drained. Raises what the function raises, ServiceEnded if it returns by itself."""
        while not self._ending:
            self._again = False
            self._scope = trio.CancelScope()
            with self._scope:
                await self._function(self._worker)
            if not self._again and not self._ending:
                raise ServiceEnded

    def attach(self, listener: str, slot: int, sock: socket.socket) -> None:
        """A service has no listeners."""

    def detach(self, listener: str, slot: int) -> None:
        """A service has no listeners."""

    def prepare(self, config: Config) -> Any:
        """The function reads it from its worker when it starts anew."""
        return config

    def commit(self, prepared: Any) -> None:
        if self._resident is None:
            self._again = True
            self._scope.cancel()

    def renew(self, config: Config) -> None:
        """A service ends no TLS."""

    def receive(self, message: Any, descriptors: Iterable[int]) -> None:
        """Descriptors are for none of them, and came by mistake."""
        close_all(descriptors)
        if self._resident is not None:
            self._resident.receive(message)

    def drain(self) -> None:
        if self._drainable is None:
            self.close()
        else:
            self._drainable.drain()

    def holding(self) -> Sequence[str]:
        return () if self._drainable is None else self._drainable.holding()

    def close(self) -> None:
        self._ending = True
        self._scope.cancel()
