"""The new code's rehearsal, in a child of the running supervisor: everything that could fail after the exec, before it.

It reads the configuration, compares the plane's layout, opens what the file adds, and starts one worker of each tier on
a plane of its own, without any socket. What it has made (the configuration as the new code sees it, new listening
sockets) goes to the running supervisor by descriptor, so that nothing is left to fail later. Its last word is "done",
or the reasons; an end without a last word is a failure too.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import attrs

from supervisor.arbiter import access
from supervisor.arbiter.children import Death, fork
from supervisor.arbiter.estate import Estate, HeldListener, UnreadableEstate, activated_of, read, sockets_of
from supervisor.arbiter.listeners import CannotListen, Listeners, open_plain
from supervisor.arbiter.reloading import keys_of
from supervisor.arbiter.rows import Row, Rows, rows_of
from supervisor.arbiter.site import identity_of
from supervisor.ground import cargo, log, privileges, worker
from supervisor.ground.config import Config, ConfigError, Located
from supervisor.ground.tier import Tier
from supervisor.ground.wire import Wire
from supervisor.ground.worker import Birth
from supervisor.plane import layout, region
from supervisor.plane.layout import ProcessState
from supervisor.plane.memory import Plane
from supervisor.plane.region import PlaneError

PATIENCE = 30.0  # seconds for the workers to be ready; they start together
LOOK = 0.01  # seconds between looks at them
LAST = 3.0  # seconds for them to end, before they are killed
MAX_REASONS = 100  # and
MAX_REASON = 1000  # characters of each: the last word is one message of at most 200 KiB

FAILED, BAD_CONFIGURATION = 1, 2  # as the commands' exit codes


class Refused(Exception):
    """Why this code can't take over."""

    def __init__(self, reasons: Iterable[str], code: int = FAILED) -> None:
        self.reasons = tuple(reasons)
        self.code = code
        super().__init__(*self.reasons)


@attrs.frozen
class Report:
    """The socket to the running supervisor: a message each, in JSON, with descriptors."""

    sock: socket.socket

    def say(self, message: object, fds: Sequence[int] = ()) -> None:
        socket.send_fds(self.sock, [json.dumps(message).encode()], list(fds))


def rehearse(path: Path, tiers: Sequence[Tier], load: Callable[[], Config], estate_fd: int, report_fd: int) -> int:
    """The rehearsal as a process; its exit code says the same as its last word."""
    with socket.socket(fileno=report_fd) as sock:
        report = Report(sock)
        try:
            _rehearse(path, tiers, load, estate_fd, report)
        except privileges.Orphaned:
            return FAILED
        except Refused as refused:
            reasons = [reason[:MAX_REASON] for reason in refused.reasons[:MAX_REASONS]]
            report.say({"errors": reasons, "code": refused.code})
            return refused.code
        report.say({"done": True})
    return 0


def _rehearse(path: Path, tiers: Sequence[Tier], load: Callable[[], Config], estate_fd: int, report: Report) -> None:
    try:
        estate = read(estate_fd)
        privileges.follow(estate.pid, signal.SIGKILL)
        region.check_identity(estate.plane)
        config = load()
        log.configure(config.log)
        if problems := [*_fixed(config, estate, path)]:
            raise Refused(problems, BAD_CONFIGURATION)
        needed = list(rows_of(config, tiers))
        with closing(Plane.attach(estate.plane)) as running:
            _check_rows(running, needed)
        access.give(config, identity_of(config))
        with _opened(config, tiers, estate, report) as sockets:
            packed = cargo.pack(config, "portway-configuration")
            report.say({"config": True}, [packed])
            os.close(packed)  # the workers, who may be anybody, are not to have it
            _try_workers(config, tiers, needed, [report.sock, *sockets])
    except ConfigError as error:
        raise Refused((str(problem) for problem in error.problems), BAD_CONFIGURATION) from error
    except (UnreadableEstate, CannotListen, PlaneError, OSError) as error:
        raise Refused([str(error.strerror or error) if isinstance(error, OSError) else str(error)]) from error


def _fixed(config: Config, estate: Estate, path: Path) -> Iterator[str]:
    pid_file = config.supervisor.pid_file
    for name, wanted, held in (
        ("control", str(config.directory / config.supervisor.control), estate.control_path),
        ("pid_file", None if pid_file is None else str(config.directory / pid_file), estate.pid_file),
    ):
        if wanted != held:
            message = f"can't be changed by an upgrade; it is {held or 'not set'}"
            yield str(Located(str(path), config.line(("supervisor", name)), ("supervisor", name), message))


def _check_rows(plane: Plane, needed: Iterable[Row]) -> None:
    """The running plane must hold what runs and what is new beside each other. Raises Refused."""
    wanted = set(needed)
    for kind, table in layout.TABLES.items():
        names = {name for one, name in wanted if one is kind} | plane.names(kind).keys()
        if len(names) > table.rows:
            raise Refused([f"no room in the plane: {len(names)} rows for {kind.value}, of {table.rows}"])


@contextmanager
def _opened(config: Config, tiers: Sequence[Tier], estate: Estate, report: Report) -> Iterator[list[socket.socket]]:
    """Open what the file asks for beyond what the running supervisor has, and send it there."""
    listeners = Listeners(estate.slots, activated_of(estate))
    listeners.keep({listener.key: sockets_of(listener) for listener in estate.listeners})
    for key, sockets in listeners.open(keys_of(config, tiers)).items():
        listeners.keep({key: sockets})
        listener = attrs.evolve(HeldListener.of(key, ()), shared=key.row in listeners.shared)
        report.say({"listener": attrs.asdict(listener)}, [sock.fileno() for sock in sockets])
    everything = list(listeners.activated.sockets)
    everything += [sock for key in listeners.all() for sock in listeners.sockets(key)]
    bind = config.supervisor.admin
    if bind is not None and str(bind) != estate.admin_bind:
        admin = open_plain("supervisor.admin", bind, activated=listeners.activated)
        report.say({"admin": str(bind)}, [admin.fileno()])
        everything.append(admin)
    try:
        yield everything
    finally:
        for sock in everything:
            sock.close()


def _try_workers(
    config: Config, tiers: Sequence[Tier], needed: Iterable[Row], foreign: Sequence[socket.socket]
) -> None:
    """One worker of each tier on a plane of its own, until all are ready. Raises Refused."""
    plane = Plane.create()
    Rows(plane).allocate(needed)
    plane.processes.enter_supervisor(os.getpid())
    wire = Wire.create(layout.COLUMNS)
    pids: dict[int, tuple[str, int]] = {}
    try:
        for tier in tiers:
            if tier.listeners(config):
                column = plane.claim_column(tier.name, 1)
                pids[_fork(config, tier, column, plane, wire, foreign)] = (tier.name, column)
        _await(plane, pids)
    finally:
        _end(pids)
        wire.close()
        plane.close()


def _fork(config: Config, tier: Tier, column: int, plane: Plane, wire: Wire, foreign: Sequence[socket.socket]) -> int:
    birth = Birth(
        title=f"rehearsal of {tier.name}",
        tier=tier.name,
        number=1,
        column=column,
        incarnation=plane.incarnation(column),
        program=tier,
        config=config,
        plane=plane,
        wire=wire,
        supervisor=os.getpid(),
        inherited=tier.inherit(config),
        identity=tier.identity(config, identity_of(config)),
        foreign=foreign,
    )
    pid = fork(lambda: worker.main(birth))
    plane.started(column, pid)
    return pid


def _await(plane: Plane, pids: dict[int, tuple[str, int]]) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        waiting = []
        for pid, (tier, column) in list(pids.items()):
            info = plane.process(column)
            if info is not None and info.state >= ProcessState.READY:
                continue
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                del pids[pid]
                raise Refused(
                    [f"{tier}: a worker of the new code ended before it was ready: {Death.from_status(status)}"]
                )
            waiting.append(tier)
        if not waiting:
            return
        if time.monotonic() > end:
            raise Refused([f"{tier}: a worker of the new code was not ready within {PATIENCE:g}s" for tier in waiting])
        time.sleep(LOOK)


def _end(pids: Iterable[int]) -> None:
    left = set(pids)
    for number, patience in ((signal.SIGQUIT, LAST), (signal.SIGKILL, LAST)):
        for pid in left:
            os.kill(pid, number)
        end = time.monotonic() + patience
        while left and time.monotonic() < end:
            left -= {pid for pid in left if os.waitpid(pid, os.WNOHANG)[0]}
            time.sleep(LOOK if left else 0.0)
