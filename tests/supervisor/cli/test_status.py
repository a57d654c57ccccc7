"""`portway status`."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from supervisor.__main__ import main
from supervisor.cli.status import _bytes, _span, part_of, show
from supervisor.cli.tables import TABLES
from supervisor.ground import status
from supervisor.ground.config import load_bytes
from supervisor.plane import layout
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane

TEXT = b"""
[pools."[bold]"]
servers = ["127.0.0.1:8101", { address = "[::1]:8102", backup = true }]
[edge.listeners.web]
bind = "127.0.0.1:80"
pool = "[bold]"
"""


@pytest.fixture
def document() -> dict[str, Any]:
    config = load_bytes(TEXT, "portway.toml", Path("/etc"), TABLES, {})
    plane = Plane.create()
    plane.processes.enter_supervisor(1)
    column = plane.claim_column("edge", 1)
    plane.started(column, 100)
    row = plane.allocate(Kind.LISTENER, "edge/web")
    plane.cells[plane.state(Kind.LISTENER, row)] = column
    plane.cells[plane.counters(Kind.LISTENER, row, column) + layout.Listener.BYTES_IN] = 3 << 20
    for address in ("127.0.0.1:8101", "[::1]:8102"):
        plane.allocate(Kind.SERVER, f"[bold]/{address}")
    plane.allocate(Kind.ROUTE, "user")
    plane.allocate(Kind.LIMIT, "per_user")
    plane.allocate(Kind.LEASEPOOL, "app/alice")
    return status.document(config, plane)


def shown(document: dict[str, Any]) -> list[str]:
    stream = io.StringIO()
    show(document, Console(file=stream, width=500, soft_wrap=True))
    return [" ".join(line.split()) for line in stream.getvalue().splitlines()]


def test_every_part_has_its_rows(document: dict[str, Any]) -> None:
    lines = shown(document)
    assert lines[0].startswith("portway ")
    assert lines[0].endswith("/etc/portway.toml")
    assert "edge 1 100 starting 0 0.0s" in lines
    assert "edge/web 127.0.0.1:80 tcp edge 1 (1) 0 0 0 0 3.0 MiB 0 B" in lines
    servers = [line for line in lines if line.startswith("[bold] round_robin")]
    assert servers[0].startswith("[bold] round_robin 127.0.0.1:8101 up 20")
    assert "[::1]:8102 (backup) up" in servers[1]
    assert "user 0 0 0 0 0 0 0.0ms 0.0ms 0.0ms" in lines
    assert "per_user 0 0" in lines
    assert "app alice 0 0 0 0 0 0 0.0s 0" in lines


def test_a_part_without_rows_is_left_out(document: dict[str, Any]) -> None:
    assert "routes" in shown(document)
    assert "routes" not in shown({**document, "routes": []})


def test_the_command_prints_tables_or_json(
    config: Path, daemon: Callable[[Any], Any], document: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fake = daemon({"ok": True, "status": document})
    assert main(["status", str(config)]) == 0
    assert "edge/web" in capsys.readouterr().out
    assert fake.asked == [{"command": "status"}]


def test_json_is_the_document_itself(
    config: Path, daemon: Callable[[Any], Any], document: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    daemon({"ok": True, "status": document})
    assert main(["status", str(config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == document


def test_without_a_daemon_it_is_1_and_stdout_stays_empty(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json", str(config)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("portway: no daemon runs this configuration")


def test_a_daemon_that_refuses_is_1(
    config: Path, daemon: Callable[[Any], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    daemon({"ok": False, "errors": ["not now"]})
    assert main(["status", str(config)]) == 1
    assert capsys.readouterr().err == "portway: not now\n"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (3 << 40, "3.0 TiB")]
)
def test_amounts_are_for_people(count: int, text: str) -> None:
    assert _bytes(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (200_000, "2d")])
def test_spans_are_for_people(seconds: float, text: str) -> None:
    assert _span(seconds) == text


def test_a_tiers_part_has_its_connections_and_nothing_of_the_others(document: dict[str, Any]) -> None:
    document["flows"] = [{"process": "edge 1/1", "left": 3, "holding": ["tcp web 192.0.2.1:5 on p/127.0.0.1:1"]}]
    lines = shown(part_of(document, "edge"))
    assert "edge 1/1 tcp web 192.0.2.1:5 on p/127.0.0.1:1" in lines
    assert "edge 1/1 … and 2 more" in lines
    assert "edge 1 100 starting 0 0.0s" in lines
    assert not {"routes", "limits", "database pools"} & {*lines}
    assert not [line for line in shown(part_of(document, "pooler")) if line.startswith("edge/web")]
