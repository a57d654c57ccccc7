"""Certificates that change on disk, and the OCSP responses that go with them: noticed, read, judged, and handed to the
workers that use them; no reload.

The supervisor alone looks and reads: the keys are root's. A pair is two files that are never written in one moment, so
one that does not fit together is given until the next look before anybody hears of it; the old pair works on meanwhile,
and for as long as no good one comes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
from structlog.typing import FilteringBoundLogger

from supervisor.arbiter.crew import Crew
from supervisor.arbiter.loop import Loop
from supervisor.arbiter.reloading import Reloading
from supervisor.ground import cargo
from supervisor.ground.config import CertificateTable, Config, show_path
from supervisor.ground.config.certificates import certificates, with_files
from supervisor.ground.config.secrets import read_file
from supervisor.ground.orders import Renew
from supervisor.plane import layout
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane

LOOK = 3.0  # seconds between looks; a stat of each file
REMIND = 86400.0  # seconds between warnings of what expires soon

Pair = tuple[Path, ...]  # certificate, key, and OCSP response if there is one
Stamp = tuple[object, ...]


@attrs.define(eq=False)
class Certificates:
    """The pairs that the running configuration names."""

    loop: Loop
    plane: Plane
    crew: Crew
    reloading: Reloading
    log: FilteringBoundLogger
    _seen: dict[Pair, Stamp] = attrs.field(factory=dict, init=False)  # what was judged last
    _waiting: dict[Pair, Stamp] = attrs.field(factory=dict, init=False)  # bad at the last look, perhaps half written
    _cargos: list[int] = attrs.field(factory=list, init=False)  # in orders that have not left yet

    def __attrs_post_init__(self) -> None:
        self.loop.every(LOOK, self.look)
        self.loop.every(REMIND, self.remind)

    def look(self) -> None:
        """At every pair; then the workers get all that has changed at once."""
        self._close_sent()
        if self.reloading.active:
            return  # it has read the files itself, and one thing changes at a time
        before = config = self.reloading.config
        files: dict[Path, bytes] = {}
        pairs = {_paths(table): table for _, table in certificates(config)}
        for pair, table in pairs.items():
            stamp = _stamp(pair)
            if stamp == self._seen.get(pair):
                continue
            try:
                changed = self._read(pair, table)
                if changed:
                    config = _judged(config, changed)
            except ValueError as error:
                if self._waiting.get(pair) != stamp:
                    self._waiting[pair] = stamp
                    continue
                self._count(layout.Tier.CERTIFICATES_REFUSED)
                self.log.error("certificate not taken, the old one serves on", cert=str(pair[0]), reason=str(error))
            else:
                files |= changed
            self._waiting.pop(pair, None)
            self._seen[pair] = stamp
        for gone in self._seen.keys() - pairs.keys():
            del self._seen[gone]
        if files:
            named = [(str(path[0]), _paths(table)) for path, table in certificates(config)]
            tiers = {tier for tier, paths in named if files.keys() & paths}
            self.reloading.renewed(config)
            self._tell(files, tiers)
            self._say(before, config)

    def remind(self) -> None:
        """Of what expires soon."""
        for reason in told(self.reloading.config):
            self.log.warning("certificate", reason=reason)

    def _read(self, pair: Pair, table: CertificateTable) -> dict[Path, bytes]:
        """What differs from what runs. Raises ValueError."""
        found = {path: read_file(path) for path in pair}
        return {} if all(found[file.path] == file.data for file in table.files) else found

    def _tell(self, files: dict[Path, bytes], tiers: set[str]) -> None:
        fd = cargo.pack(files, "portway-certificates")
        self._cargos.append(fd)
        for child in self.crew.children.values():
            if child.role.name in tiers:
                self.crew.tell(child, Renew(), (fd,))
        self._close_sent()

    def _close_sent(self) -> None:
        waiting = {fd for child in self.crew.children.values() for _, fds in child.outbox for fd in fds}
        for fd in [fd for fd in self._cargos if fd not in waiting]:
            self._cargos.remove(fd)
            os.close(fd)

    def _say(self, before: Config, after: Config) -> None:
        old = dict(certificates(before))
        for path, table in certificates(after):
            if old[path] != table:
                self._count(layout.Tier.CERTIFICATES_RENEWED)
                self.log.info("certificate renewed", key=show_path(path), cert=str(table.cert.path))
        for reason in set(told(after)) - set(told(before)):
            self.log.warning("certificate", reason=reason)

    def _count(self, field: int) -> None:
        tier = self.plane.counters(Kind.TIER, self.plane.row(Kind.TIER, "supervisor"), layout.SUPERVISOR)
        self.plane.cells[tier + field] += 1


def _paths(table: CertificateTable) -> Pair:
    return tuple(file.path for file in table.files)


def told(config: Config) -> Iterator[str]:
    """What the certificates are to be warned of, for people."""
    for problem in config.warnings():
        yield f"{show_path(problem.path)}: {problem.message}"


def _judged(config: Config, files: dict[Path, bytes]) -> Config:
    """The configuration with these contents. Raises ValueError if any of its tables has a problem with them."""
    new: Config = with_files(config, files)
    if problems := new.problems():
        raise ValueError(problems[0].message)
    return new


def _stamp(pair: Sequence[Path]) -> Stamp:
    """What changes when a file is written or another takes its name; links are followed, as certbot's are."""
    stamps: list[object] = []
    for path in pair:
        try:
            stat = path.stat()
            stamps.append((stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
        except OSError as error:
            stamps.append(error.errno)
    return tuple(stamps)
