"""The exit codes: what scripts go by, and the same wherever one is given."""

from __future__ import annotations

import pytest

from supervisor.arbiter import rehearsal, start, upgrading
from supervisor.cli import exits
from supervisor.cli.arguments import dispatch
from supervisor.ground import worker


def test_wrong_usage_ends_as_argparse_ends(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["reload"]) == exits.USAGE
    assert "reload" in capsys.readouterr().err


def test_the_daemon_and_its_rehearsal_end_with_the_same() -> None:
    assert (exits.DONE, exits.FAILED, exits.USAGE) == (0, 1, 2)
    assert (start.FAILED, start.BAD_CONFIGURATION) == (exits.FAILED, exits.USAGE)
    assert (rehearsal.FAILED, rehearsal.BAD_CONFIGURATION) == (exits.FAILED, exits.USAGE)
    assert upgrading.FAILED == exits.FAILED


def test_a_worker_s_boot_failure_is_none_of_them() -> None:
    """An `os._exit` in somebody's library must not read as a failed start."""
    assert worker.BOOT_FAILURE not in (exits.DONE, exits.FAILED, exits.USAGE)
