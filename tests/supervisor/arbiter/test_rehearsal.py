"""The rehearsal: what it says to the running supervisor, and that it leaves nothing behind, whatever is wrong."""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import attrs
import pytest
import trio

from supervisor.arbiter import rehearsal as module
from supervisor.arbiter.estate import Estate, write
from supervisor.arbiter.listeners import Listeners
from supervisor.ground import cargo, privileges
from supervisor.ground.config import Bind, Config, load_bytes
from supervisor.ground.service import ServiceRuntime
from supervisor.ground.tier import ListenerSpec, Tier, Worker
from supervisor.plane import layout
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane
from tests.leftovers import open_files

TEXT = '[web.listeners.a]\nbind = "127.0.0.1:0"\n'


@attrs.frozen(kw_only=True)
class Listener:
    bind: Bind


@attrs.frozen(kw_only=True)
class Table:
    listeners: Mapping[str, Listener] = attrs.Factory(dict)


def specs(config: Config) -> list[ListenerSpec]:
    return [ListenerSpec(name, table.bind) for name, table in config.tier("web").listeners.items()]


async def idle(worker: Worker) -> None:
    await trio.sleep_forever()


def well(worker: Worker) -> Any:
    return ServiceRuntime(worker, idle)


def tier(start: Callable[[Worker], Any] = well) -> Tier:
    return Tier(name="web", table=Table, listeners=specs, rows=lambda config: (), start=start)


@attrs.define(eq=False)
class Stage:
    """A running supervisor, as far as a rehearsal can see it."""

    folder: Path
    plane: Plane
    said: list[tuple[dict[str, Any], int]] = attrs.Factory(list)  # messages, and how many descriptors came with each
    config: Any = None

    def estate(self, **changes: Any) -> Estate:
        whole = Estate(
            pid=os.getpid(), command=("x",), generation=1, plane=os.dup(self.plane.fd), wire=(), control=-1,
            control_path=str(self.folder / "portway.sock"), admin=None, admin_bind=None, slots=8, listeners=(),
        )  # fmt: skip
        return attrs.evolve(whole, **changes)

    def rehearse(self, text: str = TEXT, start: Callable[[Worker], Any] = well, **changes: Any) -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        estate = self.estate(**changes)
        document = write(estate)

        def load() -> Config:
            return load_bytes(text.encode(), "x.toml", self.folder, {"web": Table})

        try:
            return module.rehearse(Path("x.toml"), [tier(start)], load, document, theirs.detach())
        finally:
            os.close(document)
            self.listen(ours)

    def listen(self, ours: socket.socket) -> None:
        ours.setblocking(False)
        with ours:
            while True:
                try:
                    data, ancillary, _, _ = ours.recvmsg(1 << 18, socket.CMSG_SPACE(4 * 64))
                except BlockingIOError:
                    return
                if not data:
                    return
                fds = array.array("i")
                for _, _, content in ancillary:
                    fds.frombytes(content)
                words = json.loads(data)
                if "config" in words:
                    self.config = cargo.unpack(fds[0])
                for fd in fds:
                    os.close(fd)
                self.said.append((words, len(fds)))


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(privileges, "follow", lambda *_: None)  # this process is nobody's rehearsal
    stage = Stage(tmp_path, Plane.create())
    yield stage
    stage.plane.close()


def test_what_it_has_made_goes_to_the_supervisor_and_its_last_word_is_done(stage: Stage) -> None:
    before = open_files()
    assert stage.rehearse('[supervisor]\nadmin = "127.0.0.1:0"\n' + TEXT) == 0
    assert [[*words] for words, _ in stage.said] == [["listener"], ["admin"], ["config"], ["done"]]
    assert [fds for _, fds in stage.said] == [8, 1, 1, 0]
    listener = stage.said[0][0]["listener"]
    assert (listener["tier"], listener["name"], listener["sockets"]) == ("web", "a", [])
    assert stage.config.tier("web").listeners.keys() == {"a"}
    assert open_files() <= before


def test_listeners_and_admin_that_the_supervisor_has_are_not_opened_again(stage: Stage) -> None:
    from supervisor.arbiter.estate import HeldListener

    listeners = Listeners(8)
    config = load_bytes(TEXT.encode(), "x.toml", stage.folder, {"web": Table})
    opened = listeners.open(module.keys_of(config, [tier()]))
    held = tuple(
        HeldListener.of(key, tuple(os.dup(sock.fileno()) for sock in sockets)) for key, sockets in opened.items()
    )
    text = '[supervisor]\nadmin = "127.0.0.1:9"\n' + TEXT
    assert stage.rehearse(text, listeners=held, admin_bind="127.0.0.1:9") == 0
    assert [[*words] for words, _ in stage.said] == [["config"], ["done"]]
    for sockets in opened.values():
        for sock in sockets:
            sock.close()


def last(stage: Stage) -> tuple[list[str], int]:
    words, _ = stage.said[-1]
    return words["errors"], words["code"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[web.listeners.a]\n", "web.listeners.a.bind: "),
        (
            '[supervisor]\ncontrol = "other.sock"\n',
            "x.toml:2: supervisor.control: can't be changed by an upgrade",
        ),
        (
            '[supervisor]\npid_file = "x.pid"\n',
            "x.toml:2: supervisor.pid_file: can't be changed by an upgrade",
        ),
    ],
)
def test_a_file_that_can_not_be_taken_is_a_matter_of_the_configuration(stage: Stage, text: str, reason: str) -> None:
    assert stage.rehearse(text) == 2
    (error,), code = last(stage)
    assert reason in error
    assert code == 2


def test_a_plane_of_another_layout_is_refused(stage: Stage) -> None:
    stage.plane.cells[layout.Header.FINGERPRINT] ^= 1
    assert stage.rehearse() == 1
    (error,), code = last(stage)
    assert "this code has" in error
    assert code == 1


def test_a_plane_without_room_for_old_and_new_is_refused(stage: Stage) -> None:
    for number in range(layout.TABLES[Kind.LISTENER].rows):
        stage.plane.allocate(Kind.LISTENER, f"old/{number}")
    assert stage.rehearse() == 1
    assert last(stage)[0] == ["no room in the plane: 257 rows for listener, of 256"]


def test_an_address_that_is_in_use_is_refused(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert stage.rehearse(TEXT.replace(":0", f":{taken.getsockname()[1]}")) == 1
    assert "port in use" in last(stage)[0][0]


def fail(worker: Worker) -> Any:
    os._exit(9)


def hang(worker: Worker) -> Any:
    import time

    time.sleep(60)


def test_a_worker_that_ends_is_told_with_its_cause(stage: Stage) -> None:
    assert stage.rehearse(start=fail) == 1
    assert last(stage)[0] == ["web: a worker of the new code ended before it was ready: exit code 9"]


def test_a_worker_that_is_never_ready_is_given_up_and_ended(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    forked: list[int] = []
    fork = module.fork

    def remembered(child: Callable[[], NoReturn]) -> int:
        forked.append(fork(child))
        return forked[-1]

    monkeypatch.setattr(module, "fork", remembered)
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    monkeypatch.setattr(module, "LAST", 0.2)
    assert stage.rehearse(start=hang) == 1
    assert last(stage)[0] == ["web: a worker of the new code was not ready within 0.2s"]
    (pid,) = forked
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_reasons_are_bounded(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REASON", 10)
    assert stage.rehearse("[supervisor]\nnonsense = 1\n") == 2
    assert [len(reason) for reason in last(stage)[0]] == [10]


def test_one_whose_supervisor_is_gone_says_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def orphaned(*_: object) -> None:
        raise privileges.Orphaned

    monkeypatch.setattr(privileges, "follow", orphaned)
    assert stage.rehearse() == 1
    assert stage.said == []


def test_what_is_no_estate_is_refused(stage: Stage) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nothing = os.memfd_create("nothing")
    code = module.rehearse(Path("x.toml"), [], lambda: pytest.fail("not read"), nothing, theirs.detach())
    os.close(nothing)
    stage.listen(ours)
    assert code == 1
    assert "can't be read" in last(stage)[0][0]
