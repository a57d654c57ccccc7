"""What the supervisor opens before it forks anybody: all that can fail at the start, and fails with a reason."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Sequence
from pathlib import Path

import attrs

from supervisor.arbiter import access, control
from supervisor.arbiter.listeners import Listeners, open_plain
from supervisor.arbiter.reloading import FIRST_GENERATION, keys_of
from supervisor.arbiter.rows import Rows, rows_of
from supervisor.ground import privileges
from supervisor.ground.config import Config
from supervisor.ground.privileges import Identity
from supervisor.ground.tier import Tier
from supervisor.plane import layout
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


def open_site(config: Config, tiers: Sequence[Tier]) -> Site:
    """Raises CannotControl, CannotListen, CannotLog, PlaneError, OSError; then nothing is left open."""
    raise_file_limit()
    identity = identity_of(config)
    path = config.directory / config.supervisor.control
    with contextlib.ExitStack() as undo:
        # First of all: of two daemons of one configuration the second is told just that, and not of some port.
        commands = control.bind(path)
        undo.callback(path.unlink, missing_ok=True)
        undo.callback(commands.close)
        plane = Plane.create()
        undo.callback(plane.close)
        rows = Rows(plane)
        rows.allocate(rows_of(config, tiers))
        plane.processes.enter_supervisor(os.getpid())
        plane.generation = FIRST_GENERATION
        plane.acknowledge(layout.SUPERVISOR, FIRST_GENERATION)
        listeners = Listeners()
        undo.callback(listeners.close_all)
        listeners.keep(listeners.open(keys_of(config, tiers)))
        bind = config.supervisor.admin
        admin = None if bind is None else undo.enter_context(open_plain("supervisor.admin", bind))
        access.give(config, identity)
        undo.pop_all()
    return Site(path, commands, plane, rows, listeners, admin, identity)


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
