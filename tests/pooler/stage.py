"""A pooler without a machine: a runtime on a rehearsed lane, a fake PostgreSQL behind it, clients that the test
plays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from pooler.client import run
from pooler.config import PoolerTable
from pooler.errors import decode
from pooler.messages import HEAD, HEAD_SIZE, message, query
from pooler.runtime import PoolerRuntime
from pooler.tier import TIER
from supervisor.ground import pools
from supervisor.ground.config import Config, load
from supervisor.ground.net.memory import MemoryConn, Rehearsal
from supervisor.ground.pools import Pools
from supervisor.ground.tier import Worker
from supervisor.ground.wire import encode
from supervisor.plane.layout import Kind, ProcessState
from supervisor.plane.memory import Plane
from tests.pooler.fake_postgres import FakePostgres

ADDRESS = ("127.0.0.1", 5432)


class Log:
    """Takes what is logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **words: Any) -> None:
        self.lines.append((event, words))

    warning = error = info


@attrs.define(eq=False)
class Mailbox:
    """Keeps what is sent, if it can be encoded; `full` refuses it."""

    sent: list[tuple[int, Any, Sequence[int]]] = attrs.field(factory=list)
    full: bool = False
    meanwhile: Callable[[], object] = lambda: None  # happens right before the sending

    def send(
        self, column: int, message: Any, fds: Sequence[int] = (), before: Callable[[], bool] | None = None
    ) -> bool:
        encode(message)
        if before is not None and not before():
            return False
        self.meanwhile()
        if not self.full:
            self.sent.append((column, message, fds))
        return not self.full


@attrs.define(eq=False)
class Socket:
    """What of a socket is sent to another worker."""

    released: bool = False

    def fileno(self) -> int:
        return 77

    def close(self) -> None:
        self.released = True


class Movable:
    """A MemoryConn that can be taken off the lane."""

    def __init__(self, conn: MemoryConn) -> None:
        self.__dict__.update(conn=conn, sock=Socket())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.conn, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.conn, name, value)

    def release(self) -> Socket:
        self.conn.waiter = self.conn.on_idle = None
        return self.sock


class Player:
    """A client, played by the test: its end of the connection."""

    def __init__(self, stage: Stage, conn: MemoryConn) -> None:
        self.stage, self.conn = stage, conn
        self.buffer = b""

    def send(self, data: bytes, piece: int = 1 << 16) -> None:
        self.stage.lane.feed(self.conn, data, piece)

    def receive(self) -> list[tuple[str, bytes]]:
        """Whole messages that came."""
        found = []
        while data := self.conn.take():  # taking makes room for more
            self.buffer += data
            self.stage.lane.run()
        while len(self.buffer) >= HEAD_SIZE:
            kind, length = HEAD.unpack_from(self.buffer)
            if len(self.buffer) <= length:
                break
            found.append((chr(kind), self.buffer[HEAD_SIZE : length + 1]))
            self.buffer = self.buffer[length + 1 :]
        return found

    def kinds(self) -> str:
        """The kinds of what came: Z stands as its status."""
        return "".join(payload.decode() if kind == "Z" else kind for kind, payload in self.receive())

    def ask(self, sql: str) -> str:
        self.send(query(sql))
        return self.kinds()

    def error(self) -> dict[str, str]:
        """The fields of the only error that came."""
        (found,) = [decode(payload) for kind, payload in self.receive() if kind == "E"]
        return found

    @property
    def ended(self) -> bool:
        return self.conn.at_end

    def log_in(self, user: str = "app", database: str = "app", minor: int = 0, **settings: str) -> dict[str, str]:
        """By trust; the parameters that were reported."""
        words = ["user", user, "database", database, *(word for pair in settings.items() for word in pair)]
        body = (3 << 16 | minor).to_bytes(4, "big") + "".join(f"{word}\0" for word in words).encode() + b"\0"
        self.send((len(body) + 4).to_bytes(4, "big") + body)
        said = self.receive()
        assert [kind for kind, _ in said if kind != "S"][-3:] == ["R", "K", "Z"], said
        (self.key,) = [payload for kind, payload in said if kind == "K"]
        return dict(payload[:-1].decode().split("\0") for kind, payload in said if kind == "S")

    def batch(self, sql: str, sync: bool = True) -> bytes:
        data = message(b"P", b"\0" + sql.encode() + b"\0\0\0") + message(b"B", bytes(7)) + message(b"E", bytes(5))
        return data + (message(b"S") if sync else b"")


class Stage:
    """One worker, in column 2."""

    def __init__(
        self, folder: Path, plane: Plane, pooler: str = "", database: str = "", auth: str = "", primary: str = "pg"
    ) -> None:
        self.folder, self.primary = folder, primary
        (folder / "users.txt").write_text('"app" "secret"\n"other" "secret"\n')
        self.plane = plane
        self.lane = Rehearsal()
        self.postgres = FakePostgres(self.lane)
        self.lane.servers[ADDRESS] = self.postgres.accept
        self.config = self.configure(pooler, database, auth)
        column = plane.claim_column("pooler", 1)
        plane.set_state(column, ProcessState.READY)
        for kind, name in [
            *pools.rows(self.config),
            *TIER.rows(self.config),
            (Kind.LISTENER, "pooler/main"),
        ]:
            plane.allocate(kind, name)
        self.mailbox, self.log = Mailbox(), Log()
        lane: Any = self.lane
        log: Any = self.log
        mailbox: Any = self.mailbox
        access: Any = None
        self.worker = Worker(
            "pooler", 1, column, plane.incarnation(column), self.config, plane, mailbox, lane, log, access,
            Pools(self.config, plane, column),
        )  # fmt: skip
        self.runtime = PoolerRuntime(self.worker)
        self.counters = plane.counters(Kind.LISTENER, plane.row(Kind.LISTENER, "pooler/main"), column)

    def configure(self, pooler: str = "", database: str = "", auth: str = "") -> Config:
        path = self.folder / "portway.toml"
        path.write_text(
            f"""
[supervisor]
drain_timeout = "10s"
[pools.pg]
servers = ["{ADDRESS[0]}:{ADDRESS[1]}"]
[pooler]
{pooler}
[pooler.listeners.main]
bind = "127.0.0.1:6432"
[pooler.databases.app]
primary = "{self.primary}"
{database or "pool_size = 1"}
[pooler.auth]
users = "users.txt"
{auth or 'type = "trust"'}
"""
        )
        return load(path, {"pooler": PoolerTable})

    def client(self, log_in: bool = True, capacity: int = 1 << 16, **settings: str) -> Player:
        near, far = self.lane.pair(capacity)
        self.lane.spawn(run(self.runtime, near, ("127.0.0.1", 50000), self.runtime.listeners["main"]), "client")
        player = Player(self, far)
        self.lane.run()
        if log_in:
            player.log_in(**settings)
        return player

    def close(self) -> None:
        """End it as a worker ends."""
        self.runtime.close()
        self.lane.finish()

    @property
    def pool(self) -> Any:
        return self.runtime.pools["app/app"]

    def settled(self) -> None:
        """Nothing leaks: every client is forgotten, every server connection idle or gone, every lease accounted for."""
        self.lane.advance(11)
        runtime = self.runtime
        assert not runtime.clients
        assert not runtime.keys._holders
        for pool in runtime.pools.values():
            assert not pool.waiters
            assert not pool.clients
            assert set(pool.idle) == pool.servers
            assert runtime.leases.open(pool.row) == len(pool.servers) == len(self.postgres.alive)
            assert all(server.outstanding.free for server in pool.servers)
