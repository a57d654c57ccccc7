"""`portway upgrade CONFIG`: the daemon becomes the code that is installed now; waits until that code serves alone."""

from __future__ import annotations

import argparse
import json
import sys

from supervisor.cli.control import ask_daemon, complain, errors_of
from supervisor.cli.exits import DONE, FAILED, USAGE

PATIENCE = 150.0  # seconds: the daemon gives the rehearsal and the start of the new processes 60 each


def run(options: argparse.Namespace) -> int:
    """Exit code 0 when the new code runs, 2 when the configuration was refused, 1 for any other reason."""
    answer = ask_daemon(options.config, {"command": "upgrade"}, PATIENCE)
    if options.json:
        print(json.dumps(answer))
    if not answer.get("ok"):
        print(*errors_of(answer), sep="\n", file=sys.stderr)
        complain("not upgraded; what served before serves on")
        return USAGE if answer.get("code") == USAGE else FAILED
    complain(f"upgraded; {answer.get('processes', 0)} processes run the new code")
    return DONE
