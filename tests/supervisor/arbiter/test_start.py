"""How a supervisor comes to be, as far as it does not: starts that fail say why, and leave nothing."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from supervisor.arbiter import start
from supervisor.arbiter.estate import VARIABLE
from supervisor.arbiter.parts import Parts
from supervisor.ground.tier import Worker


async def once(worker: Worker) -> None: ...


PARTS = Parts((), prober=once, admin=once)


def write(folder: Path, text: str) -> Path:
    path = folder / "x.toml"
    path.write_text(text)
    return path


def test_a_file_with_errors_is_told_all_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, '[supervisor]\nworker = 2\n[log]\nlevel = "loud"\n')
    assert start.run(path, PARTS) == start.BAD_CONFIGURATION
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f'{path}:2: supervisor.worker: unknown key; did you mean "workers"?'
    assert told[1].startswith(f"{path}:4: log.level: ")


def test_what_can_not_be_opened_is_told_and_nothing_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        path = write(tmp_path, f'[supervisor]\nadmin = "127.0.0.1:{taken.getsockname()[1]}"\n')
        assert start.run(path, PARTS) == start.FAILED
    assert "portway: supervisor.admin: can't listen on 127.0.0.1:" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.toml"]


def test_as_a_rehearsal_it_rehearses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(start, "rehearse", lambda *arguments: asked.append(arguments) or 5)
    monkeypatch.setattr(start.setproctitle, "setproctitle", lambda title: None)
    monkeypatch.setenv(VARIABLE, "rehearse:7:8")
    path = write(tmp_path, "")
    assert start.run(path, PARTS) == 5
    ((where, tiers, _, document, report),) = asked
    assert (where, tiers, document, report) == (path, (), 7, 8)
