"""From one supervisor to the next in the same process: what the old one has, and how the new one makes it its own."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import attrs

from supervisor.arbiter import leap
from supervisor.arbiter.children import Child
from supervisor.arbiter.estate import VARIABLE, Estate, HeldListener, read
from supervisor.ground import cargo
from supervisor.ground.config import Config
from supervisor.plane import layout

if TYPE_CHECKING:
    from supervisor.arbiter.daemon import Daemon


def leave(daemon: Daemon) -> Estate:
    """What there is, for the next."""
    step, asked = daemon.assignment.pending
    listeners = []
    for key in daemon.listeners.all():
        sockets = tuple(sock.fileno() for sock in daemon.listeners.sockets(key))
        homes, holders = daemon.assignment.describe(key)
        shared = key.row in daemon.listeners.shared
        held = HeldListener.of(key, sockets)
        listeners.append(attrs.evolve(held, homes=homes, holders=holders, shared=shared))
    bind, pid_file = daemon.config.supervisor.admin, daemon.config.supervisor.pid_file
    return Estate(
        pid=os.getpid(),
        command=daemon.upgrading.command,
        generation=daemon.reloading.last_generation,
        plane=daemon.plane.fd,
        wire=daemon.wire.descriptors(),
        control=daemon.control.sock.fileno(),
        control_path=str(daemon.control.path),
        admin=None if daemon.admin is None else daemon.admin.fileno(),
        admin_bind=None if bind is None else str(bind),
        slots=daemon.listeners.slots,
        listeners=tuple(listeners),
        children=tuple(child.held() for child in daemon.crew.children.values()),
        step=step,
        asked=asked,
        adjustments=daemon.adjustments,
        activated=tuple(sock.fileno() for sock in daemon.listeners.activated.sockets),
        pid_file=None if pid_file is None else str(daemon.config.directory / pid_file),
    )


def inherit(document: int) -> tuple[Estate, Config]:
    """What the one before has left, and the configuration that the rehearsal of this code has read."""
    estate = read(document)
    assert estate.config is not None, "rehearsed"
    config: Config = cargo.unpack(estate.config)
    return estate, config


def take_over(daemon: Daemon, estate: Estate) -> None:
    """The children are ours now, each until its successor is ready. When this returns the process is a supervisor like
    any other; what is raised before is held up by `holdfast`."""
    for held in estate.children:
        daemon.crew.adopt(Child.of(held))
    daemon.booted = True
    daemon.adjustments = dict(estate.adjustments)
    daemon.reloading.last_generation = daemon.plane.generation = estate.generation + 1
    daemon.plane.acknowledge(layout.SUPERVISOR, daemon.plane.generation)
    daemon.crew.wanted = daemon.wanted()
    daemon.assignment.restore(estate.step, estate.asked, estate.listeners)
    daemon.give_access_log()
    daemon.upgrading.resume([daemon.control.resume(socket.socket(fileno=fd)) for fd in estate.askers])
    for fd in estate.reload_askers:
        daemon.reloading.ask(daemon.control.resume(socket.socket(fileno=fd)))
    if estate.reload and not estate.reload_askers:
        daemon.reloading.ask()
    _keep_from_programs(estate)
    leap.unblock_signals()


def _keep_from_programs(estate: Estate) -> None:
    """What lived through the exec is not for programs that this process starts."""
    document = int(os.environ.pop(VARIABLE).partition(":")[2])
    if estate.config is not None:
        os.close(estate.config)
    os.close(document)
    for fd in estate.descriptors():
        try:
            os.set_inheritable(fd, False)
        except OSError:  # of a socket that the new configuration no longer names
            pass
