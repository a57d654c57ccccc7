"""`portway explain`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from supervisor.__main__ import main

CONFIG = """[pools.web]
servers = ["127.0.0.1:8001"]
[gateway.listeners.web]
bind = "127.0.0.1:8080"
[gateway.routes.web]
path = "/web/*"
pool = "web"
[gateway.routes.away]
path = "/away"
methods = ["GET"]
redirect = { path = "/web" }
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "t.toml"
    path.write_text(CONFIG)
    return path


def test_every_step_has_its_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(path), "POST", "http://h:8080/web/x", "-H", "X-A:  1 ", "--client", "192.0.2.1"]) == 0
    lines = capsys.readouterr().out.replace(str(path), "t.toml").splitlines()
    assert lines[:5] == [
        "listener  web             t.toml:4  127.0.0.1:8080, by its port",
        "route     web             t.toml:5  path /web/*",
        "not       away            t.toml:8  path: /web/x is not /away",
        "pool      web             t.toml:1  round_robin over 1",
        "server    127.0.0.1:8001  t.toml:2  the first in turn; others as the load says, if all are up",
    ]
    assert lines[5:9] == ["", "The server gets:", "  POST /web/x HTTP/1.1", "  Host: h:8080"]
    assert "  X-A: 1" in lines
    assert "  X-Forwarded-For: 192.0.2.1" in lines


def test_an_answer_of_ours_is_the_last_step(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(path), "GET", "http://h:8080/"]) == 0
    lines = capsys.readouterr().out.replace(str(path), "t.toml").splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["not", "web", "t.toml:5"], ["not", "away", "t.toml:8"], ["answer", "404", "no_route"],
    ]  # fmt: skip


def test_json_is_for_programs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(path), "GET", "http://h:8080/away", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["status"], document["reason"], document["detail"]) == (308, "redirected", "Location: /web")
    assert document["steps"][1] == {
        "about": "route", "chosen": "away", "why": "path /away; methods GET", "key": "gateway.routes.away", "line": 8,
    }  # fmt: skip
    assert [step["chosen"] for step in document["lost"]] == ["web"]


@pytest.mark.parametrize(("arguments", "message"), [
    (["GET", "h/"], "a URL begins with http"),
    (["GET", "http://h:8080/", "-H", "nonsense"], "a header is written 'Name: value'"),
    (["GET", "http://h:8080/", "--client", "nobody"], "does not appear to be an IPv4 or IPv6 address"),
])  # fmt: skip
def test_wrong_usage_is_2(path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["explain", str(path), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err


def test_a_configuration_that_cannot_be_is_2(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(CONFIG + "x = 1\n")
    assert main(["explain", str(path), "GET", "http://h:8080/"]) == 2
    assert "unknown key" in capsys.readouterr().err


def test_behind_the_edge_the_request_is_followed_through_it(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(
        CONFIG
        + """[pools.gateway]
servers = ["127.0.0.1:8080"]
[edge.listeners.http]
bind = "127.0.0.1:80"
pool = "gateway"
"""
    )
    assert main(["explain", str(path), "GET", "http://h/web/"]) == 0
    lines = capsys.readouterr().out.replace(str(path), "t.toml").splitlines()
    assert [line.split()[:3] for line in lines[:3]] == [
        ["edge", "http", "t.toml:14"], ["listener", "web", "t.toml:4"], ["route", "web", "t.toml:5"],
    ]  # fmt: skip
    assert lines[0].endswith("127.0.0.1:80, to the pool gateway")
    assert lines[1].endswith("127.0.0.1:8080, a server of gateway")


def test_a_running_daemon_is_asked_how_its_servers_are(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = [{"address": "127.0.0.1:8001", "state": "draining"}]
    answer = {"ok": True, "status": {"pools": [{"name": "web", "servers": servers}]}}
    monkeypatch.setattr("supervisor.cli.explain.ask", lambda *question: answer)
    assert main(["explain", str(path), "GET", "http://h:8080/web/"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].endswith("round_robin over 1; 127.0.0.1:8001 is draining")
    assert lines[-1].startswith("answer")
    assert "503 no_server" in lines[-1]
