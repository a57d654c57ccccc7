"""Asking the running daemon: the client's side of the control socket.

The protocol: a Unix stream socket beside the configuration, mode 0600. One JSON object on one line asks,
`{"command": "reload"}`; one answers, `{"ok": true, ...}`, or `{"ok": false, "errors": [...]}`. Commands: status
(answers `status`), reload (answers `changed`, and who has taken it: `acknowledged` by title, `processes` how many),
upgrade (answers `processes`, from the new code; a refusal has the `code` to exit with), drain (`server`, and `state`:
"draining", "maintenance" or "normal").
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

from supervisor.cli.exits import FAILED, USAGE, Stopped
from supervisor.ground.config import ConfigError, SupervisorTable
from supervisor.ground.config.secrets import resolve
from supervisor.ground.config.source import read
from supervisor.ground.config.values import Place

MAX_ANSWER = 64 * 1024 * 1024  # bytes: the status of thousands of servers and routes is a few MiB
PATIENCE = 30.0  # seconds: above the daemon's own 10 s for a reload, so that its reason is what is shown


class Unreachable(Exception):
    """No daemon answers; the text says why and what to look at."""


def socket_path(config: Path) -> Path:
    """Where the daemon that runs `config` listens, for any file that is TOML: the daemon judges the rest.

    Raises ConfigError when it is none.
    """
    source = read(config)
    table = source.values.get("supervisor")
    named = table.get("control") if isinstance(table, dict) else None
    if not isinstance(named, str) or not named:
        named = str(SupervisorTable().control)
    return resolve(named, Place(source.directory, {}))


def ask(path: Path, request: dict[str, Any], patience: float = PATIENCE) -> dict[str, Any]:
    """One question, one answer. Raises Unreachable."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(patience)
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            line = _line(connection)
    except TimeoutError:
        raise Unreachable(f"the daemon at {path} did not answer within {patience:g}s") from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise Unreachable(f"no daemon runs this configuration: nothing listens at {path}") from None
    except PermissionError:
        raise Unreachable(f"{path} belongs to another user: ask as the one who started the daemon") from None
    except (OSError, ValueError) as error:
        raise Unreachable(f"the daemon at {path} can't be asked: {error}") from None
    try:
        answer = json.loads(line)
    except ValueError:
        raise Unreachable(f"the daemon at {path} ended before its answer was complete") from None
    if not isinstance(answer, dict):
        raise Unreachable(f"{path} is not a control socket of Portway")
    return answer


def ask_daemon(config: Path, request: dict[str, Any], patience: float = PATIENCE) -> dict[str, Any]:
    """The answer of the daemon that runs `config`. Raises Stopped for a file that is no TOML, or without a daemon."""
    try:
        return ask(socket_path(config), request, patience)
    except ConfigError as error:
        raise Stopped(USAGE, str(error)) from None  # it says itself which file is to blame
    except Unreachable as error:
        raise Stopped(FAILED, f"portway: {error}") from None


def errors_of(answer: dict[str, Any]) -> list[str]:
    """What a refusal says."""
    errors = answer.get("errors") or [answer.get("error") or "the daemon refused and gave no reason"]
    return [str(error) for error in errors]


def complain(text: str) -> None:
    """A text for the person at the terminal."""
    print(f"portway: {text}", file=sys.stderr)


def _line(connection: socket.socket) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n") and len(received) <= MAX_ANSWER:
        data = connection.recv(1 << 16)
        if not data:
            break
        received += data
    return bytes(received)
