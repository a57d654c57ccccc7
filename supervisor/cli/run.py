"""`portway run CONFIG`: the daemon, in the foreground. Here the tiers and the single processes are put together."""

from __future__ import annotations

import argparse

from gateway.errors import REASONS
from supervisor.admin import Admin
from supervisor.arbiter import start
from supervisor.arbiter.parts import Parts
from supervisor.cli.tiers import TIERS
from supervisor.prober import run_prober


def run(options: argparse.Namespace) -> int:
    """Exit code 0 after a drain or an end that was asked for, 1 if it can't start, 2 for a bad configuration."""
    # The admin knows no tier; only the names of the gateway's reason codes are told to it.
    return start.run(options.config, Parts(TIERS, run_prober, Admin(tuple(REASONS))))
