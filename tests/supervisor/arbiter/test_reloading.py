"""A reload, carried out, over children that only remember their orders: what is opened, sent, given back."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from supervisor.arbiter.access import CannotLog
from supervisor.arbiter.children import Child
from supervisor.arbiter.listeners import Listeners
from supervisor.arbiter.reload import PATIENCE, SWAP_PATIENCE
from supervisor.arbiter.reloading import Committed, Reloading, keys_of
from supervisor.arbiter.roles import Role
from supervisor.arbiter.rows import Rows, rows_of
from supervisor.ground.config import Bind, Config, load_bytes
from supervisor.ground.log import logger
from supervisor.ground.orders import Abort, Commit, Prepare, Prepared, Refused, Sockets, Swapped
from supervisor.ground.tier import ListenerSpec, Tier
from supervisor.plane import layout
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane
from tests.leftovers import open_files


@attrs.frozen(kw_only=True)
class Listener:
    bind: Bind


@attrs.frozen(kw_only=True)
class Table:
    listeners: Mapping[str, Listener] = attrs.Factory(dict)


def specs(config: Config) -> list[ListenerSpec]:
    return [ListenerSpec(name, table.bind) for name, table in config.tier("web").listeners.items()]


def nothing(worker: Any) -> Any: ...


TIER = Tier(name="web", table=Table, listeners=specs, rows=lambda config: (), start=nothing)
OTHER = Tier(name="other", table=Table, listeners=lambda config: (), rows=lambda config: (), start=nothing)


def config(text: str) -> Config:
    return load_bytes(text.encode(), "x.toml", Path("/"), {"web": Table, "other": Table})


@attrs.define(eq=False)
class FakeLoop:
    timers: list[tuple[float, Callable[[], None]]] = attrs.Factory(list)

    def after(self, seconds: float, function: Callable[[], None]) -> Any:
        entry = (seconds, function)
        self.timers.append(entry)

        @attrs.define
        class Timer:
            cancel: Callable[[], None]

        return Timer(lambda: self.timers.remove(entry) if entry in self.timers else None)

    def pass_time(self, seconds: float) -> None:
        due = [entry for entry in self.timers if entry[0] <= seconds]
        self.timers = [entry for entry in self.timers if entry not in due]
        for _, function in due:
            function()


@attrs.define(eq=False)
class FakeCrew:
    children: dict[int, Child]
    paused: bool = False
    filled: int = 0
    told: list[tuple[str, object, tuple[int, ...]]] = attrs.Factory(list)
    hears: Callable[[object], None] = lambda order: None

    def tell(self, child: Child, order: object, fds: tuple[int, ...] = ()) -> None:
        self.told.append((child.title, order, fds))
        self.hears(order)

    def fill(self) -> None:
        self.filled += 1


@attrs.define(eq=False)
class Scene:
    loop: FakeLoop
    crew: FakeCrew
    plane: Plane
    listeners: Listeners
    rows: Rows
    reloading: Reloading
    file: list[Any]  # what `load` gives or raises
    committed: list[Committed]
    answers: list[Mapping[str, Any]] = attrs.Factory(list)

    def ask(self) -> None:
        self.reloading.ask(self.answers.append)

    def orders(self, title: str) -> list[object]:
        return [order for name, order, _ in self.crew.told if name == title]

    def child(self, title: str) -> Child:
        return next(child for child in self.crew.children.values() if child.title == title)

    def everybody(self, answer: str, message: Any) -> None:
        for child in list(self.crew.children.values()):
            getattr(self.reloading, answer)(child, message)


BASE = '[pools.p]\nservers = ["127.0.0.1:1"]\n'
MORE = BASE + '[pools.q]\nservers = ["127.0.0.1:2"]\n[web.listeners.a]\nbind = "127.0.0.1:0"\n'


@pytest.fixture
def scene() -> Iterator[Scene]:
    plane, listeners, old = Plane.create(), Listeners(slots=8), config(BASE)
    plane.processes.enter_supervisor(os.getpid())
    plane.generation = 1
    rows = Rows(plane)
    rows.allocate(rows_of(old, (TIER, OTHER)))
    children = {}
    for pid, name in ((11, "web"), (12, "other")):
        column = plane.claim_column(name, 1)
        children[pid] = Child(Role(name, 1), f"{name} 1/1", pid, -1, column, plane.incarnation(column), 0.0)
    loop: Any = FakeLoop()
    crew: Any = FakeCrew(children)
    file: list[Any] = [old]
    committed: list[Committed] = []

    def load() -> Config:
        if isinstance(file[0], Exception):
            raise file[0]
        loaded: Config = file[0]
        return loaded

    def make_log(new: Config) -> None:
        if new.supervisor.pop == "no log":
            raise CannotLog(2, "access log x can't be written: No such file or directory")

    reloading = Reloading(
        loop=loop,
        plane=plane,
        crew=crew,
        listeners=listeners,
        rows=rows,
        tiers=(TIER, OTHER),
        log=logger(),
        load=load,
        config=old,
        shown_path=Path("x.toml"),
        make_log=make_log,
        committed=committed.append,
    )
    yield Scene(loop, crew, plane, listeners, rows, reloading, file, committed)
    reloading.stop()
    listeners.close_all()
    plane.close()


def test_a_good_file_goes_its_whole_way(scene: Scene) -> None:
    scene.file[0] = new = config(MORE)
    scene.ask()
    assert scene.crew.paused, "who is born meanwhile would be of the old configuration"
    assert scene.orders("web 1/1") == [Sockets(2, "a", 0), Prepare(2)]
    assert scene.orders("other 1/1") == [Prepare(2)], "no sockets that are not its tier's"
    assert "q" in scene.plane.names(Kind.POOL), "rows stand before anybody looks them up"
    scene.everybody("prepared", Prepared(2))
    assert scene.plane.generation == 2
    assert scene.orders("other 1/1")[-1] == Commit(2)
    assert not scene.crew.paused
    assert scene.reloading.config is new
    assert list(scene.listeners.of("web")) == ["a"]
    assert [commit.new for commit in scene.committed] == [new]
    assert scene.answers == [], "not before all have swapped"
    scene.everybody("swapped", Swapped(2))
    (answer,) = scene.answers
    assert (answer["ok"], answer["changed"], answer["errors"]) == (True, ["pools.q", "web.listeners.a"], [])
    assert (answer["processes"], len(answer["acknowledged"])) == (2, 2)


def test_who_commits_finds_the_newcomer_starting_slowly(scene: Scene) -> None:
    """A worker looks once, as it swaps: a mark that comes later than its order would be seen with the next change."""
    scene.file[0] = config(BASE.replace('"127.0.0.1:1"', '"127.0.0.1:1", "127.0.0.1:2"'))
    seen: list[int] = []

    def hears(order: object) -> None:
        if isinstance(order, Commit):
            row = scene.plane.row(Kind.SERVER, "p/127.0.0.1:2")
            seen.append(scene.plane.cells[scene.plane.state(Kind.SERVER, row) + layout.ServerState.ADMIN_BACK])

    scene.crew.hears = hears
    scene.ask()
    scene.everybody("prepared", Prepared(2))
    assert len(seen) == 2
    assert all(seen)


def test_a_removed_listener_is_named_to_its_tier_and_closed(scene: Scene) -> None:
    scene.listeners.keep(scene.listeners.open(keys_of(config(MORE), (TIER,))))
    scene.reloading.config = config(MORE)
    scene.ask()
    assert scene.orders("web 1/1") == [Prepare(2, ("a",))]
    assert scene.orders("other 1/1") == [Prepare(2, ())]
    scene.everybody("prepared", Prepared(2))
    assert scene.listeners.of("web") == {}


@pytest.mark.parametrize("how", ["refused", "died", "late", "stopped"])
def test_what_comes_to_nothing_leaves_nothing(scene: Scene, how: str) -> None:
    before = open_files()
    scene.file[0] = config(MORE)
    scene.ask()
    web = scene.child("web 1/1")
    match how:
        case "refused":
            scene.reloading.refused(web, Refused(2, ("not with me",)))
        case "died":
            del scene.crew.children[11]
            scene.reloading.died(web)
        case "late":
            scene.loop.pass_time(PATIENCE)
        case "stopped":
            scene.reloading.stop()
    assert scene.orders("other 1/1")[-1] == Abort(2)
    assert scene.plane.generation == 1
    assert scene.reloading.config.pools.keys() == {"p"}
    assert open_files() <= before
    assert (scene.crew.paused, scene.crew.filled) == (False, 1)
    assert [answer["ok"] for answer in scene.answers] == [False]
    scene.rows.sweep(1e9)
    assert scene.plane.names(Kind.POOL).keys() == {"p"}, "and in time the rows go"


@pytest.mark.parametrize(
    ("file", "error"),
    [
        (RuntimeError("a fault of ours"), "RuntimeError: a fault of ours"),
        (config('[supervisor]\npop = "no log"\n'), "access log x can't be written: No such file or directory"),
        (config('[supervisor]\nuser = "root"\n'), "x.toml:2: supervisor.user: can't be changed by a reload"),
        (
            config('[web.listeners.a]\nbind = "192.0.2.1:1"\n'),
            "web/a: can't listen on 192.0.2.1:1: this machine has no such address",
        ),
    ],
)
def test_what_fails_before_anybody_is_asked_asks_nobody(scene: Scene, file: Any, error: str) -> None:
    before = open_files()
    scene.file[0] = file
    scene.ask()
    assert scene.answers[0]["errors"][0].startswith(error)
    assert scene.crew.told == []
    assert open_files() <= before


def test_a_lost_answer_is_found_in_the_plane(scene: Scene) -> None:
    scene.file[0] = config(MORE)
    scene.ask()
    for child in scene.crew.children.values():
        scene.plane.acknowledge(child.column, 2)
    scene.reloading.look()
    assert scene.plane.generation == 2
    scene.loop.pass_time(SWAP_PATIENCE)
    assert scene.answers[0]["ok"]


def test_an_answer_about_an_earlier_generation_means_nothing(scene: Scene) -> None:
    scene.file[0] = config(MORE)
    scene.ask()
    scene.everybody("prepared", Prepared(1))
    scene.everybody("refused", Refused(1, ("late",)))
    assert scene.plane.generation == 1
    assert scene.answers == []


def test_an_admin_elsewhere_gets_a_socket_there(scene: Scene) -> None:
    scene.file[0] = config(BASE + '[supervisor]\nadmin = "127.0.0.1:0"\n')
    scene.ask()
    scene.everybody("prepared", Prepared(2))
    (commit,) = scene.committed
    assert isinstance(commit.admin, socket.socket)
    commit.admin.close()


def test_reloads_are_counted(scene: Scene) -> None:
    scene.ask()
    scene.file[0] = RuntimeError("no")
    scene.ask()
    row = scene.plane.row(Kind.TIER, "supervisor")
    assert scene.plane.total(Kind.TIER, row, layout.Tier.RELOADS) == 1
    assert scene.plane.total(Kind.TIER, row, layout.Tier.RELOADS_REFUSED) == 1
