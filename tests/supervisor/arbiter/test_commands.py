"""What the control socket can be asked, beside a reload."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from supervisor.arbiter.commands import Commands
from supervisor.arbiter.rows import Rows, rows_of
from supervisor.ground.config import Config, load_bytes
from supervisor.ground.log import logger
from supervisor.plane.layout import Admin, Kind, PoolState, ServerState
from supervisor.plane.memory import Plane

CONFIG = load_bytes(b'[pools.p]\nservers = ["127.0.0.1:1", "127.0.0.1:2"]\n', "x.toml", Path("/"), {})


@attrs.define(eq=False)
class FakeReloading:
    config: Config = CONFIG
    asked: list[Any] = attrs.Factory(list)

    def ask(self, reply: Any) -> None:
        self.asked.append(reply)


class FakeHoldings:
    def ask(self, told: Any, tier: str | None = None) -> None:
        told([] if tier is None else [{"process": f"{tier} 1/1", "left": 0, "holding": []}])


@pytest.fixture
def plane() -> Iterator[Plane]:
    plane = Plane.create()
    Rows(plane).allocate(rows_of(CONFIG, ()))
    yield plane
    plane.close()


@pytest.fixture
def commands(plane: Plane) -> Commands:
    reloading: Any = FakeReloading()
    nobody: Any = FakeHoldings()
    return Commands(plane, reloading, logger(), nobody, lambda request, reply: reply({"ok": True, "upgraded": True}))


def ask(commands: Commands, name: str, **request: Any) -> Mapping[str, Any]:
    answers: list[Mapping[str, Any]] = []
    commands.table()[name](request, answers.append)
    (answer,) = answers
    return answer


@pytest.mark.parametrize(
    ("state", "value"), [("draining", Admin.DRAINING), ("maintenance", Admin.MAINTENANCE), ("normal", Admin.NORMAL)]
)
def test_a_server_is_set_by_hand_and_everybody_looks_again(
    commands: Commands, plane: Plane, state: str, value: int
) -> None:
    server = plane.state(Kind.SERVER, plane.row(Kind.SERVER, "p/127.0.0.1:2"))
    epoch = plane.state(Kind.POOL, plane.row(Kind.POOL, "p")) + PoolState.EPOCH
    plane.cells[server + ServerState.ADMIN] = 9
    before = plane.cells[epoch]
    assert ask(commands, "drain", server="p/127.0.0.1:2", state=state)["ok"]
    assert plane.cells[server + ServerState.ADMIN] == value
    assert plane.cells[server + ServerState.ADMIN_SINCE] > 0
    assert plane.cells[epoch] != before


def test_who_set_a_server_by_hand_stands_in_the_status(commands: Commands, plane: Plane) -> None:
    assert ask(commands, "drain", server="p/127.0.0.1:2", uid=0)["ok"]
    drained, other = ask(commands, "status")["status"]["pools"][0]["servers"][::-1]
    assert (drained["state"], drained["set_by"], drained["cause"]) == ("draining", "root", "set by root")
    assert (other["state"], other["set_by"], other["cause"]) == ("up", None, "")
    assert ask(commands, "drain", server="p/127.0.0.1:2", uid=4_000_000, state="maintenance")["ok"]
    assert ask(commands, "status")["status"]["pools"][0]["servers"][1]["set_by"] == "4000000"


def test_draining_is_what_is_meant_without_a_word(commands: Commands, plane: Plane) -> None:
    assert ask(commands, "drain", server="p/127.0.0.1:1")["state"] == "draining"


def test_an_unknown_server_or_state_is_refused_with_a_suggestion(commands: Commands) -> None:
    assert ask(commands, "drain", server="p/127.0.0.1:3")["errors"] == [
        'unknown server "p/127.0.0.1:3"; did you mean "p/127.0.0.1:2"?'
    ]
    assert ask(commands, "drain", server="p/127.0.0.1:1", state="drain")["errors"][0].startswith("state: ")


def test_the_status_is_the_whole_document(commands: Commands) -> None:
    answer = ask(commands, "status")
    assert [pool["name"] for pool in answer["status"]["pools"]] == ["p"]


def test_a_reload_answers_when_it_has_ended(commands: Commands) -> None:
    def reply(answer: Mapping[str, Any]) -> None: ...

    commands.table()["reload"]({}, reply)
    assert commands.reloading.asked == [reply]  # a FakeReloading


def test_an_upgrade_is_asked_for_with_the_reply(commands: Commands) -> None:
    assert ask(commands, "upgrade") == {"ok": True, "upgraded": True}


def test_the_status_of_a_tier_has_what_it_carries(commands: Commands) -> None:
    commands.reloading.config = attrs.evolve(CONFIG, tiers={"edge": None})  # type: ignore[misc]
    answer = ask(commands, "status", tier="edge")
    assert answer["status"]["flows"][0]["process"] == "edge 1/1"
    assert "holding" not in answer["status"]
    refused = ask(commands, "status", tier="egde")
    assert not refused["ok"]
    assert 'did you mean "edge"' in refused["errors"][0]
