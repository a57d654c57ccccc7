"""What the supervisor opens before it forks anybody: all that can fail at the start, and fails with a reason.

After an upgrade nothing is opened: it is all there, left by the supervisor before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import attrs

from supervisor.arbiter import access, control, pidfile
from supervisor.arbiter.activation import Activated
from supervisor.arbiter.estate import Estate, activated_of, sockets_of
from supervisor.arbiter.listeners import Listeners, open_plain
from supervisor.arbiter.reloading import FIRST_GENERATION, keys_of
from supervisor.arbiter.rows import Rows, rows_of
from supervisor.ground import privileges
from supervisor.ground.config import Config, Located
from supervisor.ground.privileges import Identity
from supervisor.ground.tier import Tier
from supervisor.ground.wire import Wire
from supervisor.plane import layout
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane


@attrs.frozen
class Site:
    """The sockets, the plane, and whom the workers run as."""

    control_path: Path
    control: socket.socket
    plane: Plane
    rows: Rows
    listeners: Listeners
    admin: socket.socket | None
    identity: Identity | None
    wire: Wire
    estate: Estate | None = None  # of the supervisor before, over an upgrade


def open_site(config: Config, tiers: Sequence[Tier]) -> Site:
    """Raises CannotControl, CannotListen, CannotLog, CannotWrite, PlaneError, OSError; then nothing is left open."""
    for tier in tiers:
        for problem in tier.unable(config):
            where = Located(str(config.path), config.line(problem.path), problem.path, problem.message)
            raise OSError(errno.EOPNOTSUPP, str(where))
    raise_file_limit()
    identity = identity_of(config)
    path = config.directory / config.supervisor.control
    with contextlib.ExitStack() as undo:
        # First of all: of two daemons of one configuration the second is told just that, and not of some port.
        commands = control.bind(path)
        undo.callback(path.unlink, missing_ok=True)
        undo.callback(commands.close)
        wire = Wire.create(layout.COLUMNS)
        undo.callback(wire.close)
        plane = Plane.create()
        undo.callback(plane.close)
        rows = Rows(plane)
        rows.allocate(rows_of(config, tiers))
        plane.processes.enter_supervisor(os.getpid())
        plane.generation = FIRST_GENERATION
        plane.acknowledge(layout.SUPERVISOR, FIRST_GENERATION)
        listeners = Listeners(activated=Activated.take(os.environ, os.getpid()))
        undo.callback(listeners.activated.close)
        undo.callback(listeners.close_all)
        listeners.keep(listeners.open(keys_of(config, tiers)))
        admin, bind = None, config.supervisor.admin
        if bind is not None:
            admin = undo.enter_context(open_plain("supervisor.admin", bind, activated=listeners.activated))
        access.give(config, identity)
        if config.supervisor.pid_file is not None:
            pidfile.write(config.directory / config.supervisor.pid_file)
        undo.pop_all()
    return Site(path, commands, plane, rows, listeners, admin, identity, wire)


def adopt_site(estate: Estate, config: Config, tiers: Sequence[Tier]) -> Site:
    """What another supervisor has opened, and the rehearsal of this code has added. What could fail has been tried."""
    plane = Plane.attach(estate.plane)
    rows = Rows(plane)
    wanted = list(rows_of(config, tiers))
    rows.allocate(wanted)
    # Other code may have named other rows: what is in the plane leaves as if a reload no longer named it.
    named = [(kind, name) for kind in Kind if kind is not Kind.TIER for name in plane.names(kind)]
    rows.changed(named, wanted, time.monotonic())
    listeners = Listeners(estate.slots, activated_of(estate))
    listeners.shared = {listener.key.row for listener in estate.listeners if listener.shared}
    keys = set(keys_of(config, tiers))
    held = {listener.key: sockets_of(listener) for listener in estate.listeners}
    listeners.keep(held)
    listeners.close(held.keys() - keys)
    admin = None
    if estate.admin is not None:
        admin = socket.socket(fileno=estate.admin)
        if config.supervisor.admin is None:
            admin.close()
            admin = None
    control_sock = socket.socket(fileno=estate.control)
    control_sock.setblocking(False)
    return Site(
        Path(estate.control_path), control_sock, plane, rows, listeners, admin, identity_of(config),
        Wire.adopt(estate.wire), estate,
    )  # fmt: skip


def identity_of(config: Config) -> Identity | None:
    """Whom the workers run as; None for who we are."""
    identity = privileges.resolve(config.supervisor.user, config.supervisor.group)
    # As with nginx, the same file serves for a try as an ordinary user.
    return identity if identity is not None and privileges.may_become(identity) else None


def raise_file_limit() -> None:
    """As many descriptors as this process is allowed without asking anybody."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
