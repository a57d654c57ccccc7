"""Upgrade, as the running supervisor does it: the new code rehearsed in a child, then this process becomes it.

Until the exec nothing changes here, so whatever goes wrong (the configuration, an import, the plane's layout, a worker
that does not come up) is told, and that is all. After it the new supervisor adopts what this one has left (`estate`):
the old workers serve on until their successors are ready. Reloads wait until an upgrade has ended.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from structlog.typing import FilteringBoundLogger

from supervisor.arbiter import estate as estates
from supervisor.arbiter import leap
from supervisor.arbiter.children import Descriptor
from supervisor.arbiter.control import Reply, refusal
from supervisor.arbiter.crew import Crew
from supervisor.arbiter.estate import VARIABLE, Estate, HeldListener
from supervisor.arbiter.loop import Loop, Timer
from supervisor.arbiter.notify import Notifier
from supervisor.arbiter.reloading import Reloading
from supervisor.ground.wire import close_all
from supervisor.ground.worker import Closable
from supervisor.plane import layout
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane

PATIENCE = 60.0  # seconds for the rehearsal: an interpreter and one worker a tier start in a second or two
LATE = 60.0  # seconds for the successors to be ready, before whoever asked is told that they are not
RETRY = 0.1  # seconds between looks whether a reload has ended
END = 5.0  # seconds for a rehearsal that has said its last word to end
MAX_WORDS = 256 * 1024  # bytes of a message; the reasons are bounded by the rehearsal
MAX_TOLD = 8 * 1024  # bytes of what a failed rehearsal wrote, for the log
FAILED = 1  # the exit code that `portway upgrade` is to end with; 2 is for the configuration


@attrs.define(eq=False)
class Rehearsal:
    """The child, and what it has sent so far."""

    process: subprocess.Popen[bytes]
    report: socket.socket
    written: int  # the memfd of its standard error
    timer: Timer
    listeners: list[HeldListener] = attrs.Factory(list)
    admin: tuple[int, str] | None = None
    config: int | None = None
    done: bool = False
    reasons: list[str] = attrs.Factory(list)
    code: int = FAILED

    def take(self, words: Mapping[str, Any], fds: Sequence[int]) -> None:
        """One message; the descriptors become the daemon's."""
        match words:
            case {"listener": {**listener}}:
                self.listeners.append(estates.listener_from(listener, fds))
            case {"admin": str(bind)}:
                self.admin = (fds[0], bind)
            case {"config": True}:
                self.config = fds[0]
            case {"done": True}:
                self.done = True
            case {"errors": [*reasons], "code": int(code)}:
                self.reasons, self.code = [str(reason) for reason in reasons], code

    def descriptors(self) -> list[int]:
        """What it has sent."""
        fds = [fd for listener in self.listeners for fd in listener.sockets]
        fds += [] if self.admin is None else [self.admin[0]]
        return fds + ([] if self.config is None else [self.config])

    def words(self) -> str:
        """The end of what it wrote."""
        size = os.fstat(self.written).st_size
        return os.pread(self.written, MAX_TOLD, max(0, size - MAX_TOLD)).decode(errors="replace").strip()


@attrs.define(eq=False)
class Upgrading:
    """At most one upgrade at a time; who asks meanwhile is told so."""

    loop: Loop
    plane: Plane
    crew: Crew
    reloading: Reloading
    log: FilteringBoundLogger
    notifier: Notifier
    command: tuple[str, ...]
    leave: Callable[[], Estate]  # what this supervisor has, for the next
    descriptor: Callable[[Reply], int | None]  # of a client that waits
    started: Callable[[], bool]  # whether every process has been ready once
    running: Callable[[], bool]  # and not ending
    _askers: list[Reply] = attrs.field(factory=list, init=False)
    _rehearsal: Rehearsal | None = attrs.field(default=None, init=False)
    _program: list[str] = attrs.field(factory=list, init=False)
    _active: bool = attrs.field(default=False, init=False)
    _late: Timer | None = attrs.field(default=None, init=False)

    @property
    def active(self) -> bool:
        """Whether one is under way, until its successors serve alone."""
        return self._active

    def ask(self, reply: Reply | None = None) -> None:
        """An upgrade, please. The reply comes from the new code, or from this one if it stays."""
        if reason := self._reason_against():
            self.log.error("upgrade refused, nothing has changed", errors=[reason])
            if reply is not None:
                reply({**refusal(reason), "code": FAILED})
            return
        self._active = True
        self._askers = [] if reply is None else [reply]
        self.log.info("upgrade asked for", command=list(self.command))
        self.reloading.hold()
        self.notifier.reloading()
        self._begin()

    def stop(self) -> None:
        """The daemon ends."""
        if self._active and self._late is None:
            self._fail(["the daemon is ending"])

    def _reason_against(self) -> str:
        if self._active:
            return "an upgrade is under way"
        if not self.running():
            return "the daemon is ending"
        return "" if self.started() else "the daemon is starting"

    # -- before the exec

    def _begin(self) -> None:
        if not self._active:
            return
        if self.reloading.under_way:
            self.loop.after(RETRY, self._begin)
            return
        try:
            self._program = leap.own_program(self.command)
            self._rehearse()
        except ValueError as error:
            self._fail([str(error)])
        except OSError as error:
            self._fail([f"the rehearsal can't be started: {error.strerror or error}"])

    def _rehearse(self) -> None:
        estate = self.leave()
        document = estates.write(estate)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        written = os.memfd_create("portway-rehearsal", os.MFD_CLOEXEC)
        try:
            process = subprocess.Popen(
                [sys.executable, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                pass_fds=[document, theirs.fileno(), *estate.handles()],
                env={**os.environ, VARIABLE: f"rehearse:{document}:{theirs.fileno()}"},
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            os.close(written)
            raise
        finally:
            theirs.close()
            os.close(document)
        ours.setblocking(False)
        timer = self.loop.after(PATIENCE, lambda: self._fail([f"the rehearsal took longer than {PATIENCE:g}s"]))
        self._rehearsal = Rehearsal(process, ours, written, timer)
        self.loop.watch(ours, self._read)

    def _read(self) -> None:
        rehearsal = self._rehearsal
        assert rehearsal is not None, "its socket is watched"
        words, fds = _receive(rehearsal.report)
        if words is None:
            return
        if words:
            try:
                rehearsal.take(json.loads(words), fds)
            except Exception as error:  # of other code: cattrs and json raise from unrelated trees
                close_all(fds)
                self._fail([f"the rehearsal can't be understood: {type(error).__name__}: {error}"])
            return
        # The end: of the process too, for its workers never had this socket.
        if rehearsal.done and rehearsal.config is not None:
            self._over(rehearsal)
            self._leap(rehearsal)
            return
        reasons = rehearsal.reasons
        if not reasons:
            said = rehearsal.words().splitlines()
            reasons = ["the new code ended before it had been rehearsed" + (f": {said[-1]}" if said else "")]
        self._fail(reasons, rehearsal.code)

    def _over(self, rehearsal: Rehearsal) -> None:
        """The child is gone, or will be in a moment."""
        self._rehearsal = None
        rehearsal.timer.cancel()
        self.loop.forget(rehearsal.report)
        rehearsal.report.close()
        try:
            rehearsal.process.wait(END if rehearsal.done or rehearsal.reasons else 0.1)
        except subprocess.TimeoutExpired:
            try:
                os.killpg(rehearsal.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            rehearsal.process.wait()

    def _fail(self, reasons: Sequence[str], code: int = FAILED) -> None:
        """Nothing comes of it, and nothing has changed."""
        rehearsal, words = self._rehearsal, ""
        if rehearsal is not None:
            self._over(rehearsal)
            words = rehearsal.words()
            os.close(rehearsal.written)
            close_all(rehearsal.descriptors())
        self._refused(reasons, code, words)

    def _refused(self, reasons: Sequence[str], code: int, words: str = "") -> None:
        self._count(layout.Tier.UPGRADES_REFUSED)
        more = {"wrote": words} if words else {}
        self.log.error("upgrade refused, nothing has changed", errors=list(reasons), **more)
        self._end({**refusal(*reasons), "code": code})

    def foreign(self) -> list[Closable]:
        """What a child must not hold."""
        if self._rehearsal is None:
            return []
        return [self._rehearsal.report, Descriptor(self._rehearsal.written)]

    def _leap(self, rehearsal: Rehearsal) -> None:
        os.close(rehearsal.written)
        waiting = [fd for fd in map(self.descriptor, self._askers) if fd is not None]
        postponed = self.reloading.postponed
        estate = self.leave()
        estate = attrs.evolve(
            estate,
            config=rehearsal.config,
            listeners=(*estate.listeners, *rehearsal.listeners),
            askers=tuple(waiting),
            reload=postponed is not None,
            reload_askers=tuple(fd for fd in map(self.descriptor, postponed or ()) if fd is not None),
        )
        if rehearsal.admin is not None:
            estate = attrs.evolve(estate, admin=rehearsal.admin[0], admin_bind=rehearsal.admin[1])
        document = estates.write(estate)
        self.log.info("rehearsed; the new code takes over", children=len(estate.children))
        try:
            leap.leap(self._program, document, estate.descriptors())
        except OSError as error:
            os.close(document)
            close_all(rehearsal.descriptors())
            self._refused([f"exec: {error.strerror}"], FAILED)

    # -- after the exec

    def resume(self, askers: Sequence[Reply]) -> None:
        """This is the new code: successors are about to start."""
        self._active, self._askers = True, list(askers)
        self._count(layout.Tier.UPGRADES)
        self.reloading.hold()
        self._late = self.loop.after(LATE, self._is_late)

    def look(self) -> None:
        """A child became ready, or ended."""
        if self._late is not None and self.crew.complete() and not self.crew.predecessors():
            self._late.cancel()
            self._late = None
            self.log.info("upgraded", processes=len(self.crew.wanted))
            self._end({"ok": True, "processes": len(self.crew.wanted), "errors": []})

    def _is_late(self) -> None:
        # Reloads go on waiting: predecessors can't take a configuration of this code's.
        self.notifier.ready("upgraded, with predecessors still at work")
        left = [child.title for child in self.crew.predecessors()]
        self.log.error("successors are not ready", served_by_predecessors=left)
        self._tell(
            {**refusal(f"the new code runs, but these have no successor yet and serve on: {left}"), "code": FAILED}
        )

    def _end(self, answer: Mapping[str, Any]) -> None:
        self._active = False
        if self.running():
            # Before anybody is answered, as after a reload; the new code says with it that it is ready.
            self.notifier.ready(f"running generation {self.plane.generation}")
        self._tell(answer)
        self.reloading.release()

    def _tell(self, answer: Mapping[str, Any]) -> None:
        askers, self._askers = self._askers, []
        for reply in askers:
            reply(answer)

    def _count(self, field: int) -> None:
        tier = self.plane.counters(Kind.TIER, self.plane.row(Kind.TIER, "supervisor"), layout.SUPERVISOR)
        self.plane.cells[tier + field] += 1


def _receive(report: socket.socket) -> tuple[bytes | None, list[int]]:
    """A message with its descriptors; empty at the end, None when there is nothing yet."""
    space = socket.CMSG_SPACE(layout.MAX_SLOTS * array.array("i").itemsize)
    try:
        data, ancillary, _, _ = report.recvmsg(MAX_WORDS, space, socket.MSG_CMSG_CLOEXEC)
    except BlockingIOError:
        return None, []
    except ConnectionError:
        return b"", []
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, list(fds)
