"""The supervisor as a process, over a tier that fails on command: start, crash, signals, end."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import random
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.cli.control import Unreachable
from tests.system.supervised.daemon import ROOT, Supervised, Visitor, config
from tests.system.support.poll import until

LONG = bool(os.environ.get("PORTWAY_LONG"))
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def spread(port: int, seconds: float = 10.0) -> set[int]:
    """The processes that answer, seen over connections until two have, or time is up."""
    seen: set[int] = set()

    def two() -> bool:
        with Visitor(port) as visitor:
            seen.add(visitor.pid)
        return len(seen) >= 2

    until(two, "two workers to answer", seconds)
    return seen


# -- start


def test_workers_share_a_port_under_their_titles_and_the_control_socket_is_the_owners(
    start: Callable[..., Supervised], port: int
) -> None:
    daemon = start(config(port)).ready()
    assert daemon.titles() == {f"portway: supervisor {daemon.config}", "portway: fake 1/2", "portway: fake 2/2"}
    assert spread(port) == set(daemon.pids("fake"))
    assert stat.S_IMODE((daemon.config.parent / "portway.sock").stat().st_mode) == 0o600
    for pid in [daemon.process.pid, *daemon.pids("fake")]:
        assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"


def test_what_exists_once_is_forked_only_when_it_is_asked_for(
    start: Callable[..., Supervised], port: int, free_tcp_port: Callable[[], int]
) -> None:
    admin = free_tcp_port()
    more = '[pools.p]\nservers = ["127.0.0.1:1"]\nhealth = { type = "tcp" }\n'
    daemon = start(config(port, 1, f'admin = "127.0.0.1:{admin}"', more=more)).ready()
    names = {title.partition(": ")[2] for title in daemon.titles()} - {f"supervisor {daemon.config}"}
    assert names == {"fake 1/1", "prober", "admin"}


def test_a_tier_without_listeners_runs_no_process(start: Callable[..., Supervised]) -> None:
    daemon = start("[fake]\n")
    until(lambda: daemon.lines("starting"), "the start")
    until(lambda: daemon.ask("status")["ok"], "the control socket")
    assert daemon.pids("fake") == []
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0


def test_a_port_in_use_is_named_with_who_holds_it(start: Callable[..., Supervised], port: int) -> None:
    with socket.create_server(("127.0.0.1", port), reuse_port=True):
        daemon = start(config(port))
        assert daemon.wait() == 1
    comm = Path("/proc/self/comm").read_text().strip()
    assert daemon.text.strip() == (
        f"portway: fake/a: can't listen on 127.0.0.1:{port}: port in use by {comm} (process {os.getpid()})"
    )


def test_a_second_daemon_of_the_same_configuration_is_refused_and_the_first_lives(
    start: Callable[..., Supervised], port: int, tmp_path: Path
) -> None:
    daemon = start(config(port)).ready()
    command = [sys.executable, "-m", "tests.system.supervised.tier", str(daemon.config)]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=30, check=False)
    assert second.returncode == 1
    assert second.stderr.decode() == (
        f"portway: control socket {tmp_path}/portway.sock: "
        f"a daemon (process {daemon.process.pid}) answers there already\n"
    )
    assert daemon.ask("status")["ok"]


def test_the_control_socket_of_a_dead_daemon_is_replaced(start: Callable[..., Supervised], port: int) -> None:
    first = start(config(port)).ready()
    first.send(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL, "and its workers have drained and ended"
    assert (first.config.parent / "portway.sock").exists()
    start(config(port)).ready()


def test_a_file_that_is_no_socket_is_not_replaced(start: Callable[..., Supervised], port: int, tmp_path: Path) -> None:
    (tmp_path / "portway.sock").write_text("precious")
    daemon = start(config(port))
    assert daemon.wait() == 1
    assert "no socket" in daemon.text
    assert (tmp_path / "portway.sock").read_text() == "precious"


def test_a_configuration_with_errors_is_told_whole(start: Callable[..., Supervised], port: int) -> None:
    daemon = start(config(port).replace("workers", "worker").replace("bind", "bynd"))
    assert daemon.wait() == 2
    assert f'{daemon.config}:3: supervisor.worker: unknown key; did you mean "workers"?' in daemon.text
    assert 'unknown key; did you mean "bind"?' in daemon.text


def test_workers_that_can_not_start_end_the_daemon_instead_of_a_loop(
    start: Callable[..., Supervised], port: int
) -> None:
    daemon = start(config(port, fake='start = "fail"'))
    assert daemon.wait() == 1
    assert daemon.lines("start failed")
    assert "RuntimeError: fails on command" in daemon.text


# -- crash


def test_a_fault_in_a_session_ends_only_the_session(start: Callable[..., Supervised], port: int) -> None:
    daemon = start(config(port, workers=1)).ready()
    with Visitor(port) as bystander, Visitor(port) as victim:
        assert victim.echo(b"fault\n") == b""
        assert bystander.echo(b"still\n") == b"still\n"
    (line,) = daemon.lines("session failed")
    assert "RuntimeError: a fault of ours" in line["exception"]


def test_a_crash_is_told_and_succeeded_and_nobody_is_refused(start: Callable[..., Supervised], port: int) -> None:
    daemon = start(config(port)).ready()
    before = set(daemon.pids("fake"))
    with Visitor(port) as victim:
        assert victim.echo(b"crash\n") == b""
        for _ in range(20):
            with Visitor(port) as visitor:
                assert visitor.pid != victim.pid
    until(lambda: len(daemon.pids("fake")) == 2 and daemon.settled(), "the successor")
    assert len(set(daemon.pids("fake")) - before) == 1
    (line,) = daemon.lines("process died")
    assert line["cause"] == "signal 11 (SIGSEGV)"
    assert line["child_pid"] == victim.pid
    assert "Fatal Python error: Segmentation fault" in daemon.text


def test_repeated_crashes_back_off_and_end_when_the_cause_does(start: Callable[..., Supervised], port: int) -> None:
    daemon = start(config(port, workers=1)).ready()
    for _ in range(2):
        with Visitor(port) as victim:
            victim.echo(b"crash\n")
        until(lambda: daemon.lines("process died") and daemon.settled(), "the successor")
    waits = [line["seconds"] for line in daemon.lines("process waits for its start")]
    assert waits == [0.25], "the first is free"


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.soak)])
def test_kills_at_random_moments_leave_the_daemon_whole(
    start: Callable[..., Supervised], port: int, kills: int
) -> None:
    if kills > 20 and not LONG:
        pytest.skip("the long form, by make soak")
    kill_at_random(start(config(port)).ready(), port, kills)


def kill_at_random(daemon: Supervised, port: int, kills: int) -> None:
    """Nobody is refused meanwhile, and afterwards descriptors and columns are what they were."""
    chance = random.Random(os.environ.get("PORTWAY_SEED", "1"))
    supervisor = daemon.process.pid
    before = daemon.files()
    for _ in range(kills):
        children = [process.pid for process in daemon.tree() if process.parent == supervisor]
        for pid in chance.sample(children, chance.randint(0, len(children))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for _ in range(chance.randint(0, 5)):
            # A connection that the dead worker had accepted is lost with it, but none is ever refused.
            with contextlib.suppress(ConnectionResetError, ValueError), Visitor(port):
                pass
    until(lambda: len(daemon.pids("fake")) == 2 and daemon.settled(), "two workers")
    assert spread(port) == set(daemon.pids("fake"))
    assert daemon.files() == before
    columns = [process["column"] for process in daemon.status()["processes"]]
    assert sorted(columns) == [0, 2, 3]
    assert not daemon.lines("reload refused, nothing has changed")


def test_a_worker_ended_by_hand_drains_while_its_successor_serves(start: Callable[..., Supervised], port: int) -> None:
    daemon = start(config(port, workers=1)).ready()
    with Visitor(port) as visitor:
        os.kill(visitor.pid, signal.SIGTERM)
        until(lambda: len(daemon.pids("fake")) == 2, "the successor")
        with Visitor(port) as other:
            assert other.pid != visitor.pid
        assert visitor.echo(b"still\n") == b"still\n"
    until(lambda: len(daemon.pids("fake")) == 1 and daemon.settled(), "the drained one to end")
    assert not daemon.lines("process died")


def test_children_of_a_dead_supervisor_drain_and_end(start: Callable[..., Supervised], port: int) -> None:
    daemon = start(config(port)).ready()
    with Visitor(port) as visitor:
        daemon.send(signal.SIGKILL)
        daemon.process.wait(10)
        until(lambda: refused(port), "the port to close")
        assert visitor.echo(b"still\n") == b"still\n"
    daemon.wait()


def refused(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return False
    except ConnectionRefusedError:
        return True


# -- end


def test_term_drains_exits_0_and_leaves_nothing(
    start: Callable[..., Supervised], port: int, free_tcp_port: Callable[[], int]
) -> None:
    daemon = start(config(port, supervisor=f'admin = "127.0.0.1:{free_tcp_port()}"')).ready()
    with Visitor(port) as visitor:
        daemon.send(signal.SIGTERM)
        until(lambda: refused(port), "the port to close")
        assert daemon.status()["portway"]["state"] == "draining"
        assert visitor.echo(b"still\n") == b"still\n"
        assert daemon.process.poll() is None
        until(lambda: len(daemon.pids("fake")) == 1, "the idle worker to end")
        assert daemon.pids("admin"), "the drain can be watched to its end"
    assert daemon.wait() == 0
    assert not (daemon.config.parent / "portway.sock").exists()
    assert not daemon.lines("process died")
    with pytest.raises(Unreachable):
        daemon.ask("status")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGTERM])
def test_int_quit_and_a_second_term_end_now(
    start: Callable[..., Supervised], port: int, number: signal.Signals
) -> None:
    daemon = start(config(port)).ready()
    with Visitor(port) as visitor:
        if number == signal.SIGTERM:
            daemon.send(number)
            until(lambda: daemon.lines("draining"), "the drain")
        daemon.send(number)
        while daemon.process.poll() is None:  # however late one comes, it ends with its exit code
            daemon.process.send_signal(number)
        assert daemon.wait(5) == 0
        assert visitor.echo(b"gone\n") == b""


def test_a_terminals_interrupt_reaches_everybody_and_only_the_supervisor_acts(
    start: Callable[..., Supervised], port: int
) -> None:
    daemon = start(config(port)).ready()
    daemon.tree()
    os.killpg(daemon.process.pid, signal.SIGINT)
    assert daemon.wait(5) == 0
    assert not daemon.lines("process died")


def test_a_drain_that_takes_too_long_is_cut_and_says_what_held_it(start: Callable[..., Supervised], port: int) -> None:
    daemon = start(config(port).replace('"10s"', '"300ms"')).ready()
    with Visitor(port):
        daemon.send(signal.SIGTERM)
        assert daemon.wait(5) == 0
    (line,) = daemon.lines("drain timeout")
    assert line["holding"] == ["connection 0"]


def test_what_holds_a_drain_up_is_in_the_status(start: Callable[..., Supervised], port: int) -> None:
    daemon = start(config(port)).ready()
    assert daemon.status()["holding"] == []
    with contextlib.ExitStack() as stack:
        visitors = [stack.enter_context(Visitor(port)) for _ in range(100)]
        daemon.send(signal.SIGTERM)
        until(lambda: len(daemon.status()["holding"]) == 2, "the workers to say what holds them")
        for answer in daemon.status()["holding"]:
            assert answer["left"] == sum(visitor.pid == answer["pid"] for visitor in visitors)
            assert len(answer["holding"]) == min(40, answer["left"])
            assert answer["holding"][0] == "connection 0"
        os.kill(visitors[0].pid, signal.SIGSTOP)
        assert len(daemon.status()["holding"]) == 1, "who hangs is not waited for"
        os.kill(visitors[0].pid, signal.SIGCONT)
    assert daemon.wait() == 0


def test_workers_drain_when_the_supervisor_is_killed_and_nothing_is_left(
    start: Callable[..., Supervised], port: int, free_tcp_port: Callable[[], int]
) -> None:
    admin = free_tcp_port()
    text = config(port, supervisor=f'admin = "127.0.0.1:{admin}"', more='[pools.p]\nservers = ["127.0.0.1:1"]\n')
    daemon = start(text).ready()
    with Visitor(port) as visitor:
        daemon.send(signal.SIGKILL)
        daemon.process.wait(10)

        def refused() -> bool:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            except ConnectionRefusedError:
                return True
            return False

        until(refused, "the port to be closed")
        until(lambda: {process.pid for process in daemon.left()} == {visitor.pid}, "all others to have ended")
        assert visitor.echo(b"still\n") == b"still\n", "what runs goes on"
    assert daemon.wait(10) == -signal.SIGKILL
    assert daemon.left() == []


def test_the_drain_after_the_supervisor_s_death_has_its_end_too(start: Callable[..., Supervised], port: int) -> None:
    daemon = start(config(port).replace('"10s"', '"500ms"')).ready()
    with Visitor(port):
        daemon.send(signal.SIGKILL)
        assert daemon.wait(10) == -signal.SIGKILL
    assert [line["holding"] for line in daemon.lines("drain timeout")] == [["connection 0"]]


def test_a_drain_delay_goes_on_serving(start: Callable[..., Supervised], port: int) -> None:
    daemon = start(config(port, supervisor='drain_delay = "700ms"')).ready()
    daemon.send(signal.SIGTERM)
    until(lambda: daemon.lines("draining"), "the announcement")
    assert daemon.status()["portway"]["state"] == "draining"
    with Visitor(port) as visitor:
        assert visitor.echo(b"still\n") == b"still\n"
    assert daemon.wait(5) == 0


# -- who we are


@pytest.fixture
def start_in(free_tcp_port: Callable[[], int]) -> Iterator[Callable[..., Supervised]]:
    """Like `start`, in a folder of the daemon's own: pytest keeps other users out of its folders."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        Path(folder).chmod(0o755)

        def start(text: str, *prefix: str, owner: int = 0) -> Supervised:
            os.chown(folder, owner, -1)
            daemon = Supervised.start(Path(folder), text, *prefix)
            stack.callback(daemon.stop)
            return daemon

        yield start


@ROOT_ONLY
def test_workers_drop_privileges_and_the_log_is_theirs(start_in: Callable[..., Supervised], port: int) -> None:
    nobody = pwd.getpwnam("nobody")
    text = config(port, 1, 'user = "nobody"')
    daemon = start_in(text + '[log]\naccess = "access.log"\n').ready()
    log = daemon.config.parent / "access.log"
    (worker,) = daemon.pids("fake")
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{worker}/status").read_text().splitlines())
    assert status["Uid"].split() == [str(nobody.pw_uid)] * 4
    assert status["Gid"].split() == [str(nobody.pw_gid)] * 4
    assert (status["NoNewPrivs"], int(status["CapEff"], 16)) == ("1", 0)
    assert log.stat().st_uid == nobody.pw_uid
    log.rename(log.with_suffix(".1"))
    daemon.send(signal.SIGUSR1)
    until(lambda: os.readlink(access_log(worker)) == str(log), "the log to be reopened")
    daemon.send(signal.SIGKILL)
    daemon.process.wait(10)
    assert daemon.wait() == -signal.SIGKILL, "the parent-death signal survives the change of user"


def access_log(pid: int) -> str:
    for fd in os.listdir(f"/proc/{pid}/fd"):
        if "access.log" in os.readlink(f"/proc/{pid}/fd/{fd}"):
            return f"/proc/{pid}/fd/{fd}"
    raise FileNotFoundError


@ROOT_ONLY
def test_an_ordinary_user_runs_it_as_well(start_in: Callable[..., Supervised], port: int) -> None:
    nobody = pwd.getpwnam("nobody")
    become = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    daemon = start_in(config(port, 1, 'user = "root"'), *become, owner=nobody.pw_uid).ready()
    assert daemon.lines("not root: user and group have no effect")
    with Visitor(port) as visitor:
        assert os.stat(f"/proc/{visitor.pid}").st_uid == nobody.pw_uid
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0


# -- the control socket


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"{}\n", "unknown command; there are drain, reload, status"),
        (b'{"command": []}\n', "unknown command; there are drain, reload, status"),
        (b"[]\n", "a request is one JSON object on one line"),
        (b"\xff\n", "a request is one JSON object on one line"),
        (b'{"command": "drain", "server": "x/1"}\n', 'unknown server "x/1"'),
        (b'{"command": "drain", "server": "x/1", "state": "dead"}\n', 'state: "dead" is not one of'),
    ],
)
def test_a_bad_request_is_answered_with_what_is_wrong(
    start: Callable[..., Supervised], port: int, request_: bytes, expected: str
) -> None:
    daemon = start(config(port)).ready()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.config.parent / "portway.sock"))
        for byte in request_:
            client.send(bytes([byte]))
        client.shutdown(socket.SHUT_WR)
        answer = json.loads(client.makefile("rb").read())
    assert answer["ok"] is False
    assert answer["errors"][0].startswith(expected)


def test_endless_and_abandoned_requests_cost_only_themselves(start: Callable[..., Supervised], port: int) -> None:
    daemon = start(config(port)).ready()
    before = daemon.files()
    for data in (b"x" * 200_000, b'{"command"', b"", b'{"command": "status"}\n'):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(daemon.config.parent / "portway.sock"))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(data)
    assert daemon.ask("status")["ok"]
    assert daemon.files() == before


def test_a_server_is_drained_by_hand_and_given_work_again(start: Callable[..., Supervised], port: int) -> None:
    daemon = start(config(port, more='[pools.p]\nservers = ["127.0.0.1:1"]\n')).ready()

    def state() -> str:
        return str(daemon.status()["pools"][0]["servers"][0]["state"])

    for asked in ("draining", "maintenance"):
        assert daemon.ask("drain", server="p/127.0.0.1:1", state=asked)["ok"]
        assert state() == asked
    assert daemon.ask("drain", server="p/127.0.0.1:1", state="normal")["ok"]
    assert state() == "up"
