"""`portway drain | maintenance | up POOL/SERVER CONFIG`: the operator's word on a server, kept over reload and upgrade.

Either way it gets no new work, and what it holds has `drain_timeout` to end; in maintenance, what can go elsewhere
without being cut goes at once.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from supervisor.cli.control import ask_daemon, complain, errors_of
from supervisor.cli.exits import DONE, FAILED

_SAID = {"normal": "given work again", "maintenance": "in maintenance", "draining": "draining"}


def run(options: argparse.Namespace) -> int:
    """Exit code 0 when done, 1 when refused or without a daemon, 2 for a file that can't be read."""
    state = _state(options)
    request = {"command": "drain", "server": options.server, "state": state}
    answer = ask_daemon(Path(options.config), request)
    if not answer.get("ok"):
        for reason in errors_of(answer):
            complain(reason)
        return FAILED
    print(f"portway: {options.server} is {_SAID[state]}", file=sys.stderr)
    return DONE


def _state(options: argparse.Namespace) -> str:
    if options.command == "up" or (options.command == "drain" and options.undo):
        return "normal"
    if options.command == "maintenance" or options.maintenance:
        return "maintenance"
    return "draining"
