"""The edge in memory: the real runtime over a rehearsed lane, with clients and servers that the test plays.

Everything is as in a worker but the sockets and the clock: the plane is a real one, and so are pools and counters.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs

from edge.config import EdgeTable
from edge.tcp import TcpListener
from edge.tier import TIER, EdgeRuntime
from supervisor.ground import pools
from supervisor.ground.config import Config, load_bytes
from supervisor.ground.log import logger
from supervisor.ground.net.memory import MemoryConn, Rehearsal
from supervisor.ground.pools import Pools
from supervisor.ground.tier import Worker
from supervisor.plane.layout import Kind, Listener
from supervisor.plane.memory import Plane

HERE = ("192.0.2.254", 443)  # what the edge's sockets are bound to


@attrs.frozen(eq=False)
class Accepted:
    """A socket as `accept` gives it, as much as is used."""

    end: MemoryConn

    def getsockname(self) -> tuple[str, int]:
        return HERE

    def close(self) -> None:
        self.end.close()

    def setsockopt(self, *option: object) -> None:
        """To have it closed with a reset."""


class RehearsedLane(Rehearsal):
    def adopt(self, sock: Accepted) -> MemoryConn:
        sock.end.waiter = self.current
        return sock.end


class Log:
    """The access log's lines, parsed."""

    enabled = True

    def __init__(self) -> None:
        self.lines: list[Any] = []

    def write(self, line: str) -> None:
        self.lines.append(json.loads(line))


class House:
    """One worker. `servers[port]` are the far ends of what it connected to 127.0.0.1:port, in order."""

    def __init__(self, listener: str = 'pool = "a"', pools_text: str = "", folder: Path = Path("/nonexistent")) -> None:
        self.lane = RehearsedLane()
        self.folder = folder
        self.plane = Plane.create()
        self.column = self.plane.claim_column("edge", 1)
        self.log = Log()
        self.servers: dict[int, list[MemoryConn]] = {}
        config = self.config(listener, pools_text)
        self.worker = Worker(
            tier="edge", number=1, column=self.column, incarnation=1, config=config, plane=self.plane,
            mailbox=None, lane=self.lane, log=logger(),  # type: ignore[arg-type]  # as much as is used
            access=self.log,  # type: ignore[arg-type]
            pools=Pools(config, self.plane, self.column),
        )  # fmt: skip
        self.edge = EdgeRuntime(self.worker)
        for port in (8001, 8002, 8003):
            self.listen(port)

    def config(self, listener: str, pools_text: str) -> Config:
        """Pools a, b and c of one server each, and one listener; with the plane's rows that they need."""
        text = "".join(
            f'[pools.{name}]\nservers = ["127.0.0.1:{port}"]\n'
            for name, port in (("a", 8001), ("b", 8002), ("c", 8003))
            if f"[pools.{name}]" not in pools_text
        )
        text += f'{pools_text}\n[edge.listeners.l]\nbind = "192.0.2.254:443"\n{listener}\n'
        config = load_bytes(text.encode(), "test.toml", self.folder, {"edge": EdgeTable})
        for kind, name in (*pools.rows(config), *TIER.rows(config), (Kind.TIER, "edge")):
            self.plane.allocate(kind, name)
        for one in TIER.listeners(config):
            self.plane.allocate(Kind.LISTENER, f"edge/{one.name}")
        return config

    def reload(self, listener: str, pools_text: str = "") -> None:
        self.edge.commit(self.edge.prepare(self.config(listener, pools_text)))

    def remove_listener(self) -> None:
        """Reload without it, as the last of its slots has been detached."""
        config = self.worker.config
        self.edge.commit(self.edge.prepare(attrs.evolve(config, tiers={"edge": EdgeTable()})))

    def close(self) -> None:
        """End it; whatever it carried must have been accounted for."""
        self.edge.close()
        self.lane.finish()
        assert self.count(Listener.ACTIVE) == 0
        for server in self.plane.names(Kind.SERVER):
            assert self.plane.total(Kind.SERVER, self.plane.row(Kind.SERVER, server), 1) == 0
        self.plane.close()

    # -- servers

    def listen(self, port: int) -> None:
        """Let 127.0.0.1:port accept connections, for the test to play."""
        ends = self.servers.setdefault(port, [])
        self.lane.servers[("127.0.0.1", port)] = lambda far: ends.append(far)  # type: ignore[func-returns-value]

    def refuse(self, port: int) -> None:
        del self.lane.servers[("127.0.0.1", port)]

    def silence(self, port: int) -> None:
        """Let 127.0.0.1:port neither accept nor refuse."""
        self.lane.servers[("127.0.0.1", port)] = None

    def received(self, port: int = 8001, number: int = -1) -> bytes:
        """What came to a server's connection since the last look."""
        self.lane.run()
        return self.servers[port][number].take()

    def answer(self, data: bytes, port: int = 8001, number: int = -1) -> None:
        self.lane.feed(self.servers[port][number], data)

    def connections(self) -> dict[int, int]:
        """How many each server got."""
        return {port: len(ends) for port, ends in self.servers.items() if ends}

    # -- clients

    def connect(self, ip: str = "192.0.2.1", port: int = 1234) -> MemoryConn:
        """A client's end of a new connection; closed when the edge refused it."""
        near, far = self.lane.pair()
        coro = self.listener.accepted(Accepted(near), (ip, port))  # type: ignore[arg-type]
        if coro is not None:
            self.lane.spawn(coro, "client")
        self.lane.run()
        return far

    def send(self, client: MemoryConn, data: bytes, piece: int = 1 << 16) -> None:
        self.lane.feed(client, data, piece)

    @property
    def listener(self) -> TcpListener:
        listener = self.edge._listeners["l"]
        assert isinstance(listener, TcpListener)
        return listener

    def count(self, field: int) -> int:
        """A counter of the listener."""
        return self.plane.total(Kind.LISTENER, self.plane.row(Kind.LISTENER, "edge/l"), field)
