"""`portway`, and `python -m supervisor`: the door to the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 failed, 2 wrong usage or configuration."""
    from supervisor.cli.arguments import dispatch

    return dispatch(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
