"""`portway drain POOL/SERVER CONFIG`: new work goes elsewhere, what the server holds may end; kept over a reload."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from supervisor.cli.control import Unreachable, ask_daemon, complain, errors_of
from supervisor.cli.exits import DONE, FAILED, USAGE
from supervisor.ground.config import ConfigError


def run(options: argparse.Namespace) -> int:
    """Exit code 0 when done, 1 when refused or without a daemon, 2 for a file that can't be read."""
    state = "normal" if options.undo else "maintenance" if options.maintenance else "draining"
    request = {"command": "drain", "server": options.server, "state": state}
    try:
        answer = ask_daemon(Path(options.config), request)
    except ConfigError as error:
        complain(error)
        return USAGE
    except Unreachable as error:
        complain(error)
        return FAILED
    if not answer.get("ok"):
        for reason in errors_of(answer):
            complain(reason)
        return FAILED
    print(f"portway: {options.server} is {'given work again' if options.undo else state}", file=sys.stderr)
    return DONE
