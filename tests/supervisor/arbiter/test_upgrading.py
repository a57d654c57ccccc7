"""An upgrade up to the exec, with rehearsals that are small programs, and from there on with what another left."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from supervisor.arbiter import leap, upgrading
from supervisor.arbiter.estate import Estate, HeldListener
from supervisor.arbiter.loop import Loop
from supervisor.arbiter.notify import Notifier
from supervisor.arbiter.upgrading import Rehearsal, Upgrading
from supervisor.ground.log import logger
from supervisor.plane import layout
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane
from tests.leftovers import open_files
from tests.supervisor.arbiter.faults import stumble

# A rehearsal: it finds the socket for its report where the real one does.
FIRST = """
import array, json, os, socket, sys
report = socket.socket(fileno=int(os.environ["PORTWAY_UPGRADE"].split(":")[2]))
def say(message, *fds):
    socket.send_fds(report, [json.dumps(message).encode()], list(fds))
"""
CONFIG = 'say({"config": True}, os.memfd_create("config"))\n'


@attrs.define(eq=False)
class FakeReloading:
    under_way: bool = False
    postponed: list[Any] | None = None
    held: bool = False

    def hold(self) -> None:
        self.held = True

    def release(self) -> None:
        self.held = False


@attrs.define(eq=False)
class FakeCrew:
    wanted: Sequence[str] = ("web 1", "web 2")
    whole: bool = False
    left: list[Any] = attrs.Factory(list)

    def complete(self) -> bool:
        return self.whole

    def predecessors(self) -> list[Any]:
        return self.left


@attrs.define(eq=False)
class Scene:
    loop: Loop
    plane: Plane
    crew: FakeCrew
    reloading: FakeReloading
    upgrading: Upgrading
    answers: list[Mapping[str, Any]] = attrs.Factory(list)
    started: bool = True
    running: bool = True

    def upgrade(self, code: str, *, answers: int = 1, seconds: float = 20.0) -> Mapping[str, Any]:
        """Ask for one whose rehearsal is this program, and wait for the answer."""
        self.upgrading.command = ("-c", FIRST + code)
        self.upgrading.ask(self.answers.append)
        return self.answered(answers, seconds)

    def answered(self, count: int = 1, seconds: float = 20.0) -> Mapping[str, Any]:
        end = time.monotonic() + seconds

        def look() -> None:
            if len(self.answers) >= count or time.monotonic() > end:
                self.loop.stop(0)
            else:
                self.loop.after(0.005, look)

        look()
        self.loop.run()
        assert len(self.answers) == count, self.answers
        return self.answers[-1]

    def counted(self, field: int) -> int:
        return self.plane.total(Kind.TIER, self.plane.row(Kind.TIER, "supervisor"), field)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    loop, plane, crew, reloading = Loop(stumble), Plane.create(), FakeCrew(), FakeReloading()
    plane.processes.enter_supervisor(os.getpid())
    monkeypatch.setattr(leap, "own_program", lambda command: ["the program"])

    def leave() -> Estate:
        return Estate(
            pid=os.getpid(), command=("x",), generation=1, plane=plane.fd, wire=(), control=-1, control_path="/c",
            admin=None, admin_bind=None, slots=8, listeners=(),
        )  # fmt: skip

    any_crew: Any = crew
    any_reloading: Any = reloading
    made = Upgrading(
        loop=loop, plane=plane, crew=any_crew, reloading=any_reloading, log=logger(), notifier=Notifier(),
        command=("x",), leave=leave, descriptor=lambda reply: None, started=lambda: scene.started,
        running=lambda: scene.running,
    )  # fmt: skip
    scene = Scene(loop, plane, crew, reloading, made)
    yield scene
    loop.close()
    plane.close()


# -- who may ask


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"running": False}, "the daemon is ending"), ({"started": False}, "the daemon is starting")],
)
def test_not_at_any_time(scene: Scene, change: dict[str, bool], reason: str) -> None:
    for name, value in change.items():
        setattr(scene, name, value)
    scene.upgrading.ask(scene.answers.append)
    assert scene.answers == [{"ok": False, "errors": [reason], "code": 1}]
    assert not scene.reloading.held


def test_only_one_at_a_time_and_the_end_of_the_daemon_ends_it(scene: Scene) -> None:
    scene.upgrading.command = ("-c", "import time; time.sleep(60)")
    scene.upgrading.ask(scene.answers.append)
    scene.upgrading.ask(scene.answers.append)
    assert scene.answers == [{"ok": False, "errors": ["an upgrade is under way"], "code": 1}]
    scene.upgrading.stop()
    assert scene.answers[1]["errors"] == ["the daemon is ending"]
    assert not scene.reloading.held


def test_a_reload_under_way_is_waited_for(scene: Scene) -> None:
    scene.reloading.under_way = True
    scene.loop.after(0.05, lambda: setattr(scene.reloading, "under_way", False))
    answer = scene.upgrade('say({"errors": ["no"], "code": 2})')
    assert (answer["errors"], answer["code"]) == (["no"], 2)


def test_how_the_daemon_was_started_must_be_known(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(command: Sequence[str]) -> list[str]:
        raise ValueError("can't tell how this daemon was started")

    monkeypatch.setattr(leap, "own_program", unknown)
    assert scene.upgrade("")["errors"] == ["can't tell how this daemon was started"]


# -- rehearsals that come to nothing

REFUSED = {
    "with reasons": ('say({"errors": ["a.toml:1: bad", "worse"], "code": 2})', 2, "a.toml:1: bad"),
    "without a word": ("os._exit(3)", 1, "the new code ended before it had been rehearsed"),
    "with an exception": ("raise RuntimeError('half installed')", 1, "rehearsed: RuntimeError: half installed"),
    "with nonsense": ("report.send(b'nonsense')", 1, "the rehearsal can't be understood: "),
    "with a listener of nonsense": ('say({"listener": {"tier": 1}})', 1, "the rehearsal can't be understood: "),
    "without a configuration": ('say({"done": True})', 1, "the new code ended before it had been rehearsed"),
    "with a configuration and no last word": (CONFIG, 1, "the new code ended before it had been rehearsed"),
    "without the descriptor": ('say({"config": True})', 1, "the rehearsal can't be understood: "),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_rehearsal_that_ends(scene: Scene, what: str) -> None:
    code, exit_code, reason = REFUSED[what]
    before = open_files()
    answer = scene.upgrade(code)
    assert (answer["ok"], answer["code"]) == (False, exit_code)
    assert reason in answer["errors"][0]
    assert scene.counted(layout.Tier.UPGRADES_REFUSED) == 1
    assert not scene.reloading.held
    assert open_files() <= before
    assert scene.upgrading.foreign() == []


def test_a_rehearsal_that_takes_too_long_is_killed_with_all_that_it_has_started(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(upgrading, "PATIENCE", 0.5)
    os.mkfifo(tmp_path / "alive")
    read = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    before = open_files()
    answer = scene.upgrade(f"import time; alive = open({str(tmp_path / 'alive')!r}, 'w'); os.fork(); time.sleep(60)")
    assert answer["errors"] == ["the rehearsal took longer than 0.5s"]
    assert open_files() <= before
    os.set_blocking(read, True)
    assert os.read(read, 1) == b"", "the end of the file comes when nobody of them is left"
    os.close(read)


# -- one that goes well


LISTENER = attrs.asdict(HeldListener("web", "a", "127.0.0.1", 1, "TCP", 10, ()))


def test_the_leap_takes_along_what_the_rehearsal_has_made(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    leaps: list[tuple[Sequence[str], Estate]] = []

    def fail(program: Sequence[str], document: int, descriptors: Any) -> None:
        from supervisor.arbiter.estate import read

        estate = read(document)
        leaps.append((program, estate))
        assert set(estate.descriptors()) == set(descriptors)
        assert estate.config is not None
        os.fstat(estate.config)
        raise OSError(8, "Exec format error")

    monkeypatch.setattr(leap, "leap", fail)
    before = open_files()
    code = f"""
with socket.socket() as one, socket.socket() as two, socket.socket() as admin:
    say({{"listener": {LISTENER!r}}}, one.fileno(), two.fileno())
    say({{"admin": "127.0.0.1:9"}}, admin.fileno())
{CONFIG}
say({{"done": True}})
"""
    answer = scene.upgrade(code)
    ((program, estate),) = leaps
    assert program == ["the program"]
    assert [(listener.key.row, len(listener.sockets)) for listener in estate.listeners] == [("web/a", 2)]
    assert estate.admin_bind == "127.0.0.1:9"
    # An exec that fails leaves everything as it was.
    assert (answer["ok"], answer["errors"], answer["code"]) == (False, ["exec: Exec format error"], 1)
    assert open_files() <= before


def test_a_child_that_is_born_meanwhile_must_not_hold_the_rehearsal(scene: Scene) -> None:
    scene.upgrading.command = ("-c", "import time; time.sleep(60)")
    scene.upgrading.ask(scene.answers.append)
    before = open_files()
    assert len(scene.upgrading.foreign()) == 2
    scene.upgrading.stop()
    assert open_files() < before


# -- after the exec


def test_whoever_asked_is_told_when_the_successors_serve_alone(scene: Scene) -> None:
    scene.crew.left = [SimpleNamespace(title="web 1")]
    scene.upgrading.resume([scene.answers.append])
    assert scene.reloading.held
    scene.crew.whole = True
    scene.upgrading.look()
    assert scene.answers == [], "a predecessor still serves"
    scene.crew.left = []
    scene.upgrading.look()
    scene.upgrading.look()
    assert scene.answers == [{"ok": True, "processes": 2, "errors": []}]
    assert not scene.reloading.held
    assert scene.counted(layout.Tier.UPGRADES) == 1


def test_successors_that_are_late_are_told_once_and_reloads_wait_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrading, "LATE", 0.01)
    scene.crew.left = [SimpleNamespace(title="web 1")]
    scene.upgrading.resume([scene.answers.append])
    answer = scene.answered()
    assert answer["code"] == 1
    assert "these have no successor yet and serve on: ['web 1']" in answer["errors"][0]
    assert scene.reloading.held
    scene.crew.whole, scene.crew.left = True, []
    scene.upgrading.look()
    assert not scene.reloading.held
    assert len(scene.answers) == 1


# -- its messages


def rehearsal() -> Rehearsal:
    nothing: Any = None
    return Rehearsal(nothing, nothing, -1, nothing)


def test_messages_are_taken_one_by_one() -> None:
    taken = rehearsal()
    taken.take({"listener": LISTENER}, [5, 6])
    taken.take({"admin": "127.0.0.1:9"}, [7])
    taken.take({"config": True}, [8])
    taken.take({"later": "more"}, [])
    assert taken.descriptors() == [5, 6, 7, 8]
    assert not taken.done
    taken.take({"done": True}, [])
    assert taken.done
    taken.take({"errors": ["x", 1], "code": 2}, [])
    assert (taken.reasons, taken.code) == (["x", "1"], 2)
