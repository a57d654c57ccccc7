"""Reload and scaling, over a tier that refuses and crashes on command: all or nothing, nobody forked, nothing cut."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.system.supervised.daemon import Supervised, Visitor, config
from tests.system.support.poll import until
from tests.system.support.processes import open_files, resident
from tests.system.support.shared import taken
from tests.system.test_supervisor import LONG, refused, spread


@pytest.fixture
def start(start: Callable[..., Supervised]) -> Callable[[str], Supervised]:
    """`start(text)` is a daemon that is ready."""
    return lambda text: start(text).ready()


def listener(name: str, port: int) -> str:
    return f'[fake.listeners.{name}]\nbind = "127.0.0.1:{port}"\n'


def reload(daemon: Supervised, text: str) -> dict[str, Any]:
    daemon.config.write_text(text)
    return daemon.ask("reload")


def greeting(port: int) -> tuple[int, str]:
    with Visitor(port) as visitor:
        return visitor.generation, visitor.greeting


# -- good files


def test_a_good_file_is_swapped_into_the_running_workers(start: Callable[[str], Supervised], port: int) -> None:
    daemon = start(config(port, fake='greeting = "one"'))
    pids = daemon.pids("fake")
    with Visitor(port) as visitor:
        answer = reload(daemon, config(port, fake='greeting = "two"'))
        assert (answer["ok"], answer["changed"], answer["errors"]) == (True, ["fake.greeting"], [])
        assert (sorted(answer["acknowledged"]), answer["processes"]) == (["fake 1/2", "fake 2/2"], 2)
        assert {greeting(port) for _ in range(10)} == {(2, "two")}
        assert visitor.echo(b"still\n") == b"still\n"
    assert daemon.pids("fake") == pids
    assert [process["generation"] for process in daemon.status()["processes"]] == [2, 2, 2]


def test_a_file_that_did_not_change_is_no_new_generation(start: Callable[[str], Supervised], port: int) -> None:
    daemon = start(config(port))
    answer = daemon.ask("reload")
    assert answer == {"ok": True, "changed": [], "errors": [], "processes": 0, "acknowledged": []}
    assert greeting(port) == (1, "hello")


def test_hup_reloads_as_well(start: Callable[[str], Supervised], port: int) -> None:
    daemon = start(config(port))
    daemon.config.write_text(config(port, fake='greeting = "two"'))
    daemon.send(signal.SIGHUP)
    until(lambda: greeting(port) == (2, "two"), "the reload")


def test_a_new_listener_arrives_and_a_removed_one_closes_without_cutting_its_connections(
    start: Callable[[str], Supervised], port: int, free_tcp_port: Callable[[], int]
) -> None:
    second = free_tcp_port()
    daemon = start(config(port))
    pids = daemon.pids("fake")
    assert reload(daemon, config(port, more=listener("b", second)))["changed"] == ["fake.listeners.b"]
    until(daemon.settled, "the new listener's slots")
    assert spread(second) == set(pids)
    with Visitor(port) as visitor:
        text = config(port, more=listener("b", second)).replace("fake.listeners.a", "fake.listeners.c")
        assert reload(daemon, text)["errors"] == [], "renamed: the address stays"
        assert greeting(port)[0] == 3
        assert reload(daemon, text.split("[fake.listeners.c]")[0] + listener("b", second))["ok"]
        until(lambda: refused(port), "the removed port to close")
        assert visitor.echo(b"still\n") == b"still\n"
    assert greeting(second)[0] == 4
    assert daemon.pids("fake") == pids


def test_a_listener_moves_to_another_address(
    start: Callable[[str], Supervised], port: int, free_tcp_port: Callable[[], int]
) -> None:
    second = free_tcp_port()
    daemon = start(config(port))
    assert reload(daemon, config(second))["changed"] == ["fake.listeners.a.bind"]
    until(lambda: refused(port), "the old address to close")
    assert greeting(second) == (2, "hello")


def test_a_tier_comes_and_goes_with_its_listeners(start: Callable[[str], Supervised], port: int) -> None:
    daemon = start(config(port))
    without = config(port).split("[fake.listeners.a]")[0]
    assert reload(daemon, without)["ok"]
    until(lambda: not daemon.pids("fake"), "the workers to end")
    assert reload(daemon, config(port))["ok"]
    until(lambda: len(daemon.pids("fake")) == 2 and daemon.settled(), "new workers")
    assert greeting(port) == (3, "hello")


def test_the_admin_moves_to_another_address(
    start: Callable[[str], Supervised], port: int, free_tcp_port: Callable[[], int]
) -> None:
    first, second = free_tcp_port(), free_tcp_port()
    daemon = start(config(port, supervisor=f'admin = "127.0.0.1:{first}"'))
    (before,) = daemon.pids("admin")
    assert reload(daemon, config(port, supervisor=f'admin = "127.0.0.1:{second}"'))["changed"] == ["supervisor.admin"]
    until(lambda: len(daemon.pids("admin")) == 1 and daemon.pids("admin") != [before], "another admin")
    assert not refused(second)
    until(lambda: refused(first), "the old address to close")


def test_a_by_hand_drained_server_stays_drained(start: Callable[[str], Supervised], port: int) -> None:
    pool = '[pools.p]\nservers = ["127.0.0.1:1", "127.0.0.1:2"]\n'
    daemon = start(config(port, more=pool))
    assert daemon.ask("drain", server="p/127.0.0.1:2")["ok"]
    assert reload(daemon, config(port, more=pool.replace('"127.0.0.1:1", ', "")))["changed"] == ["pools.p.servers"]
    (server,) = daemon.status()["pools"][0]["servers"]
    assert (server["address"], server["state"]) == ("127.0.0.1:2", "draining")
    assert not daemon.ask("drain", server="p/127.0.0.1:1")["ok"]


# -- bad files


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("greeting", "greting"), '{file}:7: fake.greting: unknown key; did you mean "greeting"?'),
        (('"one"', '"one'), "{file}:7: "),
        (('"one"', '"one"\nfixed = "x"'), "{file}:8: fake.fixed: can't be changed by a reload"),
        (('"one"', '"one"\nprepare = "refuse"'), "fake N/2: fake.prepare: not with me"),
        (('"one"', '"one"\nprepare = "fail"'), "fake N/2: RuntimeError: fails on command"),
        (("[supervisor]", '[supervisor]\ncontrol = "x.sock"'), "{file}:3: supervisor.control: can't be changed"),
    ],
)
def test_a_bad_file_changes_nothing_and_is_told_by_key_and_line(
    start: Callable[[str], Supervised], port: int, change: tuple[str, str], error: str
) -> None:
    text = config(port, fake='greeting = "one"')
    daemon = start(text)
    pids = daemon.pids("fake")
    answer = reload(daemon, text.replace(*change))
    assert (answer["ok"], answer["changed"], answer["processes"]) == (False, [], 0)
    first = re.sub(r"^fake \d/", "fake N/", answer["errors"][0])  # whichever of the two answered first
    assert first.startswith(error.format(file=daemon.config))
    assert {greeting(port) for _ in range(5)} == {(1, "one")}
    assert daemon.pids("fake") == pids
    assert reload(daemon, text.replace('"one"', '"two"'))["ok"], "and the next good one is taken"
    assert greeting(port)[1] == "two"


def test_a_worker_that_dies_while_it_prepares_aborts_the_reload(start: Callable[[str], Supervised], port: int) -> None:
    text = config(port, fake='greeting = "one"')
    daemon = start(text)
    answer = reload(daemon, text.replace('"one"', '"two"\nprepare = "die"'))
    assert answer["errors"] in (["fake 1/2: died while it prepared"], ["fake 2/2: died while it prepared"])
    until(lambda: len(daemon.pids("fake")) == 2 and daemon.settled(), "its successor")
    assert {greeting(port) for _ in range(5)} == {(1, "one")}


def test_a_port_in_use_refuses_the_reload(
    start: Callable[[str], Supervised], port: int, tcp_backend: Callable[..., Any]
) -> None:
    other = tcp_backend("other")
    daemon = start(config(port))
    before = daemon.files()
    answer = reload(daemon, config(port, more=listener("b", other.port)))
    (error,) = answer["errors"]
    assert error.startswith(f"fake/b: can't listen on 127.0.0.1:{other.port}: port in use by ")
    assert error.endswith(f"(process {other.child.process.pid})")
    assert daemon.files() == before


@pytest.mark.soak
@pytest.mark.skipif(not LONG, reason="waits 10 s; the long form, by make soak")
def test_a_worker_that_hangs_while_it_prepares_aborts_the_reload(start: Callable[[str], Supervised], port: int) -> None:
    text = config(port, fake='greeting = "one"')
    daemon = start(text)
    answer = reload(daemon, text.replace('"one"', '"two"\nprepare = "hang"'))
    assert [error.partition(": ")[2] for error in answer["errors"]] == ["did not answer within 10s"] * 2
    daemon.send(signal.SIGQUIT)
    assert daemon.wait() == 0, "and those that hear nothing are killed"


# -- many


def test_reloads_asked_for_at_once_are_merged_and_each_is_answered(
    start: Callable[[str], Supervised], port: int
) -> None:
    daemon = start(config(port))
    answers: list[dict[str, Any]] = []
    daemon.config.write_text(config(port, fake='greeting = "two"'))
    threads = [threading.Thread(target=lambda: answers.append(daemon.ask("reload"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer["ok"] for answer in answers] == [True] * 8
    assert daemon.status()["portway"]["generation"] == 2


@pytest.mark.parametrize("times", [20, pytest.param(500, marks=pytest.mark.soak)])
def test_reloads_in_a_row_leave_nothing_over(
    start: Callable[[str], Supervised], port: int, free_tcp_port: Callable[[], int], times: int
) -> None:
    if times > 20 and not LONG:
        pytest.skip("the long form, by make soak")
    second = free_tcp_port()
    texts = [config(port, fake='greeting = "odd"', more=listener("b", second)), config(port)]
    daemon = start(texts[1])
    for text in texts:
        assert reload(daemon, text)["ok"]
    processes = [process.pid for process in daemon.tree()]
    rows = taken(processes[0])
    files = [daemon.files(), *(open_files(pid) for pid in processes[1:])]
    memory = [resident(pid) for pid in processes]
    for turn in range(times):
        assert reload(daemon, texts[turn % 2])["errors"] == []
    assert [process.pid for process in daemon.tree()] == processes
    until(lambda: [open_files(pid) for pid in processes] == files, "descriptors to be as before")
    assert taken(processes[0]) == rows
    for before, after in zip(memory, [resident(pid) for pid in processes], strict=True):
        assert after < before + 2 * 1024 * 1024
    assert greeting(port)[0] == times + 3


def test_kills_during_reloads_never_leave_workers_of_two_minds(start: Callable[[str], Supervised], port: int) -> None:
    daemon = start(config(port))
    for turn in range(10):
        daemon.config.write_text(config(port, fake=f'greeting = "{turn}"'))
        daemon.send(signal.SIGHUP)
        for pid in daemon.pids("fake")[: turn % 3]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert until(lambda: daemon.ask("reload")["ok"], "a reload without a death")
    until(lambda: len(daemon.pids("fake")) == 2 and daemon.settled(), "two workers")
    assert {greeting(port)[1] for _ in range(20)} == {"9"}


# -- scale


def test_workers_come_and_go_by_signal_and_by_reload(start: Callable[[str], Supervised], port: int) -> None:
    daemon = start(config(port, workers=1))

    def settled(count: int) -> bool:
        titles = {f"portway: fake {number}/{count}" for number in range(1, count + 1)}
        return {title for title in daemon.titles() if "fake " in title} == titles and daemon.settled()

    with Visitor(port) as first:
        daemon.send(signal.SIGTTIN)
        until(lambda: settled(2), "a second worker")
        assert reload(daemon, config(port, workers=3))["changed"] == ["supervisor.workers"]
        until(lambda: settled(4), "three, and the one by signal")
        for _ in range(3):
            daemon.send(signal.SIGTTOU)
            until(lambda: daemon.lines("workers"), "the signal")
        until(lambda: settled(2) or settled(1), "fewer")
        assert first.echo(b"still\n") == b"still\n"
    assert not daemon.lines("process died")


def test_a_worker_that_is_no_longer_wanted_drains_and_nothing_queued_is_lost(
    start: Callable[[str], Supervised], port: int
) -> None:
    daemon = start(config(port, workers=3))
    pids = daemon.pids("fake")
    visitors = [Visitor(port) for _ in range(30)]
    assert {visitor.pid for visitor in visitors} == set(pids)
    daemon.send(signal.SIGTTOU)
    for _ in range(50):
        with Visitor(port):
            pass
    until(lambda: len(daemon.lines("workers")) == 1, "the signal")
    for number, visitor in enumerate(visitors):
        line = f"{number}\n".encode()
        assert visitor.echo(line) == line
        visitor.__exit__()
    until(lambda: len(daemon.pids("fake")) == 2 and daemon.settled(), "two workers")
    assert not daemon.lines("process died")


def test_a_stopped_worker_does_not_hold_up_the_others(start: Callable[[str], Supervised], port: int) -> None:
    daemon = start(config(port, workers=2))
    stopped = daemon.pids("fake")[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        daemon.send(signal.SIGTTIN)
        until(lambda: len(daemon.pids("fake")) == 3, "a third worker")

        def third_works() -> bool:
            slots = daemon.status()["listeners"][0]["slots"]
            return bool(slots.get("fake 3", 0) >= 2)

        until(third_works, "the slots that the stopped one should have given up")
    finally:
        os.kill(stopped, signal.SIGCONT)
    until(daemon.settled, "all three")
