"""`portway convert PGBOUNCER.INI`: the same as a configuration of Portway on stdout, what it can't carry on stderr."""

from __future__ import annotations

import argparse
import sys

from pooler.migration import NotIni, convert
from supervisor.cli.exits import DONE, USAGE


def run(options: argparse.Namespace) -> int:
    """Exit code 0, or 2 for a file that is no pgbouncer.ini."""
    try:
        converted = convert(options.config.read_text())
    except (OSError, UnicodeDecodeError, NotIni) as error:
        print(f"{options.config}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return USAGE
    for line in converted.lost:
        print(f"{options.config}: {line}", file=sys.stderr)
    print(converted.toml, end="")
    return DONE
