"""The access log's file, before anybody is forked."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from supervisor.arbiter import access
from supervisor.ground.config import Config, load_bytes
from supervisor.ground.privileges import Identity

ME = Identity(os.getuid(), os.getgid(), ())


def config(target: str) -> Config:
    return load_bytes(f'[log]\naccess = "{target}"'.encode(), "a.toml", Path("/"), {}, {})


@pytest.mark.parametrize("identity", [None, ME])
def test_a_file_that_can_be_written_is_there_afterwards(tmp_path: Path, identity: Identity | None) -> None:
    access.give(config(f"{tmp_path}/a.log"), identity)
    assert stat.S_IMODE((tmp_path / "a.log").stat().st_mode) == 0o640


@pytest.mark.parametrize("identity", [None, ME])
def test_one_that_cannot_is_said_in_words(tmp_path: Path, identity: Identity | None) -> None:
    with pytest.raises(OSError, match=r"access log .*/absent/a\.log can't be written: No such file or directory"):
        access.give(config(f"{tmp_path}/absent/a.log"), identity)


def test_a_link_is_never_given_away(tmp_path: Path) -> None:
    (tmp_path / "a.log").symlink_to(tmp_path / "other")
    access.give(config(f"{tmp_path}/a.log"), ME)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("target", ["off", "stdout"])
def test_what_is_no_file_needs_nothing(target: str) -> None:
    access.give(config(target), ME)
