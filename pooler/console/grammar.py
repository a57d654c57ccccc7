"""What can be said to the console: one verb with its argument, as PgBouncer's users know them; no SQL.

Source: PgBouncer's usage page, "Admin console".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs

from pooler.errors import FEATURE_NOT_SUPPORTED, PeerError

SYNTAX_ERROR = "42601"

_STATEMENT = re.compile(r"""(?:[^;'"]|'(?:[^']|'')*'|"(?:[^"]|"")*"|['"])*""")
_WORD = r'"(?:[^"]|"")*"|[^\s;"=,]+'
_COMMAND = re.compile(rf"\s*(\w+)(?:\s+({_WORD}))?\s*")
_SET = re.compile(rf"\s*set\s+(?:session\s+|local\s+)?({_WORD})\s*(?:=|\s+to\s+).*", re.IGNORECASE | re.DOTALL)

# With the argument: 0 none, 1 may be, 2 must be.
VERBS = {
    "SHOW": 2, "PAUSE": 1, "RESUME": 1, "RECONNECT": 1, "KILL": 1, "KILL_CLIENT": 2, "WAIT_CLOSE": 1, "DISABLE": 2,
    "ENABLE": 2, "RELOAD": 0,
}  # fmt: skip
# What PgBouncer has, and is done another way here.
_ELSEWHERE = {
    "SHUTDOWN": "send SIGTERM to the supervisor, which drains",
    "SUSPEND": "portway upgrade replaces the running code and keeps every connection",
}


@attrs.frozen
class Command:
    """One command: its verb in capitals; its argument is in lower case unless it was quoted."""

    verb: str
    argument: str = ""


def statements(text: str) -> Iterator[str]:
    """The statements of a Query, the empty ones left out."""
    at = 0
    while at < len(text):
        found = _STATEMENT.match(text, at)
        assert found is not None
        if statement := found[0].strip():
            yield statement
        at = found.end() + 1


def parse(statement: str) -> Command:
    """Raises PeerError, which ends nothing: 42601 for what is no command, 0A000 for what is done another way."""
    setting = _SET.fullmatch(statement)
    if setting is not None:
        return Command("SET", _unquoted(setting[1]))
    found = _COMMAND.fullmatch(statement)
    verb = found[1].upper() if found is not None else statement.split(None, 1)[0].upper()
    if verb in _ELSEWHERE:
        raise refusal(FEATURE_NOT_SUPPORTED, f"{verb} is not a command here: {_ELSEWHERE[verb]}")
    wanted = VERBS.get(verb)
    argument = "" if found is None or found[2] is None else _unquoted(found[2])
    if found is None or wanted is None or (wanted == 2) > bool(argument) or (wanted == 0 and argument):
        raise refusal(SYNTAX_ERROR, f"invalid command '{statement[:100]}', use SHOW HELP;")
    return Command(verb, argument)


def refusal(sqlstate: str, message: str) -> PeerError:
    """A command that can't be done; the session goes on."""
    return PeerError(sqlstate, message, severity="ERROR")


def _unquoted(word: str) -> str:
    return word[1:-1].replace('""', '"') if word.startswith('"') else word.lower()
