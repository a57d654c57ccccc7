"""What one supervisor leaves to the next over an exec: descriptors by number, and what they are.

A JSON document in a sealed memfd, never a pickle: the reader is other code than the writer. A reader ignores keys that
it does not know and takes defaults for those that are missing, so that fields can be added; anything else is another
`VERSION`, and the rehearsal of the new code refuses it while the old code runs on.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator, Mapping, Sequence

import attrs
from cattrs.preconf.json import make_converter

from supervisor.arbiter.activation import Activated
from supervisor.arbiter.listeners import Key
from supervisor.ground.cargo import ADD_SEALS, SEALED
from supervisor.ground.config import Bind
from supervisor.ground.tier import ListenerSpec, Transport

VERSION = 1
VARIABLE = "PORTWAY_UPGRADE"  # in the environment: "rehearse:ESTATE:REPORT" or "adopt:ESTATE", descriptors all

_converter = make_converter()


class UnreadableEstate(Exception):
    """Not a document of this version."""


@attrs.frozen
class HeldListener:
    """A listener's sockets, and who polls them."""

    tier: str
    name: str
    host: str
    port: int
    transport: str
    backlog: int
    sockets: tuple[int, ...]
    homes: tuple[int, ...] = ()  # by slot: worker numbers
    holders: tuple[int, ...] = ()  # by slot: columns that may poll it, 0 for none
    shared: bool = False  # its slots are one socket

    @classmethod
    def of(cls, key: Key, sockets: tuple[int, ...]) -> HeldListener:
        spec = key.spec
        return cls(key.tier, spec.name, spec.bind.host, spec.bind.port, spec.transport.name, spec.backlog, sockets)

    @property
    def key(self) -> Key:
        spec = ListenerSpec(self.name, Bind(self.host, self.port), Transport[self.transport], self.backlog)
        return Key(self.tier, spec)


@attrs.frozen
class HeldChild:
    """A living process."""

    role: str
    number: int
    title: str
    pid: int
    pidfd: int
    column: int
    incarnation: int
    born: float  # monotonic seconds
    ready_at: float | None
    retiring: bool
    dismissed: bool


@attrs.frozen
class Estate:
    """All of it."""

    pid: int
    command: tuple[str, ...]  # the arguments with which the daemon was started, without the interpreter
    generation: int  # the last one given out
    plane: int
    wire: tuple[tuple[int, int], ...]  # by column: receiving and sending end
    control: int
    control_path: str
    admin: int | None
    admin_bind: str | None
    slots: int
    listeners: tuple[HeldListener, ...]
    children: tuple[HeldChild, ...] = ()
    step: int = 0  # of the owner cells
    asked: Mapping[int, int] = attrs.Factory(dict)  # column -> the step that it is to have seen
    adjustments: Mapping[str, int] = attrs.Factory(dict)  # TTIN, TTOU
    activated: tuple[int, ...] = ()  # what a service manager has opened
    pid_file: str | None = None
    config: int | None = None  # the cargo that the rehearsal has packed
    askers: tuple[int, ...] = ()  # clients of the control socket that wait for the upgrade's end
    reload: bool = False  # one was asked for meanwhile
    reload_askers: tuple[int, ...] = ()
    version: int = VERSION

    def descriptors(self) -> Iterator[int]:
        """All that must live through the exec."""
        yield from self.handles()
        yield self.control
        for pair in self.wire:
            yield from pair
        for child in self.children:
            yield child.pidfd
        if self.config is not None:
            yield self.config
        yield from self.askers
        yield from self.reload_askers

    def handles(self) -> Iterator[int]:
        """All that a rehearsal needs."""
        yield self.plane
        if self.admin is not None:
            yield self.admin
        for listener in self.listeners:
            yield from listener.sockets
        yield from self.activated


def write(estate: Estate) -> int:
    """A descriptor of the document, the caller's to close."""
    fd = os.memfd_create("portway-estate", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(_converter.dumps(estate).encode())
        fcntl.fcntl(fd, ADD_SEALS, SEALED)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read(fd: int) -> Estate:
    """The document behind the descriptor. Raises UnreadableEstate."""
    try:
        data = os.pread(fd, os.fstat(fd).st_size, 0)
        estate = _converter.loads(data, Estate)
    except Exception as error:  # cattrs and json raise from unrelated trees
        raise UnreadableEstate(f"what the running supervisor hands over can't be read: {error}") from error
    if estate.version != VERSION:
        raise UnreadableEstate(
            f"the running supervisor hands over by version {estate.version}, this code takes {VERSION}"
        )
    return estate


def listener_from(words: object, sockets: Sequence[int]) -> HeldListener:
    """A listener as `attrs.asdict` has it, with other descriptors. Raises cattrs' errors."""
    return attrs.evolve(_converter.structure(words, HeldListener), sockets=tuple(sockets))


def sockets_of(listener: HeldListener) -> list[socket.socket]:
    """The sockets behind the numbers; from now on they are theirs."""
    return [socket.socket(fileno=fd) for fd in listener.sockets]


def activated_of(estate: Estate) -> Activated:
    """What a service manager has opened; the sockets are now theirs."""
    return Activated([socket.socket(fileno=fd) for fd in estate.activated])
