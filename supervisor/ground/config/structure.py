"""Raw TOML values into frozen tables, through cattrs, strictly: nothing is coerced and nothing is ignored.

All the problems of a file are collected before any is raised. A key that failed leaves its attribute out of an
otherwise whole table (`broken`), so that the checks across tables still run over what is sound and say the rest too.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path as FilePath
from typing import Any, get_args

import attrs
import cattrs

from . import shapes
from .problems import Path, Problem, not_one_of, show, suggestion
from .secrets import resolve
from .shapes import MAX_INT, Between
from .values import Place

# Names become labels of metrics, rows of the plane and words in a log line.
MAX_NAME = 63  # bytes: what PostgreSQL allows an identifier, and a DNS label

_FAILED: Any = object()


class Structuring:
    """One pass over one file. `problems` grows while `take` runs; the paths in it are absolute."""

    def __init__(self, place: Place) -> None:
        self.problems: list[Problem] = []
        self._place = place
        self._path: list[str | int] = []
        self._converter = cattrs.Converter()
        for scalar, hook in ((str, _string), (bool, _boolean), (int, _integer), (float, _number)):
            self._converter.register_structure_hook(scalar, self._scalar(hook))
        self._converter.register_structure_hook(FilePath, lambda raw, _: resolve(_string(raw), place))
        for predicate, factory in (
            (shapes.is_array, self._array),
            (shapes.is_mapping, self._mapping),
            (shapes.is_choice, self._choice),
            (shapes.is_table, self._table),
            (shapes.is_value, self._value),
            (shapes.is_union, self._union),
            (lambda kind: shapes.strip(kind)[1] is not None, self._ranged),
        ):
            self._converter.register_structure_hook_factory(predicate, factory)

    def take(self, raw: Any, kind: Any, *path: str | int) -> Any:
        """`raw` as a `kind`, standing at `path` below the value being read; a problem is noted, never raised."""
        with self._at(*path):
            try:
                return self._converter.structure(raw, kind)
            except ValueError as error:
                self.say(str(error))
                return _FAILED

    def say(self, message: str, *path: str | int) -> None:
        self.problems.append(Problem((*self._path, *path), message))

    @contextlib.contextmanager
    def _at(self, *path: str | int) -> Iterator[None]:
        self._path.extend(path)
        try:
            yield
        finally:
            del self._path[len(self._path) - len(path) :]

    def _table(self, table: Any) -> Any:
        keys = [*shapes.fields(table)]
        short = shapes.shorthand(table)
        names = [name for name, _, _ in keys]

        def structure(raw: Any, _: Any) -> Any:
            if short and isinstance(raw, str):
                raw = {short: raw}
            _expect(raw, table)
            for name in raw:
                if name not in names:
                    self.say(f"unknown key{suggestion(name, [n for n in names if n not in raw] or names)}", name)
            values: dict[str, Any] = {}
            for name, kind, attribute in keys:
                if name in raw:
                    values[attribute.name] = self.take(raw[name], kind, name)
                else:
                    values[attribute.name] = self._default(name, attribute)
            return _build(table, values)

        return structure

    def _default(self, name: str, attribute: attrs.Attribute[Any]) -> Any:
        default = shapes.default_of(attribute)
        if default is attrs.NOTHING:
            self.say("required key is missing", name)
            return _FAILED
        if isinstance(default, FilePath):
            return self._place.directory / default
        return default

    def _array(self, array: Any) -> Any:
        element = get_args(array)[0]

        def structure(raw: Any, _: Any) -> Any:
            _expect(raw, array)
            taken = [self.take(item, element, number) for number, item in enumerate(raw)]
            # An array with a hole would be judged as if the user had written a shorter one.
            return _FAILED if any(item is _FAILED for item in taken) else tuple(taken)

        return structure

    def _mapping(self, mapping: Any) -> Any:
        element = get_args(mapping)[1]
        named = shapes.is_table(shapes.strip(element)[0])

        def structure(raw: Any, _: Any) -> Any:
            _expect(raw, mapping)
            taken = {}
            for name, item in raw.items():
                if named and (message := _bad_name(name)):
                    self.say(message, name)
                # What failed keeps its name: a reference to it is not a second mistake.
                taken[name] = self.take(item, element, name)
            return taken

        return structure

    def _choice(self, kind: Any) -> Any:
        words = shapes.choices(kind)

        def structure(raw: Any, _: Any) -> Any:
            _expect(raw, kind)
            if raw not in words:
                raise ValueError(not_one_of(raw, [*words]))
            return words[raw]

        return structure

    def _scalar(self, hook: Callable[[Any], Any]) -> Any:
        def structure(raw: Any, kind: Any) -> Any:
            # cattrs dispatches by base class too: a Duration is a float, a StrEnum a str, and both come here.
            if shapes.is_value(kind):
                return self._value(kind)(raw, kind)
            return self._choice(kind)(raw, kind) if shapes.is_choice(kind) else hook(raw)

        return structure

    def _value(self, kind: Any) -> Any:
        def structure(raw: Any, _: Any) -> Any:
            _expect(raw, kind)
            return kind.from_config(raw, self._place)

        return structure

    def _ranged(self, kind: Any) -> Any:
        base, between = shapes.strip(kind)

        def structure(raw: Any, _: Any) -> Any:
            value = self._converter.structure(raw, base)
            if between is not None and isinstance(value, (int, float)):
                _in_range(value, between)
            return value

        return structure

    def _union(self, union: Any) -> Any:
        members = shapes.members(union)

        def structure(raw: Any, _: Any) -> Any:
            fitting = [member for member in members if type(raw) in shapes.raw_types(member)]
            for member in fitting:
                if shapes.is_choice(member) and raw in shapes.choices(member):
                    return self._converter.structure(raw, member)
            if not fitting:
                raise ValueError(f"must be {shapes.describe(union)}, not {shapes.name_of(raw)}")
            # A word that no closed list has belongs to the open member beside it, if there is one.
            open_members = [member for member in fitting if not shapes.is_choice(member)]
            if open_members or len(members) == len(fitting):
                return self._converter.structure(raw, (open_members or fitting)[0])
            words = [word for member in fitting for word in shapes.choices(member)]
            raise ValueError(f"must be {shapes.describe(union)}, not {show(raw)}{suggestion(raw, words)}")

        return structure


def check(root: Any, config: Any, found: Iterable[Problem]) -> list[Problem]:
    """What the `problems(config)` hooks of all the tables under `root` say, with absolute paths.

    With problems `found` already, a table may lack attributes: a hook that stumbles over one is left at that point,
    and what it says about a key that has a problem already is not repeated.
    """
    earlier = [*found]
    known = {problem.path for problem in earlier}
    problems: list[Problem] = []
    for path, table in tables(root, ()):
        hook = getattr(table, "problems", None)
        if hook is None:
            continue
        try:
            for problem in hook(config):
                full = (*path, *problem.path)
                if full not in known:
                    problems.append(Problem(full, problem.message))
        except Exception:
            if not earlier:
                raise
    return problems


def warn(root: Any, config: Any, now: datetime) -> list[Problem]:
    """What the `warnings(config, now)` hooks of all the tables under `root` say, with absolute paths."""
    return [
        Problem((*path, *problem.path), problem.message)
        for path, table in tables(root, ())
        for problem in getattr(table, "warnings", _nothing)(config, now)
    ]


def _nothing(config: Any, now: datetime) -> Iterable[Problem]:
    return ()


def tables(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Every table under a value, with its key path."""
    if shapes.is_table(type(value)):
        yield path, value
        for name, _, attribute in shapes.fields(type(value)):
            yield from tables(getattr(value, attribute.name, None), (*path, name))
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from tables(item, (*path, name))
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            yield from tables(item, (*path, number))


def _build(table: Any, values: dict[str, Any]) -> Any:
    if not any(value is _FAILED for value in values.values()):
        return table(**{name.lstrip("_"): value for name, value in values.items()})
    broken = object.__new__(table)
    for name, value in values.items():
        if value is not _FAILED:
            object.__setattr__(broken, name, value)
    return broken


def _expect(raw: Any, kind: Any) -> None:
    if type(raw) not in shapes.raw_types(kind):
        raise ValueError(f"must be {shapes.describe(kind)}, not {shapes.name_of(raw)}")
    if isinstance(raw, str):
        _printable(raw)


def _printable(raw: str) -> None:
    # A line break in a name, a path or a header value ends up in a log line, a request or a shell.
    if any(c < " " or c == "\x7f" for c in raw):
        raise ValueError(f"{show(raw)} contains a control character")


def _string(raw: Any) -> str:
    _expect(raw, str)
    return str(raw)


def _boolean(raw: Any) -> bool:
    _expect(raw, bool)
    return bool(raw)


def _integer(raw: Any) -> int:
    _expect(raw, int)
    if not -MAX_INT <= raw <= MAX_INT:
        raise ValueError("is out of range")
    return int(raw)


def _number(raw: Any) -> float:
    _expect(raw, float)
    if not -MAX_INT <= raw <= MAX_INT or math.isnan(raw):
        raise ValueError("is out of range")
    return float(raw)


def _in_range(value: float, between: Between) -> None:
    if not between.low <= value <= between.high:
        raise ValueError(
            f"must be {shapes.describe_range(between).removeprefix('of ')}, not {shapes.show_number(value)}"
        )


def _bad_name(name: str) -> str | None:
    if not name or len(name.encode()) > MAX_NAME:
        return f"a name has 1 to {MAX_NAME} bytes"
    if "/" in name or not name.isprintable() or name != name.strip():
        return 'a name has no "/", no control characters and no spaces around it'
    return None
