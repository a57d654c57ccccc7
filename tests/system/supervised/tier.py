"""A tier that does on command what real ones do by accident: hang, refuse, crash. Run as a program it is a daemon.

Its listeners greet a connection with `PID GENERATION GREETING`, then echo lines until the client leaves. The keys
`start` and `prepare` say how a worker behaves when it starts or is asked to prepare that configuration.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import trio

from supervisor.arbiter.parts import Parts
from supervisor.arbiter.start import run
from supervisor.ground.config import Bind, Config, Problem, Workers
from supervisor.ground.lane import Listening
from supervisor.ground.tier import ListenerSpec, Tier, Worker

Behaviour = Literal["well", "fail", "refuse", "die", "hang"]


@attrs.frozen(kw_only=True)
class ListenerTable:
    bind: Bind


@attrs.frozen(kw_only=True)
class FakeTable:
    workers: Workers | None = None
    listeners: Mapping[str, ListenerTable] = attrs.Factory(dict)
    greeting: str = "hello"
    start: Behaviour = "well"
    prepare: Behaviour = "well"
    fixed: str = ""  # what a reload is refused for


class FakeRuntime:
    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.table: FakeTable = worker.config.tier("fake")
        self.listening: dict[tuple[str, int], Listening] = {}
        self.live = 0
        behave(self.table.start)

    def attach(self, listener: str, slot: int, sock: socket.socket) -> None:
        self.listening[listener, slot] = self.worker.lane.listen(sock, self.accepted)

    def detach(self, listener: str, slot: int) -> None:
        self.listening.pop((listener, slot)).close()

    def accepted(self, sock: socket.socket, address: Any) -> Coroutine[Any, Any, None]:
        return self.serve(sock)

    async def serve(self, sock: socket.socket) -> None:
        conn = self.worker.lane.adopt(sock)
        self.live += 1
        try:
            await conn.send(f"{os.getpid()} {self.worker.plane.generation} {self.table.greeting}\n".encode())
            while data := await conn.recv():
                if data == b"crash\n":
                    os.kill(os.getpid(), signal.SIGSEGV)
                if data == b"fault\n":
                    raise RuntimeError("a fault of ours")
                await conn.send(data)
        finally:
            self.live -= 1
            conn.close()

    def prepare(self, config: Config) -> FakeTable:
        table: FakeTable = config.tier("fake")
        behave(table.prepare)
        return table

    def commit(self, prepared: FakeTable) -> None:
        self.table = prepared

    def renew(self, config: Config) -> None: ...

    def receive(self, message: Any, descriptors: Sequence[int]) -> None: ...

    def drain(self) -> None: ...

    def holding(self) -> Sequence[str]:
        return [f"connection {number}" for number in range(self.live)]

    def close(self) -> None: ...


def behave(how: Behaviour) -> None:
    match how:
        case "refuse":
            raise ValueError("fake.prepare: not with me")
        case "fail":
            raise RuntimeError("fails on command")
        case "die":
            os._exit(9)
        case "hang":
            time.sleep(3600)


def listeners(config: Config) -> Sequence[ListenerSpec]:
    return [ListenerSpec(name, table.bind) for name, table in config.tier("fake").listeners.items()]


def refuse(old: Config, new: Config) -> Sequence[Problem]:
    if old.tier("fake").fixed == new.tier("fake").fixed:
        return ()
    return [Problem(("fake", "fixed"), "can't be changed by a reload")]


TIER = Tier(name="fake", table=FakeTable, listeners=listeners, rows=lambda config: (), start=FakeRuntime, refuse=refuse)


async def once(worker: Worker) -> None:
    """What exists once, and does nothing."""
    await trio.sleep_forever()


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), Parts((TIER,), prober=once, admin=once)))
