"""The supervisor becoming other code in place, over a tier that fails on command: what goes well, and what does not.

"Other code" is the same code behind a `sitecustomize` that the test writes into a folder in front of it: it is looked
at by every interpreter that starts, and so by a rehearsal and by the exec, and by nobody before.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from supervisor.arbiter.estate import VARIABLE
from tests.system.supervised.daemon import Supervised, Visitor, config
from tests.system.support.poll import until


@attrs.define(eq=False)
class Stage:
    """A daemon, and the place where other code is put in front of it."""

    daemon: Supervised
    port: int
    overlay: Path

    def replace(self, code: str) -> None:
        """What every interpreter that starts from now on runs first."""
        first = f"import os, sys\nrole = os.environ.get({VARIABLE!r}, '')\n"
        (self.overlay / "sitecustomize.py").write_text(f"{first}{code}\n")

    def upgraded(self, times: int) -> None:
        """Wait until the new code has come so many times, and polls every slot; old workers may still drain."""
        until(lambda: len(self.daemon.lines("upgraded")) == times, "the new code")
        until(self.shared, "every slot")

    def shared(self) -> bool:
        status = self.daemon.status()
        ready = [one for one in status["processes"] if one["tier"] == "fake" and one["state"] == "ready"]
        slots = [listener["slots"] for listener in status["listeners"]]
        return all(sum(owners.values()) >= 8 and len(owners) == len(ready) for owners in slots)

    def whole(self, workers: list[int], files: int) -> None:
        """Everything is as it was."""
        assert sorted(self.daemon.pids("fake")) == sorted(workers)
        assert self.daemon.files() == files
        assert [process.title for process in self.daemon.tree() if "rehearsal" in process.title] == []
        with Visitor(self.port) as visitor:
            assert visitor.pid in workers


@pytest.fixture
def stage(tmp_path: Path, free_tcp_port: Callable[[], int]) -> Iterator[Stage]:
    port = free_tcp_port()
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    daemon = Supervised.start(tmp_path, config(port), overlay=overlay)
    try:
        yield Stage(daemon.ready(), port, overlay)
        daemon.stop()
        assert daemon.process.returncode == 0, daemon.text
        assert daemon.left() == []
    finally:
        daemon.stop()


def test_two_upgrades_keep_process_ports_and_connections(stage: Stage) -> None:
    daemon = stage.daemon
    old, files = daemon.pids("fake"), daemon.files()
    with Visitor(stage.port) as first:
        answer = daemon.ask("upgrade")
        assert answer == {"ok": True, "processes": 2, "errors": []}
        stage.upgraded(1)
        assert first.pid in old
        assert first.echo(b"still here\n") == b"still here\n"
        middle = [pid for pid in daemon.pids("fake") if pid not in old]
        with Visitor(stage.port) as second:
            assert second.pid in middle
            daemon.send(signal.SIGUSR2)
            stage.upgraded(2)
            assert second.echo(b"too\n") == b"too\n"
            assert first.echo(b"and I\n") == b"and I\n", "two upgrades old"
    new = [pid for pid in daemon.pids("fake") if pid not in (*old, *middle)]
    until(lambda: sorted(daemon.pids("fake")) == sorted(new), "the old ones to end")
    assert len(new) == 2
    assert daemon.status()["portway"]["pid"] == daemon.process.pid
    assert daemon.files() == files, "nothing is left open"
    os.kill(new[0], signal.SIGKILL)
    until(lambda: new[0] not in daemon.pids("fake") and daemon.settled(), "a successor, as ever")


def test_a_fault_of_the_supervisor_s_own_costs_that_call_alone(stage: Stage) -> None:
    """Code whose look at lost messages fails each time, in a timer: told, and everything else works."""
    daemon = stage.daemon
    stage.replace(
        "if role.startswith('adopt'):\n from supervisor.arbiter.reloading import Reloading\n"
        " Reloading.look = lambda self: 1 / 0"
    )  # fmt: skip
    assert daemon.ask("upgrade")["ok"]
    until(lambda: len(daemon.lines("supervisor fault, it goes on")) >= 2, "the fault, twice")
    assert "ZeroDivisionError" in daemon.lines("supervisor fault, it goes on")[0]["exception"]
    daemon.config.write_text(config(stage.port, fake='greeting = "all the same"'))
    assert daemon.ask("reload")["ok"]
    victim = daemon.pids("fake")[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in daemon.pids("fake") and daemon.settled(), "a successor")
    with Visitor(stage.port) as visitor:
        assert visitor.greeting == "all the same"


def test_counts_and_changed_files_are_taken_along(stage: Stage, free_tcp_port: Callable[[], int]) -> None:
    daemon, other = stage.daemon, free_tcp_port()
    daemon.send(signal.SIGTTIN)
    until(lambda: len(daemon.pids("fake")) == 3 and daemon.settled(), "a third worker")
    more = f'[fake.listeners.b]\nbind = "127.0.0.1:{other}"'
    daemon.config.write_text(config(stage.port, fake='greeting = "changed"', more=more))
    assert daemon.ask("upgrade")["ok"]
    stage.upgraded(1)
    assert len(daemon.pids("fake")) == 3
    for port in (stage.port, other):
        with Visitor(port) as visitor:
            assert (visitor.greeting, visitor.generation) == ("changed", 2)
    daemon.config.write_text(config(stage.port))
    assert daemon.ask("upgrade")["ok"]
    stage.upgraded(2)
    until(lambda: refused(other), "the removed listener to close")
    daemon.config.write_text(config(stage.port, workers=1))
    assert daemon.ask("reload")["changed"] == ["supervisor.workers"]
    until(lambda: len(daemon.pids("fake")) == 2, "one fewer, TTIN still counted")


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


OTHER_LAYOUT = "from supervisor.plane import layout; layout.FINGERPRINT ^= 1"
OTHER_ESTATE = "if role:\n from supervisor.arbiter import estate; estate.VERSION = 9"
# What the new code is, what the file says, the exit code, the reason
REFUSED = {
    "a file with errors": ("", config(1, fake='greetin = "x"'), 2, 'unknown key; did you mean "greeting"?'),
    "another control socket": ("", config(1, supervisor='control = "x.sock"'), 2, "supervisor.control: "),
    "a module that can't be imported": ("sys.modules['setproctitle'] = None", "", 1, "ModuleNotFoundError: "),
    "an end before a word": ("if role: os._exit(7)", "", 1, "the new code ended before it had been rehearsed"),
    "a plane of another layout": (OTHER_LAYOUT, "", 1, "this code has"),
    "another kind of estate": (OTHER_ESTATE, "", 1, "by version 1"),
    "workers that fail": ("", 'start = "fail"', 1, "fake: a worker of the new code ended before it was ready: exit"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_fails_in_the_rehearsal_changes_nothing(stage: Stage, what: str) -> None:
    code, text, status, reason = REFUSED[what]
    daemon = stage.daemon
    workers, files = daemon.pids("fake"), daemon.files()
    stage.replace(code)
    good = daemon.config.read_text()
    if text:
        daemon.config.write_text(config(stage.port, fake=text) if text.startswith("start") else text)
    with Visitor(stage.port) as visitor:
        answer = daemon.ask("upgrade")
        assert visitor.echo(b"still here\n") == b"still here\n"
    assert (answer["ok"], answer["code"]) == (False, status)
    assert reason in answer["errors"][0]
    (line,) = daemon.lines("upgrade refused, nothing has changed")
    assert line["errors"] == answer["errors"]
    stage.whole(workers, files)
    stage.replace("")
    daemon.config.write_text(good)
    answer = daemon.ask("reload")
    assert (answer["ok"], answer["changed"]) == (True, [])


def test_new_code_that_fails_after_the_exec_leaves_the_old_workers_at_work(stage: Stage, tmp_path: Path) -> None:
    daemon, bad = stage.daemon, tmp_path / "bad"
    workers, files = daemon.pids("fake"), daemon.files()
    bad.touch()
    stage.replace(f"if role.startswith('adopt') and os.path.exists({str(bad)!r}): sys.modules['setproctitle'] = None")
    with Visitor(stage.port) as visitor:
        daemon.send(signal.SIGUSR2)
        until(lambda: "the new code failed after the exec" in daemon.text, "the guard")
        assert visitor.echo(b"still here\n") == b"still here\n"
        with Visitor(stage.port) as other:
            assert other.pid in workers
        bad.unlink()
        daemon.process.send_signal(signal.SIGUSR2)
        stage.upgraded(1)
        assert visitor.echo(b"still here\n") == b"still here\n"
    until(lambda: not set(workers) & set(daemon.pids("fake")), "the old ones to end")
    assert daemon.files() == files


def test_a_reload_asked_for_meanwhile_follows(stage: Stage) -> None:
    daemon = stage.daemon
    daemon.send(signal.SIGUSR2)
    until(lambda: daemon.lines("upgrade asked for"), "the upgrade")
    assert daemon.ask("upgrade")["errors"] == ["an upgrade is under way"]
    daemon.config.write_text(config(stage.port, fake='greeting = "later"'))
    answer = daemon.ask("reload")
    stage.upgraded(1)
    assert answer["ok"], answer
    with Visitor(stage.port) as visitor:
        assert visitor.greeting == "later"


def test_term_ends_a_rehearsal(stage: Stage) -> None:
    stage.replace("if role.startswith('rehearse'):\n import time; time.sleep(60)")
    daemon = stage.daemon
    daemon.send(signal.SIGUSR2)
    until(lambda: daemon.lines("upgrade asked for"), "the upgrade")
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0
    assert daemon.lines("upgrade refused, nothing has changed")[0]["errors"] == ["the daemon is ending"]


def test_a_killed_predecessor_costs_nothing_more(stage: Stage, tmp_path: Path) -> None:
    """Between the exec and the successors' readiness: its slots wait, and nobody is born in its place."""
    daemon, hold = stage.daemon, tmp_path / "hold"
    old = daemon.pids("fake")
    hold.touch()
    stage.replace(
        "if role.startswith('adopt'):\n import time\n"
        f" while os.path.exists({str(hold)!r}): time.sleep(0.01)"
    )  # fmt: skip
    daemon.send(signal.SIGUSR2)
    until(lambda: daemon.lines("rehearsed; the new code takes over"), "the exec")
    os.kill(old[0], signal.SIGKILL)
    with contextlib.suppress(OSError):
        hold.unlink()
    stage.upgraded(1)
    until(lambda: len(daemon.pids("fake")) == 2, "two workers")
    assert not set(old) & set(daemon.pids("fake"))
