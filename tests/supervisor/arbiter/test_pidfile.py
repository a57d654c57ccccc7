"""The PID file: written whole, refused only to a living supervisor's, removed by its writer alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.arbiter.pidfile import CannotWrite, remove, write


def test_it_holds_our_process_id_and_goes_with_us(tmp_path: Path) -> None:
    path = tmp_path / "portway.pid"
    write(path)
    assert path.read_text() == f"{os.getpid()}\n"
    assert list(tmp_path.iterdir()) == [path]
    write(path)  # new code in the same process
    remove(path)
    assert list(tmp_path.iterdir()) == []
    remove(path)


@pytest.mark.parametrize("text", ["", "rubbish", "1\n", "99999999\n"])
def test_what_no_living_daemon_wrote_is_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "portway.pid"
    path.write_text(text)
    write(path)
    assert path.read_text() == f"{os.getpid()}\n"


def test_that_of_another_daemon_refuses_the_start_and_stays(tmp_path: Path) -> None:
    proc = tmp_path / "proc" / "42"
    proc.mkdir(parents=True)
    (proc / "cmdline").write_bytes(b"portway: supervisor a.toml\0")
    path = tmp_path / "portway.pid"
    path.write_text("42\n")
    with pytest.raises(CannotWrite) as refusal:
        write(path, proc.parent)
    assert str(refusal.value) == f"PID file {path}: belongs to process 42, a daemon that runs"
    remove(path)
    assert path.read_text() == "42\n"


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    precious, path = tmp_path / "precious", tmp_path / "portway.pid"
    precious.write_text("x")
    path.symlink_to(precious)
    write(path)
    assert precious.read_text() == "x"
    assert not path.is_symlink()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match=r"missing/x\.pid can't be written: No such file"):
        write(tmp_path / "missing" / "x.pid")
