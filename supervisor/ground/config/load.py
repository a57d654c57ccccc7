"""Loading: a file into a Config, or every problem of it at once.

The tiers' tables come in as a mapping of name to class, so that this floor knows none of them. A Config is frozen and
picklable; the supervisor sends it to running workers, which need no file and no environment to use it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path as FilePath
from typing import Any

import attrs

from . import shapes
from .binds import clashes
from .problems import ConfigError, Located, Path, Problem, suggestion
from .source import Source, nearest_line, parse, read
from .structure import Structuring, check, warn
from .tables import LogTable, PoolTable, SupervisorTable, worker_count
from .values import Place


@attrs.frozen
class Config:
    """One loaded configuration file.

    `path` is absolute; `tiers` holds one table per tier, with its defaults where the file has none.
    """

    path: FilePath
    supervisor: SupervisorTable
    log: LogTable
    pools: Mapping[str, PoolTable]
    tiers: Mapping[str, Any]
    lines: Mapping[Path, int] = attrs.field(repr=False, eq=False, factory=dict)

    @property
    def directory(self) -> FilePath:
        return self.path.parent

    def tier(self, name: str) -> Any:
        """The table of a tier. Raises KeyError for a name that no tier has."""
        return self.tiers[name]

    def workers(self, tier: str) -> int:
        """How many processes a tier runs: its own `workers`, or the supervisor's."""
        own = getattr(self.tiers[tier], "workers", None)
        return worker_count(self.supervisor.workers if own is None else own)

    def problems(self) -> list[Problem]:
        """What its tables say of it, once more: for one that was made from another, and not from a file."""
        return check({"supervisor": self.supervisor, "log": self.log, "pools": self.pools, **self.tiers}, self, ())

    def warnings(self, now: datetime | None = None) -> list[Problem]:
        """What works, and is surely not meant or soon will not work."""
        return warn(self.tiers, self, datetime.now(UTC) if now is None else now)

    def line(self, path: Path) -> int:
        """The line (from 1) of a key, or of the nearest table around it."""
        return nearest_line(self.lines, path)


GROUND: Mapping[str, Any] = {"supervisor": SupervisorTable, "log": LogTable, "pools": Mapping[str, PoolTable]}


def load(path: str | FilePath, tables: Mapping[str, type], environ: Mapping[str, str] = os.environ) -> Config:
    """Read a configuration file. Raises ConfigError with everything that is wrong with it."""
    return build(read(path), tables, environ)


def load_bytes(
    data: bytes, name: str, directory: FilePath, tables: Mapping[str, type], environ: Mapping[str, str] = os.environ
) -> Config:
    """The same from bytes; `name` stands in the messages, `directory` is where relative paths start."""
    return build(parse(data, name, directory), tables, environ)


def build(source: Source, tables: Mapping[str, type], environ: Mapping[str, str]) -> Config:
    """A Config from a parsed file. Raises ConfigError with everything that is wrong with it."""
    kinds = {**GROUND, **tables}
    structuring = Structuring(Place(source.directory, environ))
    for name in source.values:
        if name not in kinds:
            structuring.say(f"unknown key{suggestion(name, kinds)}", name)
    taken = {name: structuring.take(source.values.get(name, {}), kind, name) for name, kind in kinds.items()}
    config = Config(
        path=source.directory / FilePath(source.name).name,
        supervisor=taken["supervisor"],
        log=taken["log"],
        pools=taken["pools"],
        tiers={name: taken[name] for name in tables},
        lines=dict(source.lines),
    )
    problems = [*structuring.problems, *clashes(taken), *check(taken, config, structuring.problems)]
    if problems:
        raise ConfigError(_locate(source, problems))
    return config


def _locate(source: Source, problems: Iterable[Problem]) -> list[Located]:
    located = [Located(source.name, source.line(problem.path), problem.path, problem.message) for problem in problems]
    return sorted(dict.fromkeys(located), key=lambda problem: problem.line)


def tables_of(tables: Mapping[str, type]) -> dict[str, Any]:
    """All the tables of a file by name, for the JSON Schema and the documentation."""
    kinds = {**GROUND, **tables}
    return {name: shapes.strip(kind)[0] for name, kind in kinds.items()}
