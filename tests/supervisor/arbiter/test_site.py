"""What is opened before the first fork, and that a start that fails leaves nothing open."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import pytest

from supervisor.arbiter.access import CannotLog
from supervisor.arbiter.control import CannotControl
from supervisor.arbiter.listeners import CannotListen
from supervisor.arbiter.site import identity_of, open_site, raise_file_limit
from supervisor.ground.config import Config, Problem, load_bytes
from supervisor.plane import layout
from supervisor.plane.layout import Kind
from tests.leftovers import open_files


def config(text: str, folder: Path) -> Config:
    return load_bytes(text.encode(), "x.toml", folder, {})


def test_all_that_is_asked_for_is_there(tmp_path: Path) -> None:
    text = '[supervisor]\nadmin = "127.0.0.1:0"\n[pools.p]\nservers = ["127.0.0.1:1"]\n'
    site = open_site(config(text, tmp_path), ())
    assert site.control_path == tmp_path / "portway.sock"
    assert site.admin is not None
    assert site.plane.names(Kind.SERVER).keys() == {"p/127.0.0.1:1"}
    assert site.plane.generation == 1
    info = site.plane.process(layout.SUPERVISOR)
    assert info is not None
    assert (info.pid, info.acknowledged) == (os.getpid(), 1)
    site.admin.close()
    site.control.close()
    site.plane.close()
    site.wire.close()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('[supervisor]\nadmin = "192.0.2.1:1"\n', CannotListen),
        ('[log]\naccess = "missing/a.log"\n', CannotLog),
        ('[supervisor]\ncontrol = "missing/c.sock"\n', CannotControl),
    ],
)
def test_a_start_that_fails_leaves_nothing(tmp_path: Path, text: str, error: type[Exception]) -> None:
    before = open_files()
    with pytest.raises(error):
        open_site(config(text, tmp_path), ())
    assert open_files() <= before
    assert list(tmp_path.iterdir()) == []


def test_what_the_machine_lacks_is_told_before_anything_is_opened(tmp_path: Path) -> None:
    class Lame:
        """A tier, as much as is asked."""

        @staticmethod
        def unable(config: Config) -> list[Problem]:
            return [Problem(("log", "level"), "not on this machine")]

    before = open_files()
    lame: Any = Lame()
    with pytest.raises(OSError, match=r"x\.toml:2: log\.level: not on this machine"):
        open_site(config('[log]\nlevel = "info"\n', tmp_path), (lame,))
    assert open_files() <= before
    assert list(tmp_path.iterdir()) == []


def test_without_names_the_workers_are_who_we_are(tmp_path: Path) -> None:
    assert identity_of(config("[supervisor]\n", tmp_path)) is None


def test_one_who_is_not_root_stays_who_he_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = config('[supervisor]\nuser = "root"\n', tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert identity_of(named) is None


def test_the_limit_of_open_files_is_as_high_as_it_may_be() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        raise_file_limit()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
