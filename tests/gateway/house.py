"""The gateway in memory: the real runtime over a rehearsed lane, with clients and servers that the test plays.

Everything is as in a worker but the sockets and the clock: the plane is a real one, limits and pools are the real ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import h11

from gateway.config import GatewayTable
from gateway.tier import TIER, GatewayRuntime
from supervisor.ground import pools
from supervisor.ground.config import Config, load_bytes
from supervisor.ground.log import logger
from supervisor.ground.net.memory import MemoryConn, Rehearsal
from supervisor.ground.pools import Pools
from supervisor.ground.tier import Worker
from supervisor.plane.layout import Kind, Listener, Route, Server
from supervisor.plane.memory import Plane

PLAIN = """
[pools.web]
servers = ["127.0.0.1:8001"]
[gateway.listeners.web]
bind = "127.0.0.1:80"
[gateway.routes.web]
pool = "web"
"""


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class RehearsedLane(Rehearsal):
    """Connections in memory are adopted as they are."""

    def adopt(self, conn: MemoryConn) -> MemoryConn:
        conn.waiter = self.current
        return conn


class Log:
    """The access log's lines, parsed."""

    enabled = True

    def __init__(self) -> None:
        self.lines: list[Any] = []

    def write(self, line: str) -> None:
        self.lines.append(json.loads(line))


class House:
    """One worker. `servers[port]` are the far ends of what it connected to 127.0.0.1:port, in order."""

    def __init__(self, text: str = PLAIN, folder: Path = Path("/nonexistent"), plane: Plane | None = None) -> None:
        self.lane = RehearsedLane()
        self.folder = folder
        self.plane = plane or Plane.create()
        self.column = self.plane.claim_column("gateway", 1)
        self.log = Log()
        config = self.config(text)
        self.worker = Worker(
            tier="gateway", number=1, column=self.column, incarnation=1, config=config, plane=self.plane,
            mailbox=None, lane=self.lane, log=logger(),  # type: ignore[arg-type]  # as much as is used
            access=self.log,  # type: ignore[arg-type]
            pools=Pools(config, self.plane, self.column),
        )  # fmt: skip
        self.gateway = GatewayRuntime(self.worker)
        self.servers: dict[int, list[MemoryConn]] = {}

    def config(self, text: str) -> Config:
        """The configuration, with the plane's rows that it needs."""
        config = load_bytes(text.encode(), "test.toml", self.folder, {"gateway": GatewayTable})
        for kind, name in (*pools.rows(config), *TIER.rows(config)):
            self.plane.allocate(kind, name)
        for listener in TIER.listeners(config):
            self.plane.allocate(Kind.LISTENER, f"gateway/{listener.name}")
        self.plane.allocate(Kind.TIER, "gateway")
        return config

    def reload(self, text: str) -> None:
        config = self.config(text)
        self.gateway.commit(self.gateway.prepare(config))
        self.lane.run()

    # -- servers

    def listen(self, port: int = 8001) -> None:
        """Let 127.0.0.1:port accept connections, for the test to play."""
        ends = self.servers.setdefault(port, [])
        self.lane.servers[("127.0.0.1", port)] = lambda far: ends.append(far)  # type: ignore[func-returns-value]

    def silence(self, port: int = 8001) -> None:
        """Let 127.0.0.1:port neither accept nor refuse."""
        self.lane.servers[("127.0.0.1", port)] = None

    def server(self, number: int = -1, port: int = 8001) -> MemoryConn:
        return self.servers[port][number]

    def received(self, number: int = -1, port: int = 8001) -> bytes:
        """What came to a server's connection since the last look."""
        self.lane.run()
        return self.server(number, port).take()

    def answer(self, data: bytes, number: int = -1, port: int = 8001, piece: int = 1 << 16) -> None:
        self.lane.feed(self.server(number, port), data, piece)

    # -- clients

    def connect(self, ip: str = "192.0.2.1", listener: str = "web", capacity: int = 1 << 16) -> Client:
        near, far = self.lane.pair(capacity)
        coro = self.gateway._listeners[listener].accepted(near, (ip, 1234))  # type: ignore[arg-type]
        self.lane.spawn(coro, "client")
        self.lane.run()
        return Client(self, far)

    def rows(self, kind: Kind, name: str, field: int) -> int:
        return self.plane.total(kind, self.plane.row(kind, name), field)


Build: TypeAlias = Callable[..., House]


@contextmanager
def houses() -> Iterator[Build]:
    """`build(text)`: a house with its server at port 8001; nothing of it may be left at the end."""
    built: list[House] = []

    def build(text: str = PLAIN, folder: Path = Path("/nonexistent")) -> House:
        house = House(text, folder)
        house.listen()
        built.append(house)
        return house

    yield build
    for house in built:
        house.gateway.close()
        house.lane.finish()
        for name in house.plane.names(Kind.LISTENER):
            assert house.rows(Kind.LISTENER, name, Listener.ACTIVE) == 0
        for name in house.plane.names(Kind.ROUTE):
            assert house.rows(Kind.ROUTE, name, Route.IN_FLIGHT) == 0
        for name in house.plane.names(Kind.SERVER):
            assert house.rows(Kind.SERVER, name, Server.IN_FLIGHT) == 0
        for ends in house.servers.values():
            for end in ends:
                end.take()
                assert end.at_end
        house.plane.close()


def warm(house: House, count: int = 1) -> None:
    """Leave `count` kept connections to the server."""
    clients = [house.connect() for _ in range(count)]
    for client in clients:
        client.get("/warm")
    for number in range(count):
        house.received(number)
        house.answer(OK, number)
    for client in clients:
        assert answer(client.take()).status == 200
        client.end.close()
    house.lane.run()


class Client:
    """A client's end of a connection."""

    def __init__(self, house: House, end: MemoryConn) -> None:
        self.house = house
        self.end = end

    def send(self, data: bytes, piece: int = 1 << 16) -> None:
        self.house.lane.feed(self.end, data, piece)

    def take(self) -> bytes:
        """What came since the last look."""
        self.house.lane.run()
        return self.end.take()

    def get(self, path: str = "/", *fields: str, method: str = "GET", host: str = "a", body: bytes = b"") -> None:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *fields]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    @property
    def closed(self) -> bool:
        """The gateway has ended the connection."""
        self.house.lane.run()
        return self.end.at_end


class Message:
    """A request as a server got it, or an answer as a client got it, parsed by h11: a whole one, and nothing beyond."""

    def __init__(self, data: bytes, request: bool, method: str = "GET", whole: bool = True) -> None:
        if request:
            parser = h11.Connection(h11.SERVER)
        else:
            parser = h11.Connection(h11.CLIENT)
            parser.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
            parser.send(h11.EndOfMessage())
        parser.receive_data(data)
        self.interim: list[int] = []
        head = parser.next_event()
        while isinstance(head, h11.InformationalResponse):
            self.interim.append(head.status_code)
            head = parser.next_event()
        assert isinstance(head, h11.Request | h11.Response), (head, data)
        self.head = head
        self.fields = [(name.decode(), value.decode("latin-1")) for name, value in head.headers]
        self.body = b""
        event = parser.next_event()
        while isinstance(event, h11.Data):
            self.body += bytes(event.data)
            event = parser.next_event()
        self.whole = isinstance(event, h11.EndOfMessage)
        assert self.whole or not whole, (event, data)
        self.trailers = dict(event.headers) if isinstance(event, h11.EndOfMessage) else {}
        self.rest = bytes(parser.trailing_data[0])

    def field(self, name: str) -> str | None:
        """The one value of a field; None if it is not there."""
        found = self.all(name)
        assert len(found) <= 1, found
        return found[0] if found else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name.lower()]

    @property
    def status(self) -> int:
        assert isinstance(self.head, h11.Response)
        return self.head.status_code

    @property
    def code(self) -> str:
        """The reason code of a problem answer."""
        assert self.field("content-type") == "application/problem+json"
        return str(json.loads(self.body)["code"])


def request(data: bytes) -> Message:
    return Message(data, True)


def answer(data: bytes, method: str = "GET", whole: bool = True) -> Message:
    return Message(data, False, method, whole)
