"""The supervisor: what the signals do, how messages find their part.

How it comes to be stands in `start`. The parts stand beside this file: who there is (`crew`), who polls what
(`assignment`), reloads (`reloading`), the control socket (`control`), the listening sockets (`listeners`), the end
(`ending`). Here they are put together.
"""

from __future__ import annotations

import gc
import os
import signal
import time
from pathlib import Path
from typing import Any

import setproctitle

from supervisor.arbiter import access, holdings, leap, orphans, pidfile
from supervisor.arbiter.advice import advice
from supervisor.arbiter.assignment import Assignment
from supervisor.arbiter.certificates import Certificates
from supervisor.arbiter.children import Child, Death, Descriptor, is_forked
from supervisor.arbiter.commands import Commands
from supervisor.arbiter.control import Control
from supervisor.arbiter.crew import Crew
from supervisor.arbiter.ending import Ending, Stage
from supervisor.arbiter.holdings import Holdings
from supervisor.arbiter.loop import Loop
from supervisor.arbiter.notify import Notifier
from supervisor.arbiter.parts import Parts
from supervisor.arbiter.reloading import Committed, Reloading
from supervisor.arbiter.roles import ADMIN, PROBER, Role, service_name, wanted
from supervisor.arbiter.site import Site
from supervisor.arbiter.succession import leave, take_over
from supervisor.arbiter.upgrading import Upgrading
from supervisor.ground import log, worker
from supervisor.ground.config import Config
from supervisor.ground.orders import (
    Holding,
    Prepared,
    Ready,
    Refused,
    Released,
    ReloadWanted,
    Reopen,
    RowAnswer,
    RowWanted,
    Swapped,
)
from supervisor.ground.service import Resident, Service
from supervisor.ground.tier import Tier
from supervisor.ground.wire import close_all
from supervisor.ground.worker import Birth
from supervisor.plane import layout, tickets
from supervisor.plane.layout import Kind

FAILED = 1  # exit code
SWEEP = 5.0  # seconds between looks for rows that nobody uses
LOOK = 0.5  # seconds between looks at what lost messages, or events in which we failed, would have said
CPU_LOOK = 2.0  # seconds between looks at how many CPUs there are: a quota may be changed at any time
LETTERS_A_TURN = 64  # before other events have theirs


class Daemon:
    """The supervisor process."""

    def __init__(self, path: Path, config: Config, parts: Parts, site: Site) -> None:
        self.parts = parts
        self.log = log.logger(process="supervisor", pid=os.getpid())
        self.plane, self.rows, self.listeners = site.plane, site.rows, site.listeners
        self.admin, self.identity = site.admin, site.identity
        self.notifier = Notifier.from_environment(os.environ, os.getpid())
        self.booted = False
        self.inherited: dict[str, Any] = {}
        self.tracebacks = log.Ration()
        self.loop = loop = Loop(self.on_fault)
        self.wire = site.wire
        self.estate = site.estate
        mine = self.plane.incarnation(layout.SUPERVISOR)
        self.mailbox = self.wire.mailbox(layout.SUPERVISOR, mine, self.plane.incarnation)
        self.crew = Crew(
            loop, self.plane, self.wire, self.mailbox, self.log, self.birth, self.on_ready, self.on_death, self.retire
        )
        self.assignment = Assignment(loop, self.plane, self.crew, self.listeners)
        self.reloading = Reloading(
            loop=loop,
            plane=self.plane,
            crew=self.crew,
            listeners=self.listeners,
            rows=self.rows,
            tiers=parts.tiers,
            log=self.log,
            load=lambda: parts.load(path),
            config=config,
            shown_path=path,
            make_log=lambda new: access.give(new, self.identity),
            notifier=self.notifier,
            committed=self.on_commit,
        )
        self.certificates = Certificates(loop, self.plane, self.crew, self.reloading, self.log)
        self.ending = Ending(
            loop=loop,
            plane=self.plane,
            crew=self.crew,
            listeners=self.listeners,
            log=self.log,
            config=lambda: self.config,
            tiers={tier.name for tier in parts.tiers},
            begun=self.on_end,
            notifier=self.notifier,
        )
        self.upgrading = Upgrading(
            loop=loop,
            plane=self.plane,
            crew=self.crew,
            reloading=self.reloading,
            log=self.log,
            notifier=self.notifier,
            command=leap.own_command() if self.estate is None else self.estate.command,
            leave=lambda: leave(self),
            descriptor=lambda reply: self.control.descriptor(reply),
            started=lambda: self.booted,
            running=lambda: self.ending.stage is Stage.RUNNING,
        )
        self.holdings = Holdings(loop, self.plane, self.crew)
        commands = Commands(
            self.plane, self.reloading, self.log, self.holdings, lambda request, reply: self.upgrading.ask(reply)
        ).table()
        self.control = Control(loop, site.control_path, site.control, commands, self.log)
        self.adjustments: dict[str, int] = {}

    @property
    def config(self) -> Config:
        """What runs."""
        return self.reloading.config

    def run(self) -> int:
        """Until the end; its code."""
        setproctitle.setproctitle(f"portway: supervisor {self.reloading.shown_path}")
        self.log.info("starting", config=str(self.config.path), control=str(self.control.path))
        for event, fields in advice(self.config, self.parts.tiers, self.listeners, self.identity):
            self.log.warning(event, **fields)
        self.certificates.remind()
        with open(os.devnull, "rb") as nothing:  # no process of a daemon reads the terminal
            os.dup2(nothing.fileno(), 0)
        for tier in self.parts.tiers:
            self.inherited[tier.name] = tier.inherit(self.config)
        # What is here now is shared by all children; the collector must not touch, and so copy, its pages.
        gc.collect()
        gc.freeze()
        self.loop.watch(self.mailbox, self.read_letters)
        self.sweep()
        self.loop.every(SWEEP, self.sweep)
        self.loop.every(worker.HEARTBEAT, self.beat)
        self.loop.every(LOOK, self.reloading.look)
        self.loop.every(LOOK, self.ending.child_ended)
        self.loop.every(CPU_LOOK, self.follow_cpus)
        self.loop.every(holdings.SHARE, self.holdings.share)
        if self.notifier.watchdog is not None:
            self.loop.every(self.notifier.watchdog, self.notifier.beat)
        self.loop.on_signals(
            {
                signal.SIGHUP: self.reload,
                signal.SIGUSR1: self.reopen,
                signal.SIGUSR2: self.upgrading.ask,
                signal.SIGTERM: self.ending.terminate,
                signal.SIGINT: self.ending.at_once,
                signal.SIGQUIT: self.ending.at_once,
                signal.SIGTTIN: lambda: self.scale(+1),
                signal.SIGTTOU: lambda: self.scale(-1),
                signal.SIGCHLD: self.reap_orphans,
            }
        )
        if self.estate is not None:
            take_over(self, self.estate)
        else:
            self.notifier.send("STATUS=starting")
        self.crew.settle(self.wanted())
        self.look_whether_ready()
        try:
            return self.loop.run()
        finally:
            self.loop.ignore_signals()
            self.control.close()
            if self.config.supervisor.pid_file is not None:
                pidfile.remove(self.config.directory / self.config.supervisor.pid_file)

    # -- who there should be

    def wanted(self) -> list[Role]:
        return wanted(self.config, self.parts.tiers, self.adjustments)

    def birth(self, role: Role, title: str, column: int, incarnation: int) -> Birth:
        """What a process of this role is made of."""
        name = role.name
        tiers = {tier.name: tier for tier in self.parts.tiers}
        services = {service_name(t, s): one for t, tier in tiers.items() for s, one in tier.services.items()}
        programs: dict[str, Tier | Service | Resident] = {
            PROBER: self.parts.prober,
            ADMIN: self.parts.admin,
            **{service: one.run for service, one in services.items()},
            **tiers,
        }
        foreign: list[worker.Closable] = [self.loop, self.notifier, *self.control.foreign()]
        foreign += [self.listeners.activated, *self.listeners.foreign(name)]
        foreign += self.upgrading.foreign()
        foreign += [Descriptor(child.pidfd) for child in self.crew.children.values()]
        if self.admin is not None and name != ADMIN:
            foreign.append(self.admin)
        identity = self.identity
        if name in services:
            identity = services[name].identity(identity)
        elif name in tiers:
            identity = tiers[name].identity(self.config, identity)
        return Birth(
            title=title,
            tier=name,
            number=role.number,
            column=column,
            incarnation=incarnation,
            program=programs[name],
            config=self.config,
            plane=self.plane,
            wire=self.wire,
            supervisor=os.getpid(),
            sockets=self.listeners.of(name),
            inherited=self.admin if name == ADMIN else self.inherited.get(name),
            identity=identity,
            foreign=foreign,
        )

    def scale(self, by: int) -> None:
        """TTIN, TTOU: a worker more or less per tier, until the next restart."""
        if self.ending.stage is not Stage.RUNNING:
            return
        before = self.wanted()
        for tier in self.parts.tiers:
            now = self.adjustments.get(tier.name, 0)
            self.adjustments[tier.name] = now + by
            if self.wanted() == before:  # at a limit: the next signal the other way must count
                self.adjustments[tier.name] = now
            before = self.wanted()
        self.log.info("workers", **{role.name: role.number for role in before if role.number})
        self.settle()

    def follow_cpus(self) -> None:
        """Where `workers` is "auto": as many as there are CPUs to use, whenever that changes."""
        quiet = self.ending.stage is Stage.RUNNING and self.booted and not self.reloading.active
        if quiet and not self.upgrading.active and self.wanted() != self.crew.wanted:
            wanted = {role.name: role.number for role in self.wanted() if role.number}
            self.log.info("usable CPUs have changed", workers=wanted)
            self.settle()

    def settle(self) -> None:
        """After a change of the configuration or the counts."""
        self.crew.settle(self.wanted())
        for tier in self.parts.tiers:
            self.assignment.retitle(tier.name)
            self.assignment.update(tier.name)

    def retire(self, child: Child) -> None:
        """Its slots go to others first; then it drains."""
        child.retiring = True
        self.assignment.update(child.role.name)
        self.dismiss()

    def succeed(self, successor: Child) -> None:
        """Its predecessor may go."""
        for child in self.crew.predecessors():
            if child.role == successor.role and not successor.predecessor:
                self.retire(child)

    def dismiss(self) -> None:
        """TERM to those who are to go and poll nothing any more."""
        if self.ending.stage not in (Stage.RUNNING, Stage.ANNOUNCED):
            return  # the end has an order of its own
        for child in self.crew.children.values():
            if child.retiring and not child.dismissed and not self.assignment.holds(child):
                child.dismissed = True
                child.signal(signal.SIGTERM)

    # -- what happens

    def on_ready(self, child: Child) -> None:
        self.log.info("process ready", child=child.title, child_pid=child.pid)
        self.assignment.update(child.role.name)
        self.succeed(child)
        self.look_whether_ready()

    def look_whether_ready(self) -> None:
        """Once every process works; at once where no process is wanted."""
        if not self.booted and self.crew.complete():
            self.booted = True
            self.log.info("ready", processes=len(self.crew.children))
            self.notifier.ready(f"running generation {self.plane.generation}")
        self.upgrading.look()

    def on_death(self, child: Child, death: Death) -> None:
        self.assignment.died(child)
        self.reloading.died(child)
        self.holdings.died(child)
        if death.code == worker.BOOT_FAILURE and not self.booted and self.ending.stage is Stage.RUNNING:
            # Nothing has ever worked, and a successor would fail the same way: better to say so and end.
            self.log.critical("start failed", child=child.title)
            self.ending.at_once(FAILED)
        self.ending.child_ended()
        self.dismiss()
        self.upgrading.look()
        self.reap_orphans()

    def on_end(self) -> None:
        """The daemon is to end: what else is under way comes to nothing."""
        self.upgrading.stop()
        self.reloading.stop()

    def on_commit(self, commit: Committed) -> None:
        """The generation has been flipped; the rest of the supervisor follows."""
        log.configure(commit.new.log)
        self.plane.acknowledge(layout.SUPERVISOR, self.plane.generation)
        still = {key.row for key in self.listeners.all()}
        self.assignment.forget(key for key in commit.removed if key.row not in still)
        if commit.old.supervisor.admin != commit.new.supervisor.admin:
            old, self.admin = self.admin, commit.admin
            if old is not None:
                old.close()
            for child in self.crew.of(ADMIN):  # born with the old socket
                self.retire(child)
        self.settle()

    def reload(self) -> None:
        """HUP."""
        if self.ending.stage is Stage.RUNNING:
            self.reloading.ask()

    def reopen(self) -> None:
        """USR1."""
        self.log.info("reopening logs")
        self.give_access_log()
        for child in self.crew.children.values():
            self.crew.tell(child, Reopen())

    def give_access_log(self) -> None:
        """The workers will say by themselves what they can't open."""
        try:
            access.give(self.config, self.identity)
        except access.CannotLog as error:
            self.log.error("access log not made ready", reason=str(error))

    def reap_orphans(self) -> None:
        """SIGCHLD, and after each death: whoever has become our child without being forked by us."""
        if count := orphans.reap(lambda pid: pid in self.crew.children or is_forked(pid)):
            self.log.debug("orphans reaped", count=count)

    def beat(self) -> None:
        self.plane.beat(layout.SUPERVISOR, time.monotonic_ns())

    def on_fault(self, error: Exception) -> None:
        """Of ours, in an event or a timer: told and counted, and the daemon goes on."""
        tier = self.plane.counters(Kind.TIER, self.plane.row(Kind.TIER, "supervisor"), layout.SUPERVISOR)
        self.plane.cells[tier + layout.Tier.ERRORS] += 1
        if self.tracebacks.allows(time.monotonic()):
            self.log.error("supervisor fault, it goes on", exc_info=error)

    def sweep(self) -> None:
        """Rows that an earlier configuration named, and a secret that is too old."""
        tickets.keep_fresh(self.plane.cells, time.time_ns())
        for kind, name in self.rows.sweep(time.monotonic()):
            self.log.debug("row released", kind=kind.value, name=name)

    def read_letters(self) -> None:
        """What the children say; by the kernel's word who it is."""
        for _ in range(LETTERS_A_TURN):
            letter = self.mailbox.receive()
            if letter is None:
                return
            close_all(letter.fds)
            child = self.crew.children.get(letter.sender_pid)
            if child is None:
                continue
            match letter.message:
                case Ready():
                    self.crew.look()
                case Released(step):
                    self.assignment.released(child, step)
                    self.dismiss()
                case Prepared() as answer:
                    self.reloading.prepared(child, answer)
                case Refused() as answer:
                    self.reloading.refused(child, answer)
                case Holding() as answer:
                    self.holdings.answered(child, answer)
                case Swapped() as answer:
                    self.reloading.swapped(child, answer)
                case ReloadWanted(number):
                    self.reloading.ask_for(child, number)
                case RowWanted(number, kind, name):
                    self.crew.tell(child, RowAnswer(number, self.rows.add(kind, name)))
