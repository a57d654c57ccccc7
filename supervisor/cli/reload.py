"""`portway reload CONFIG`: asks the daemon, waits until all processes have taken the file or one has refused."""

from __future__ import annotations

import argparse
import json
import sys

from supervisor.cli.control import ask_daemon, complain, errors_of
from supervisor.cli.exits import DONE, USAGE


def run(options: argparse.Namespace) -> int:
    """Exit code 0 when the new file runs, 2 when it was refused and the old one runs on, 1 without a daemon."""
    answer = ask_daemon(options.config, {"command": "reload"})
    if options.json:
        print(json.dumps(answer))
    if not answer.get("ok"):
        print(*errors_of(answer), sep="\n", file=sys.stderr)
        complain("nothing was changed; the daemon runs on with what it had")
        return USAGE
    changed = [str(key) for key in answer.get("changed", ())]
    print("portway: reloaded;", "changed:" if changed else "nothing has changed", file=sys.stderr)
    for key in changed:
        print(f"  {key}", file=sys.stderr)
    if acknowledged := [str(title) for title in answer.get("acknowledged", ())]:
        complain(f"taken by {', '.join(acknowledged)}")
    return DONE
