"""What can be wrong with a configuration, and how it is said.

A Problem is a key path and a sentence; ConfigError is all the problems of one file at once, each printed as
`reference.toml:14: pools.user.balence: unknown key; did you mean "balance"?`. Suggestions come from difflib.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

import attrs

Path = tuple[str | int, ...]

# TOML 1.0: a bare key; any other is quoted when it is shown.
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")
# Longer names are cut in messages: a message is a line, and a file can hold megabytes of key.
MAX_SHOWN = 80


@attrs.frozen
class Problem:
    """One thing wrong. `path` is relative to the table whose `problems()` hook reports it."""

    path: Path
    message: str


@attrs.frozen
class Located:
    """A problem with its place: the file as the user named it, the line (from 1) and the full key path."""

    file: str
    line: int
    path: Path
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        return where + (f"{show_path(self.path)}: {self.message}" if self.path else self.message)


class ConfigError(Exception):
    """A configuration that can't be used; `problems` holds everything found, in the order of the file."""

    def __init__(self, problems: Iterable[Located]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def show(text: str) -> str:
    """A string of the user's inside a message: quoted, escaped, and cut when it is long."""
    printable = "".join(
        c if c.isprintable() and c not in '"\\' else c.encode("unicode_escape").decode() if c not in '"\\' else "\\" + c
        for c in text[:MAX_SHOWN]
    )
    return f'"{printable}…"' if len(text) > MAX_SHOWN else f'"{printable}"'


def show_path(path: Path) -> str:
    """A key path as TOML writes it: `pools.user.servers[0].weight`."""
    parts: list[str] = []
    for part in path:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        else:
            key = part if _BARE_KEY.match(part) and len(part) <= MAX_SHOWN else show(part)
            parts.append(f".{key}" if parts else key)
    return "".join(parts)


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean "balance"?` or nothing."""
    close = difflib.get_close_matches(word[:MAX_SHOWN].lower(), [*known], n=1)
    return f"; did you mean {show(close[0])}?" if close else ""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a reference that leads nowhere: `unknown pool "usr"; did you mean "user"?`."""
    return f"unknown {kind} {show(name)}{suggestion(name, known)}"


def not_one_of(word: str, choices: Sequence[str]) -> str:
    """The message for a word outside a closed list."""
    listed = ", ".join(map(show, choices))
    return f"{show(word)} is not {'one of ' if len(choices) > 1 else ''}{listed}{suggestion(word, choices)}"
