"""The five commands: complete on a machine that has nothing but Python, and judged by what they show."""

import shlex
import sys
from pathlib import Path

import pytest

from supervisor.cli.demo import commands as module
from supervisor.cli.demo.commands import Command, commands, run
from supervisor.cli.demo.configuration import Places
from supervisor.cli.demo.picture import picture, to_paste
from supervisor.cli.demo.postgres import Installation

WHEEL = Installation(Path("/opt/wheel/bin"))


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(
        folder=tmp_path,
        https=8443,
        gateway=40001,
        rtmp=1935,
        sql=6432,
        admin=9900,
        game=7777,
        services={"user": {"user-1": 1, "user-2": 2}, "feed": {"feed-1": 3}, "payment": {"payment-1": 4}},
        games={"game-1": 5, "game-2": 6},
        ingests={"ingest-1": 7},
    )


def words(places: Places, monkeypatch: pytest.MonkeyPatch, on_path: set[str]) -> list[str]:
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/usr/bin/{name}" if name in on_path else None)
    return [command.text for command in commands(places, WHEEL, "pass")]


def test_with_curl_and_psql_they_are_what_everybody_types(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    request, query, datagram, status, metrics = words(places, monkeypatch, {"curl", "psql"})
    assert request.startswith("curl --cacert ")
    assert request.endswith("https://127.0.0.1:8443/api/user/me")
    assert query.startswith("psql 'postgresql://app:pass@127.0.0.1:6432/app'")
    assert datagram.startswith(f"{sys.executable} -c ")
    assert status.endswith(f"status {places.config}")
    assert metrics.startswith("curl -s http://127.0.0.1:9900/metrics")


def test_without_them_python_and_the_wheel_do_the_same(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = words(places, monkeypatch, set())
    assert not any("curl" in text for text in texts)
    assert texts[1].startswith("/opt/wheel/bin/psql ")
    for text in (texts[0], texts[2]):
        program, option, code = shlex.split(text)
        assert option == "-c"
        assert Path(program).is_absolute()
        compile(code, "pasted", "exec")


def test_a_command_is_good_when_it_ends_well_and_shows_what_it_must() -> None:
    assert run(Command("", "echo '{\"a\": 1}'", r'"a": \d')).good
    assert not run(Command("", "echo nothing", "something")).good
    assert not run(Command("", "echo something; exit 3", "something")).good


def test_a_command_that_hangs_is_not_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BOUND", 0.05)
    outcome = run(Command("", "exec sleep 60", ""))
    assert not outcome.good
    assert "no end" in outcome.output


def test_the_picture_names_every_port_and_instance(places: Places) -> None:
    text = picture(places, 5432, 5433)
    for part in ("7777", "8443", "1935", "6432", "5432", "5433", "user-1, user-2", "game-1, game-2", "ingest-1"):
        assert part in text


def test_commands_are_numbered_comments_and_plain_lines() -> None:
    assert to_paste([Command("one", "true", ""), Command("two", "false", "")]) == "# 1. one\ntrue\n\n# 2. two\nfalse\n"
