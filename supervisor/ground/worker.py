"""The child's side of a fork: what every process but the supervisor runs.

`main` settles the child (signals, descriptors, title, privileges, the supervisor's death), then runs trio once: the
lane, the mailbox, the heartbeat, and the tier's runtime or a service. It ends by a drain (TERM), at once (QUIT), or by
an error of its own, which is logged; an error in a session is logged and ends that session only.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

import attrs
import setproctitle
import trio

from supervisor.ground import log, privileges
from supervisor.ground.config import Config
from supervisor.ground.cpus import pin
from supervisor.ground.lane import Lane, Session
from supervisor.ground.log import AccessLog, Ration
from supervisor.ground.orders import (
    FROM_SUPERVISOR,
    MAX_HELD_LINE,
    MAX_HELD_LINES,
    Abort,
    Commit,
    Held,
    Holding,
    Prepare,
    Prepared,
    Ready,
    Refused,
    Released,
    Renew,
    Reopen,
    Slots,
    Sockets,
    WhatHolds,
)
from supervisor.ground.polling import Polling
from supervisor.ground.pools import Pools
from supervisor.ground.queues import Room
from supervisor.ground.service import Resident, Service, ServiceRuntime
from supervisor.ground.swap import Swap
from supervisor.ground.tier import Runtime, Tier, Worker
from supervisor.ground.wire import Letter, Mailbox, Wire, close_all
from supervisor.plane import layout
from supervisor.plane.layout import Kind, ProcessState
from supervisor.plane.memory import Plane

DONE, CRASHED, BOOT_FAILURE = 0, 1, 3  # exit codes; a boot failure at the daemon's start ends the daemon
HEARTBEAT = 1.0  # seconds
# Objects made more than freed until the cycle collector looks: sessions leave no cycles on their ordinary ways.
COLLECT_AFTER = (50_000, 20, 100)
LETTERS_A_ROUND = 64  # from the mailbox, before sessions have their turn
FLUSH = 0.2  # seconds an access log line waits at most
HOLDING_LOOK = 0.05  # seconds between looks at what still holds a drain
HOLDING_SHOWN = 5  # lines about it in the log

# What the terminal sends to the whole group is the supervisor's to interpret; TERM and QUIT get handlers later.
_IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)
_ENDING = (signal.SIGTERM, signal.SIGQUIT)


class Closable(Protocol):
    """Something of the supervisor's that a child must not hold."""

    def close(self) -> object: ...


@attrs.frozen
class Birth:
    """All that a process is born with, made by the supervisor before the fork."""

    title: str  # "gateway 1/2", "prober"
    tier: str  # whose row in the plane
    number: int
    column: int
    incarnation: int
    program: Tier | Service | Resident
    config: Config
    plane: Plane
    wire: Wire
    supervisor: int  # its process id
    sockets: Mapping[str, Sequence[socket.socket]] = attrs.field(factory=dict)
    inherited: Any = None
    identity: privileges.Identity | None = None
    foreign: Sequence[Closable] = ()  # what the supervisor holds and this process must not


def main(birth: Birth) -> NoReturn:
    """Never returns: the supervisor's stack must not be unwound in the child."""
    code = BOOT_FAILURE
    try:
        process = Process(birth)
        process.settle()
        code = trio.run(process.run)
    except privileges.Orphaned:
        code = DONE
    except BaseException:
        info = birth.plane.process(birth.column)
        code = BOOT_FAILURE if info is None or info.state < ProcessState.READY else CRASHED
        log.logger(process=birth.title).critical("process failed", exception=traceback.format_exc())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Process:
    """This process: its tasks and their order."""

    def __init__(self, birth: Birth) -> None:
        self.birth = birth
        self.log = log.logger(process=birth.title, pid=os.getpid())
        self.over = trio.Event()
        self.draining = False
        self.pinned = False
        self.access = AccessLog("off")
        self.failure: Exception | None = None
        self._tracebacks = Ration()
        self._crashed = 0

    # -- before trio

    def settle(self) -> None:
        """Become a process of its own. Raises Orphaned, OSError."""
        birth = self.birth
        signal.set_wakeup_fd(-1)  # the supervisor's: a signal here must not wake it there
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # the supervisor's, too
        for number in _ENDING:
            signal.signal(number, lambda *_: os._exit(DONE))  # nothing has begun that would have to end in order
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for thing in birth.foreign:
            thing.close()
        birth.wire.keep_only(birth.column)
        setproctitle.setproctitle(f"portway: {birth.title}")
        faulthandler.enable()
        if isinstance(birth.program, Tier):
            self.open_access_log(birth.config.log.access)
        if birth.identity is not None:
            privileges.drop(birth.identity)
        privileges.forbid_new()
        privileges.follow(birth.supervisor)
        # What the fork brought along lives as long as the process: looking at it again and again costs a tenth of the
        # CPU, and writing its reference counts would copy the pages that all processes share.
        self.choose_cpu(birth.config)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)

    def open_access_log(self, target: str | Path) -> None:
        """Before privileges go: the folder may be root's. The supervisor has opened the same file at its start, so what
        fails now has happened since, and traffic matters more; USR1 and a reload try again."""
        try:
            self.access = AccessLog(target, self.log)
        except OSError as error:
            self.log.error("access log not opened", target=str(target), reason=error.strerror)
            self.access = AccessLog("off", self.log)
            self.access.target = target

    def choose_cpu(self, config: Config) -> None:
        """As `pin_workers` says, if it has changed: a worker keeps to one CPU; what exists once runs where there is
        room."""
        number, wanted = self.birth.number, config.supervisor.pin_workers
        if not number or wanted is self.pinned:
            return
        self.pinned = wanted
        try:
            allowed = os.sched_getaffinity(self.birth.supervisor)
            if wanted:
                pin(number, allowed)
            else:
                os.sched_setaffinity(0, allowed)
        except OSError as error:
            self.log.warning("CPU not chosen", reason=error.strerror)

    # -- the one trio.run

    async def run(self) -> int:
        birth = self.birth
        mailbox = birth.wire.mailbox(birth.column, birth.incarnation, birth.plane.incarnation)
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            self.lane = lane = Lane(self.crashed)
            await nursery.start(lane.run)
            self.worker = self._worker(lane, mailbox)
            self.runtime = self._start(nursery)
            self.polling = self._polling()
            self.swap = Swap(self.worker, self.runtime, self.polling, isinstance(birth.program, Tier))
            self.listen_to_signals()
            lane.watch(mailbox.socket, self.read_letters)
            lane.every(FLUSH, self.access.flush)
            self.polling.look()
            birth.plane.acknowledge(birth.column, birth.plane.generation)
            birth.plane.set_state(birth.column, ProcessState.READY)
            mailbox.send(layout.SUPERVISOR, Ready())
            nursery.start_soon(self.heartbeat)
            await self.over.wait()
            self.runtime.close()
            nursery.cancel_scope.cancel()
        self.access.close()
        if self.failure is not None:
            raise self.failure
        return DONE

    def _worker(self, lane: Lane, mailbox: Mailbox) -> Worker:
        birth = self.birth
        return Worker(
            tier=birth.tier,
            number=birth.number,
            column=birth.column,
            incarnation=birth.incarnation,
            config=birth.config,
            plane=birth.plane,
            mailbox=mailbox,
            lane=lane,
            log=self.log,
            access=self.access,
            pools=Pools(birth.config, birth.plane, birth.column),
            inherited=birth.inherited,
        )

    def _start(self, nursery: trio.Nursery) -> Runtime:
        program = self.birth.program
        if isinstance(program, Tier):
            return program.start(self.worker)
        service = ServiceRuntime(self.worker, program)
        nursery.start_soon(service.run)
        return service

    def _polling(self) -> Polling:
        def failed(listener: str, slot: int, error: Exception) -> None:
            self.log.error("slot not polled", listener=listener, slot=slot, reason=str(error))

        sockets = {name: list(sockets) for name, sockets in self.birth.sockets.items()}
        return Polling(self.birth.tier, self.birth.column, self.birth.plane, self.runtime, sockets, failed)

    # -- tasks

    async def heartbeat(self) -> None:
        """Each second: I live; and whatever a lost message would have told."""
        birth = self.birth
        plane, cells, mailbox = birth.plane, birth.plane.cells, self.worker.mailbox
        mine = plane.counters(Kind.TIER, plane.row(Kind.TIER, birth.tier), birth.column)
        while True:
            plane.beat(birth.column, time.monotonic_ns())
            cells[mine + layout.Tier.WIRE_SENT] = mailbox.sent
            cells[mine + layout.Tier.WIRE_DROPPED] = mailbox.dropped
            cells[mine + layout.Tier.SESSIONS] = len(self.lane.sessions)
            cells[mine + layout.Tier.LOG_DROPPED] = self.access.lost
            cells[mine + layout.Tier.ERRORS] = self._crashed
            self.swap.catch_up()
            self.choose_cpu(self.worker.config)
            if not self.draining:
                self.read_letters()  # what a slot's last owner sends stands before the cell that names us
                self.polling.look()
            await trio.sleep(HEARTBEAT)

    def listen_to_signals(self) -> None:
        """TERM drains, however often it comes: a service manager may send it to every process, and the supervisor
        again. QUIT ends now. Both mean nothing once trio has ended: an orderly end must not look like a death."""
        token = trio.lowlevel.current_trio_token()

        def handler(function: Callable[[], None]) -> Callable[[int, object], None]:
            def handle(number: int, frame: object) -> None:
                try:
                    token.run_sync_soon(function)
                except trio.RunFinishedError:
                    pass

            return handle

        signal.signal(signal.SIGTERM, handler(self.begin_drain))
        signal.signal(signal.SIGQUIT, handler(self.over.set))

    def begin_drain(self) -> None:
        if not self.draining:
            self.draining = True
            self.nursery.start_soon(self.drain)

    async def drain(self) -> None:
        """Let what runs come to its border, for at most `drain_timeout`."""
        self.birth.plane.set_state(self.birth.column, ProcessState.DRAINING)
        self.polling.close()
        self.runtime.drain()
        with trio.move_on_after(self.worker.config.supervisor.drain_timeout):
            while self.runtime.holding():  # noqa: ASYNC110  # a runtime says what it holds when asked, and at no event
                await trio.sleep(HOLDING_LOOK)
        if left := self.runtime.holding():
            self.log.warning("drain timeout", left=len(left), holding=list(left[:HOLDING_SHOWN]))
        self.over.set()

    # -- messages

    def read_letters(self) -> None:
        """By the lane, whenever the mailbox has something."""
        mailbox = self.worker.mailbox
        for _ in range(LETTERS_A_ROUND):
            letter = mailbox.receive()
            if letter is None:
                return
            if isinstance(letter.message, FROM_SUPERVISOR):
                try:
                    self.follow(letter)
                except Exception as error:
                    # Half a configuration, perhaps: a successor that was born to all of it is the better worker.
                    self.failure = error
                    self.over.set()
                    return
            elif isinstance(letter.message, Room):
                self.worker.queues.receive(letter.message)
            else:
                self.runtime.receive(letter.message, letter.fds)

    def follow(self, letter: Letter) -> None:
        """An order, if it is the supervisor's."""
        order = letter.message
        answer: Released | Prepared | Refused | Holding | None = None
        if letter.sender_pid != self.birth.supervisor:
            self.log.error("order from a stranger", order=type(order).__name__, sender=letter.sender_pid)
            close_all(letter.fds)
            return
        match order:
            case Slots(step, title):
                setproctitle.setproctitle(f"portway: {title}")
                if not self.draining:
                    self.polling.look()
                answer = Released(step)
            case Sockets():
                self.swap.receive_sockets(order, letter.fds)
            case Prepare():
                answer = self.swap.prepare(order, letter.fds)
            case Commit():
                self.swap.catch_up()
            case Abort(generation):
                self.swap.abort(generation)
            case Renew():
                self.swap.renew(letter.fds)
            case WhatHolds(question):
                lines = self.runtime.holding()
                shown = tuple(line[:MAX_HELD_LINE] for line in lines[:MAX_HELD_LINES])
                answer = Holding(question, len(lines), shown)
            case Reopen():
                self.access.reopen()
            case Held():
                self.runtime.receive(order, letter.fds)
        if answer is not None:
            self.worker.mailbox.send(layout.SUPERVISOR, answer)

    # -- errors

    def crashed(self, session: Session | None, error: BaseException) -> None:
        """A session (or a callback of the lane) ended with an error of ours: told, a bounded number of times."""
        self._crashed += 1
        if self._tracebacks.allows(time.monotonic()):
            name = "" if session is None else session.name
            text = "".join(traceback.format_exception(error))
            self.log.error("session failed", session=name, exception=text)
