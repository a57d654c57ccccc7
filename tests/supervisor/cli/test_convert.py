"""`portway convert`."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.__main__ import main


def convert(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["portway", "convert", str(path)])
    return main()


def test_the_outcome_goes_to_stdout_and_what_is_lost_to_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pgbouncer.ini"
    path.write_text(
        "[databases]\napp = host=10.0.0.1\n* = host=10.0.0.1\n[pgbouncer]\nauth_file = u\nlisten_addr = *\n"
    )
    assert convert(path, monkeypatch) == 0
    said = capsys.readouterr()
    assert '[pooler.databases.app]\nprimary = "pg"\npool_mode = "session"' in said.out
    assert said.err == f"{path}: * (any other database): name each database that clients use\n"


def test_what_is_no_file_or_no_ini_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pgbouncer.ini"
    assert convert(path, monkeypatch) == 2
    path.write_text("hello")
    assert convert(path, monkeypatch) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "No such file" in said.err
    assert "no section headers" in said.err
