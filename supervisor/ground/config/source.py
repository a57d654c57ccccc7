"""A TOML file as values and as lines.

tomllib reads the values and judges the syntax; tree-sitter reads the same bytes again for one thing only: the line on
which each key path stands. Where the two should disagree, the nearest enclosing path that has a line answers.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path as FilePath
from typing import Any

import attrs
import tree_sitter
import tree_sitter_toml

from .problems import ConfigError, Located, Path

# A configuration written by people; a file above this is a mistake (a log, a device) and is not read into memory.
MAX_FILE = 4 * 1024 * 1024
# Nesting that no table here needs, and far below what the recursion of any reader stands.
MAX_DEPTH = 32

_TOMLLIB_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")


@attrs.frozen
class Source:
    """One parsed file. `name` is how the user called it; `directory` is what relative paths start from."""

    name: str
    directory: FilePath
    values: Mapping[str, Any] = attrs.field(repr=False)
    lines: Mapping[Path, int] = attrs.field(repr=False)

    def line(self, path: Path) -> int:
        """The line (from 1) of the key, or of the nearest table around it."""
        return nearest_line(self.lines, path)


def nearest_line(lines: Mapping[Path, int], path: Path) -> int:
    """The line of `path` or of its nearest ancestor that has one; 1 when none has."""
    for length in range(len(path), 0, -1):
        line = lines.get(path[:length])
        if line is not None:
            return line
    return 1


def read(name: str | FilePath) -> Source:
    """Read and parse a file. Raises ConfigError when it can't be read or isn't TOML."""
    path = FilePath(name)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError([Located(str(name), 0, (), f"cannot be read: {reason}")]) from None
    return parse(data, str(name), FilePath(path.absolute()).parent)


def parse(data: bytes, name: str, directory: FilePath) -> Source:
    """Parse the bytes of a file. Raises ConfigError with the line when they aren't TOML."""
    if len(data) > MAX_FILE:
        raise ConfigError([Located(name, 0, (), f"is larger than {MAX_FILE // 1024 // 1024} MiB")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([Located(name, line, (), "is not UTF-8")]) from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax_error(name, text, str(error))]) from None
    except RecursionError:
        raise ConfigError([Located(name, 0, (), f"tables nested more than {MAX_DEPTH} deep")]) from None
    except ValueError as error:  # what tomllib lets through: a date that doesn't exist, an integer of 5,000 digits
        raise ConfigError([Located(name, 0, (), str(error))]) from None
    if _depth_exceeds(values, MAX_DEPTH):
        raise ConfigError([Located(name, 0, (), f"tables nested more than {MAX_DEPTH} deep")])
    return Source(name, directory, values, _Lines(text.encode()).found)


def _syntax_error(name: str, text: str, message: str) -> Located:
    place = _TOMLLIB_PLACE.search(message)
    if place is None:
        return Located(name, 0, (), message)
    if place[1] is None:
        line = text.rstrip().count("\n") + 1
        return Located(name, line, (), f"{message[: place.start()]} at the end of the file")
    return Located(name, int(place[1]), (), f"{message[: place.start()]} (column {place[2]})")


def _depth_exceeds(values: Any, limit: int) -> bool:
    layer = [values]
    for _ in range(limit):
        layer = [
            child
            for value in layer
            if isinstance(value, (dict, list))
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        if not layer:
            return False
    return True


@cache
def _parser() -> tree_sitter.Parser:
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_toml.language()))


class _Lines:
    """Walks the syntax tree once; `found` maps every key path to the line where it first stands."""

    def __init__(self, data: bytes) -> None:
        self.found: dict[Path, int] = {}
        self._arrays: dict[Path, int] = {}  # `[[name]]`: how many so far
        for node in _parser().parse(data).root_node.named_children:
            if node.type == "pair":
                self._pair(node, ())
            elif node.type in ("table", "table_array_element"):
                self._table(node)

    def _table(self, node: tree_sitter.Node) -> None:
        header, *pairs = [child for child in node.named_children if child.type != "comment"] or [node]
        line = node.start_point[0] + 1
        *parents, last = _keys(header)
        path: Path = ()
        for key in parents:
            path = self._mark((*path, key), line)
            if path in self._arrays:  # `[a.b]` under `[[a]]` belongs to the newest element
                path = (*path, self._arrays[path] - 1)
        path = self._mark((*path, last), line)
        if node.type == "table_array_element":
            number = self._arrays.get(path, 0)
            self._arrays[path] = number + 1
            path = self._mark((*path, number), line)
        for pair in pairs:
            if pair.type == "pair":
                self._pair(pair, path)

    def _pair(self, node: tree_sitter.Node, path: Path) -> None:
        named = [child for child in node.named_children if child.type != "comment"]
        if not named:
            return
        line = node.start_point[0] + 1
        for key in _keys(named[0]):
            path = self._mark((*path, key), line)
        if len(named) > 1:
            self._value(named[1], path)

    def _value(self, node: tree_sitter.Node, path: Path) -> None:
        if node.type == "inline_table":
            for child in node.named_children:
                if child.type == "pair":
                    self._pair(child, path)
        elif node.type == "array":
            elements = [child for child in node.named_children if child.type != "comment"]
            for number, child in enumerate(elements):
                self._value(child, self._mark((*path, number), child.start_point[0] + 1))

    def _mark(self, path: Path, line: int) -> Path:
        self.found.setdefault(path, line)
        return path


def _keys(node: tree_sitter.Node) -> list[str]:
    """The parts of a key, dots and quotes taken off."""
    if node.type == "dotted_key":
        return [key for child in node.named_children for key in _keys(child)]
    text = (node.text or b"").decode()
    if node.type != "quoted_key":
        return [text]
    try:
        return [*tomllib.loads(text + "=0")]
    except ValueError:  # only where the two parsers disagree: then the key has no line of its own
        return [text]
