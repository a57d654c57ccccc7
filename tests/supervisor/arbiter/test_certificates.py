"""Certificates that change on disk: which are taken, which are not, and what the workers are sent."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from supervisor.arbiter.certificates import Certificates
from supervisor.arbiter.roles import Role
from supervisor.arbiter.rows import Rows
from supervisor.ground import cargo
from supervisor.ground.config import CertificateTable, Config, Problem, load_bytes
from supervisor.ground.config.certificates import certificates
from supervisor.ground.orders import Renew
from supervisor.plane import layout
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane
from tests.leftovers import open_files


@attrs.frozen(kw_only=True)
class Tls(CertificateTable):
    def problems(self, config: Any) -> Iterable[Problem]:
        if self.cert.data != self.key.data:
            yield Problem((), "the key does not belong to the certificate")


@attrs.frozen(kw_only=True)
class Table:
    tls: Mapping[str, Tls] = attrs.Factory(dict)


@attrs.define(eq=False)
class FakeLoop:
    functions: list[Callable[[], None]] = attrs.Factory(list)

    def every(self, seconds: float, function: Callable[[], None]) -> None:
        self.functions.append(function)


@attrs.define(eq=False)
class FakeChild:
    role: Role
    outbox: deque[Any] = attrs.Factory(deque)


@attrs.define(eq=False)
class FakeCrew:
    children: dict[int, FakeChild]
    told: list[tuple[str, dict[Path, bytes]]] = attrs.Factory(list)
    full: bool = False

    def tell(self, child: FakeChild, order: object, fds: tuple[int, ...]) -> None:
        assert isinstance(order, Renew)
        self.told.append((child.role.name, cargo.unpack(fds[0])))
        if self.full:
            child.outbox.append((order, fds))


@attrs.define(eq=False)
class FakeReloading:
    config: Config
    active: bool = False

    def renewed(self, config: Config) -> None:
        self.config = config


class Log(list[tuple[str, dict[str, Any]]]):
    def info(self, event: str, **fields: Any) -> None:
        self.append((event, fields))

    warning = error = info


@attrs.define(eq=False)
class Scene:
    folder: Path
    crew: FakeCrew
    reloading: FakeReloading
    plane: Plane
    log: Log
    certificates: Certificates

    def write(self, name: str, text: str, part: str = "") -> None:
        for suffix in (part,) if part else ("pem", "key"):
            path = self.folder / f"{name}.{suffix}"
            path.with_suffix(".new").write_text(text)
            path.with_suffix(".new").rename(path)

    def running(self) -> list[bytes]:
        return [table.cert.data for _, table in certificates(self.reloading.config)]

    def counted(self) -> tuple[int, int]:
        row = self.plane.row(Kind.TIER, "supervisor")
        return tuple(
            self.plane.total(Kind.TIER, row, field)
            for field in (layout.Tier.CERTIFICATES_RENEWED, layout.Tier.CERTIFICATES_REFUSED)
        )  # type: ignore[return-value]

    def events(self) -> list[str]:
        events = [event for event, _ in self.log]
        self.log.clear()
        return events


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    for name in ("a", "b"):
        for suffix in ("pem", "key"):
            (tmp_path / f"{name}.{suffix}").write_text(name)
    text = '[web.tls]\na = { cert = "a.pem", key = "a.key" }\n[sql.tls]\nb = { cert = "b.pem", key = "b.key" }\n'
    config = load_bytes(text.encode(), "x.toml", tmp_path, {"web": Table, "sql": Table})
    children = [FakeChild(Role(name, number)) for name, number in (("web", 1), ("web", 2), ("sql", 1), ("prober", 0))]
    crew: Any = FakeCrew(dict(enumerate(children)))
    plane = Plane.create()
    Rows(plane).allocate([(Kind.TIER, "supervisor")])
    loop: Any = FakeLoop()
    reloading: Any = FakeReloading(config)
    log: Any = Log()
    before = open_files()
    yield Scene(tmp_path, crew, reloading, plane, log, Certificates(loop, plane, crew, reloading, log))
    for child in children:
        child.outbox.clear()
    loop.functions[0]()
    assert open_files() <= before
    plane.close()


def test_nothing_changed_is_nothing_said(scene: Scene) -> None:
    for _ in range(2):
        scene.certificates.look()
    (scene.folder / "a.pem").touch()
    scene.certificates.look()
    assert scene.crew.told == []
    assert scene.log == []


def test_a_good_pair_goes_to_the_tier_that_uses_it_and_to_who_is_born_later(scene: Scene) -> None:
    scene.certificates.look()
    scene.write("a", "new")
    scene.certificates.look()
    files = {scene.folder / "a.pem": b"new", scene.folder / "a.key": b"new"}
    assert scene.crew.told == [("web", files), ("web", files)]
    assert scene.running() == [b"new", b"b"]
    assert scene.counted() == (1, 0)
    assert scene.events() == ["certificate renewed"]
    scene.certificates.look()
    assert len(scene.crew.told) == 2


def test_a_pair_that_changed_before_the_first_look_is_noticed(scene: Scene) -> None:
    scene.write("b", "new")
    scene.certificates.look()
    assert [name for name, _ in scene.crew.told] == ["sql"]


def test_half_a_pair_waits_for_its_other_half_in_silence(scene: Scene) -> None:
    scene.certificates.look()
    scene.write("a", "new", "pem")
    scene.certificates.look()
    assert scene.log == []
    scene.write("a", "new", "key")
    scene.certificates.look()
    assert scene.running() == [b"new", b"b"]
    assert scene.counted() == (1, 0)


def test_a_pair_that_stays_bad_is_told_once_and_the_old_one_stays(scene: Scene) -> None:
    scene.certificates.look()
    scene.write("a", "new", "pem")
    scene.write("b", "new")
    for _ in range(4):
        scene.certificates.look()
    assert scene.running() == [b"a", b"new"], "a good one beside it is taken"
    assert scene.counted() == (1, 1)
    (fields,) = [fields for event, fields in scene.log if event.startswith("certificate not taken")]
    assert fields["reason"] == "the key does not belong to the certificate"
    scene.write("a", "new", "key")
    scene.certificates.look()
    assert scene.running() == [b"new", b"new"]


def test_a_file_that_is_gone_is_a_bad_pair(scene: Scene) -> None:
    scene.certificates.look()
    (scene.folder / "a.key").unlink()
    for _ in range(3):
        scene.certificates.look()
    ((_, fields),) = scene.log
    assert "a.key cannot be read: No such file" in fields["reason"]
    assert scene.running() == [b"a", b"b"]


def test_a_response_that_changes_alone_is_sent_with_its_pair(scene: Scene) -> None:
    (scene.folder / "a.ocsp").write_text("old")
    text = '[web.tls]\na = { cert = "a.pem", key = "a.key", ocsp = "a.ocsp" }\n'
    scene.reloading.config = load_bytes(text.encode(), "x.toml", scene.folder, {"web": Table, "sql": Table})
    scene.certificates.look()
    assert scene.crew.told == []
    scene.write("a", "new", "ocsp")
    scene.certificates.look()
    files = {scene.folder / "a.pem": b"a", scene.folder / "a.key": b"a", scene.folder / "a.ocsp": b"new"}
    assert scene.crew.told == [("web", files), ("web", files)]
    ((_, table),) = certificates(scene.reloading.config)
    assert table.ocsp is not None
    assert table.ocsp.data == b"new"
    assert scene.counted() == (1, 0)


def test_while_a_reload_is_under_way_nothing_else_changes(scene: Scene) -> None:
    scene.write("a", "new")
    scene.reloading.active = True
    scene.certificates.look()
    assert scene.running() == [b"a", b"b"]
    scene.reloading.active = False
    scene.certificates.look()
    assert scene.running() == [b"new", b"b"]


def test_what_a_full_mailbox_has_not_taken_stays_open_until_it_has(scene: Scene) -> None:
    scene.certificates.look()
    scene.crew.full = True
    scene.write("a", "new")
    scene.certificates.look()
    ((_, fds),) = scene.crew.children[0].outbox
    assert cargo.unpack(fds[0])
    for child in scene.crew.children.values():
        child.outbox.clear()
    scene.certificates.look()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fds[0])
