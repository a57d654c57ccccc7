"""What pooler workers say to each other over the wire."""

from __future__ import annotations

from struct import Struct
from typing import Any

import attrs

from pooler.parameters import Values, unpack
from supervisor.ground.wire import message

# Of a Give: lease, pid, expires_in, then the sizes in bytes of what follows.
_GIVE = Struct("=QId9I")


@message("pooler.want")
@attrs.frozen
class Want:
    """A client of mine waits for this pool, and you have a connection idle."""

    pool: str


@message("pooler.spare")
@attrs.frozen
class Spare:
    """A database or a user has all its connections, and one of this pool is idle with you: close it."""

    pool: str


@message("pooler.give")
@attrs.frozen
class Give:
    """A server connection, its descriptor attached. Its lease is the receiver's already."""

    pool: str
    lease: int
    server: str  # its name in the plane, "pool/host:port"
    database: str  # there
    pid: int
    secret: bytes = attrs.field(repr=False)
    reported: Values  # its parameters
    greeting: Values  # what they were at login
    settings: Values  # what clients have set
    statements: tuple[bytes, ...]  # prepared there
    stale: tuple[bytes, ...]  # prepared there too, but to be made anew
    expires_in: float  # seconds

    def pack(self) -> bytes:
        pieces = (
            self.pool.encode(),
            self.server.encode(),
            self.database.encode(),
            self.secret,
            self.reported.pack(),
            self.greeting.pack(),
            self.settings.pack(),
            b"\0".join(self.statements),
            b"\0".join(self.stale),
        )
        return _GIVE.pack(self.lease, self.pid, self.expires_in, *map(len, pieces)) + b"".join(pieces)

    @classmethod
    def unpack(cls, data: bytes) -> Give:
        lease, pid, expires_in, *sizes = _GIVE.unpack_from(data)
        at = _GIVE.size
        if at + sum(sizes) != len(data):
            raise ValueError("cut short")
        pieces = [data[(at := at + size) - size : at] for size in sizes]
        pool, server, database, secret, reported, greeting, settings, statements, stale = pieces
        return cls(
            pool=pool.decode(),
            lease=lease,
            server=server.decode(),
            database=database.decode(),
            pid=pid,
            secret=secret,
            reported=unpack(reported),
            greeting=unpack(greeting),
            settings=unpack(settings),
            statements=tuple(statements.split(b"\0")) if statements else (),
            stale=tuple(stale.split(b"\0")) if stale else (),
            expires_in=expires_in,
        )


@message("pooler.introduce")
@attrs.frozen
class Introduce:
    """A client of mine waits to be greeted for this pool: what have servers told you of themselves?"""

    pool: str
    group: str  # the servers that it leads to by my configuration, and the database there
    database: str
    column: int


@message("pooler.introduced")
@attrs.frozen
class Introduced:
    """The answer of one who knows."""

    pool: str
    group: str
    database: str
    reported: dict[str, str]  # at login


@message("pooler.cancel")
@attrs.frozen
class Cancel:
    """A CancelRequest with a key of yours came to me; answer with this number once it is carried out."""

    pid: int
    secret: str  # hex
    column: int
    number: int


@message("pooler.canceled")
@attrs.frozen
class Canceled:
    """Done, whether or not there was anything to cancel."""

    number: int


@message("pooler.ask")
@attrs.frozen
class Ask:
    """Tell me, for the console, about connections of yours: one of `console.sockets.COLUMNS`."""

    column: int
    number: int
    what: str


@message("pooler.told")
@attrs.frozen
class Told:
    """The answer, or a part of it."""

    column: int
    number: int
    rows: list[Any]  # a list of cells each
    last: bool


@message("pooler.kill")
@attrs.frozen
class Kill:
    """End the session of a client of yours: it has this process id in its cancel key."""

    pid: int
