"""An operator at the console of a stage, played by the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pooler.errors import decode
from pooler.messages import query
from tests.pooler.stage import Player, Stage

Make = Callable[..., Stage]

POOLER = 'admin_users = ["app"]\nstats_users = ["other"]'


class Console(Player):
    """A client of the console."""

    def rows(self, sql: str) -> list[dict[str, Any]]:
        self.send(query(sql))
        return self.taken()

    def taken(self) -> list[dict[str, Any]]:
        names: list[str] = []
        found = []
        for kind, payload in self.receive():
            if kind == "T":
                names = [part.split(b"\0")[0].decode() for part in _fields(payload)]
            elif kind == "D":
                found.append(dict(zip(names, _cells(payload), strict=True)))
            elif kind == "E":
                raise AssertionError(decode(payload))
        return found

    def refused(self, sql: str) -> dict[str, str]:
        self.send(query(sql))
        return self.error()


def _fields(payload: bytes) -> Iterator[bytes]:
    at = 2
    for _ in range(int.from_bytes(payload[:2], "big")):
        end = payload.index(b"\0", at)
        yield payload[at : end + 1]
        at = end + 19


def _cells(payload: bytes) -> Iterator[str | None]:
    at = 2
    for _ in range(int.from_bytes(payload[:2], "big")):
        size = int.from_bytes(payload[at : at + 4], "big", signed=True)
        yield None if size < 0 else payload[at + 4 : at + 4 + size].decode()
        at += 4 + max(size, 0)


def console(playing: Stage, user: str = "app", database: str = "pgbouncer") -> Console:
    player = playing.client(log_in=False)
    found = Console(playing, player.conn)
    found.log_in(user=user, database=database)
    return found
