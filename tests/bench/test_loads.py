"""Load generators: requests are unique, and a run with errors is no run."""

import subprocess
from pathlib import Path

import pytest

from bench import loads
from bench.loads import BadRun, head, wrk

RESULT = 'RESULT {"operations": %d, "bytes": 9, "bad": %d, "seconds": 2.0}\n'


def answer(monkeypatch: pytest.MonkeyPatch, text: str, status: int = 0) -> list[list[str]]:
    """Whatever program is run, it says this; the command lines are collected."""
    seen: list[list[str]] = []

    def run(command: list[str], **_more: object) -> subprocess.CompletedProcess[bytes]:
        seen.append(command)
        return subprocess.CompletedProcess(command, status, text.encode(), b"")

    monkeypatch.setattr(loads.subprocess, "run", run)
    monkeypatch.setattr(loads, "program", lambda name, package: f"/usr/bin/{name}")
    return seen


def test_a_head_is_open_for_the_header_that_varies() -> None:
    assert head("GET", "/x", X_One="1").endswith("X-One: 1\r\n")
    assert head("GET", "/x").startswith("GET /x HTTP/1.1\r\nHost: ")


def test_wrk_is_told_whole_seconds_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = answer(monkeypatch, RESULT % (700, 0))
    done = wrk(tmp_path, "http://127.0.0.1:1", [head("GET", "/")], 0.4)
    assert (done.operations, done.seconds) == (700, 2.0)
    assert "-d1s" in seen[0]
    assert '"GET / HTTP/1.1\\r\\n' in (tmp_path / "wrk.lua").read_text()


def test_errors_make_a_run_worthless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, RESULT % (700, 1))
    with pytest.raises(BadRun, match="1 errors in 700"):
        wrk(tmp_path, "http://127.0.0.1:1", [head("GET", "/")], 1)


def test_a_generator_that_fails_is_told_with_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "unable to connect", status=1)
    with pytest.raises(BadRun, match="unable to connect"):
        wrk(tmp_path, "http://127.0.0.1:1", [head("GET", "/")], 1)


def test_pgbench_counts_what_was_processed(monkeypatch: pytest.MonkeyPatch) -> None:
    from supervisor.cli.demo.postgres import Installation

    told = "number of transactions actually processed: 123\nnumber of failed transactions: "
    seen = answer(monkeypatch, told + "0 (0%)\n")
    assert loads.pgbench(Installation(Path("/opt")), 6432, 2, "extended").operations == 123
    assert {"-M", "extended", "-S"} <= set(seen[0])
    answer(monkeypatch, told + "2 (1%)\n")
    with pytest.raises(BadRun):
        loads.pgbench(Installation(Path("/opt")), 6432, 2, "simple")
