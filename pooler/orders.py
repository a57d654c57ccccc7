"""What pooler workers say to each other over the wire."""

from __future__ import annotations

from typing import Any

import attrs

from supervisor.ground.wire import message


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
    pid: int
    secret: str  # hex
    reported: dict[str, str]  # its parameters
    greeting: dict[str, str]  # what they were at login
    settings: dict[str, str]  # what clients have set
    statements: list[str]  # prepared there
    stale: list[str]  # prepared there too, but to be made anew
    expires_in: float  # seconds


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
