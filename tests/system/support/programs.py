"""Programs of other makers that tests use as clients and servers where they are installed."""

import shutil

import pytest


def needed(*programs: str) -> None:
    """Skip the test, and say why, unless all of these are there."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
