"""Being transparent: what this machine must have for it is looked at before anything is served."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edge import transparent
from edge.config import EdgeTable
from edge.endings import NoServer
from supervisor.ground.config import Config, load_bytes
from tests.edge.house import House

LOCAL = {"type": "local", "dst": "127.0.0.1", "table": "local"}
EVERYTHING = {"type": "local", "dst": "default", "dev": "lo", "table": "100"}
ORDINARY = [{"priority": 0, "src": "all", "table": "local"}, {"priority": 32766, "src": "all", "table": "main"}]
MARKED = {"priority": 100, "src": "all", "fwmark": "0x1", "table": "100"}


def configuration(listener: str = "transparent = true") -> Config:
    text = f'[pools.a]\nservers = ["127.0.0.1:1"]\n[edge.listeners.l]\nbind = "127.0.0.1:80"\npool = "a"\n{listener}\n'
    return load_bytes(text.encode(), "test.toml", Path("/nonexistent"), {"edge": EdgeTable})


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `ip` says here; the capability is there."""
    told: dict[str, Any] = {"route": [LOCAL, EVERYTHING], "rule": [*ORDINARY, MARKED]}

    def run(command: list[str], **more: Any) -> Any:
        return subprocess.CompletedProcess(command, 0, json.dumps(told[command[3]]).encode())

    monkeypatch.setattr(transparent.subprocess, "run", run)
    monkeypatch.setattr(transparent.shutil, "which", lambda program, path: program)
    monkeypatch.setattr(transparent, "_no_capability", lambda family: "")
    return told


def reasons(config: Config) -> list[str]:
    return [problem.message for problem in transparent.unable(config)]


def test_with_capability_and_route_nothing_is_missing(machine: dict[str, Any]) -> None:
    assert reasons(configuration()) == []
    assert transparent.wanted(configuration())


@pytest.mark.parametrize("part", ["route", "rule"])
def test_without_a_way_for_the_answers_it_says_how_to_make_one(machine: dict[str, Any], part: str) -> None:
    machine[part].pop()
    (reason,) = reasons(configuration())
    assert "ip -4 rule add fwmark 1 lookup 100; ip -4 route add local 0.0.0.0/0 dev lo table 100" in reason


def test_a_reload_is_refused_with_the_reason(machine: dict[str, Any]) -> None:
    house = House()
    machine["rule"].pop()
    with pytest.raises(ValueError, match=r"edge\.listeners\.l\.transparent: the servers' answers"):
        house.reload('pool = "a"\ntransparent = true')
    machine["rule"].append(MARKED)
    house.reload('pool = "a"\ntransparent = true')
    house.close()


def test_where_nothing_is_transparent_nothing_is_asked(machine: dict[str, Any]) -> None:
    machine.clear()
    assert reasons(configuration("")) == []
    assert not transparent.wanted(configuration(""))


def test_without_the_capability_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    class Denied(socket.socket):
        def setsockopt(self, *option: Any) -> None:
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(transparent.socket, "socket", Denied)
    (reason,) = reasons(configuration())
    assert reason == "not allowed here (Operation not permitted): it needs CAP_NET_ADMIN or CAP_NET_RAW"


def test_a_client_of_another_family_gets_no_server() -> None:
    with pytest.raises(NoServer):
        transparent.from_client(("2001:db8::1", 5), socket.AF_INET)
