"""The daemon's log and the access log: lines, levels, loss."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.ground import log
from supervisor.ground.config import LogTable
from supervisor.ground.log import FLUSH_AT, MAX_HELD, AccessLog


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.fixture(autouse=True)
def own_stderr_again() -> Iterator[None]:
    yield
    log.configure(LogTable())


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 20)
    except BlockingIOError:
        return b""


def test_an_event_is_one_json_line_with_level_time_and_context(pipe: tuple[int, int]) -> None:
    log.configure(LogTable(), pipe[1])
    log.logger(process="gateway 1/2").warning("a\nb", pool="user")
    line = read(pipe[0])
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    event = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "a\nb", "level": "warning", "process": "gateway 1/2", "pool": "user"}


def test_a_reload_changes_level_and_format_of_loggers_already_bound(pipe: tuple[int, int]) -> None:
    log.configure(LogTable(level="error"), pipe[1])
    bound = log.logger(a=1)
    bound.warning("quiet")
    assert read(pipe[0]) == b""
    log.configure(LogTable(level="debug", format="console"), pipe[1])
    bound.debug("loud")
    line = read(pipe[0])
    assert b"loud" in line
    assert not line.startswith(b"{")


def test_an_exception_is_in_its_line(pipe: tuple[int, int]) -> None:
    log.configure(LogTable(), pipe[1])
    try:
        raise ValueError("inside")
    except ValueError:
        log.logger().exception("failed")
    event = json.loads(read(pipe[0]))
    assert event["level"] == "error"
    assert "ValueError: inside" in event["exception"]


def test_what_libraries_log_comes_out_too(pipe: tuple[int, int]) -> None:
    import logging

    log.configure(LogTable(), pipe[1])
    logging.getLogger("psycopg").warning("odd %s", "thing")
    event = json.loads(read(pipe[0]))
    assert (event["event"], event["library"]) == ("odd thing", "psycopg")


def test_a_reader_that_sleeps_does_not_stop_the_daemon(pipe: tuple[int, int]) -> None:
    log.configure(LogTable(), pipe[1])
    bound = log.logger()
    for _ in range(100):
        bound.info("x" * 1000)
    assert len(read(pipe[0])) > 4096


def test_lines_gather_until_a_flush(tmp_path: Path) -> None:
    access = AccessLog(tmp_path / "access.log")
    access.write("one")
    access.write("two")
    assert (tmp_path / "access.log").read_bytes() == b""
    access.flush()
    assert (tmp_path / "access.log").read_bytes() == b"one\ntwo\n"
    access.close()


def test_lines_are_written_when_64_kib_have_gathered(tmp_path: Path) -> None:
    access = AccessLog(tmp_path / "access.log")
    for _ in range(FLUSH_AT // 1024):
        access.write("x" * 1024)
    assert (tmp_path / "access.log").stat().st_size > FLUSH_AT
    access.close()


def test_off_takes_nothing() -> None:
    access = AccessLog("off")
    access.write("line")
    access.flush()
    assert not access.enabled
    assert not access.lost


def test_a_target_that_cannot_be_opened_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        AccessLog(tmp_path / "missing" / "access.log")


def test_reopening_follows_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    access = AccessLog(path)
    access.write("before")
    path.rename(tmp_path / "access.log.1")
    access.reopen()
    access.write("after")
    access.close()
    assert (tmp_path / "access.log.1").read_bytes() == b"before\n"
    assert path.read_bytes() == b"after\n"


def test_a_failed_reopening_keeps_the_old_file(tmp_path: Path, pipe: tuple[int, int]) -> None:
    log.configure(LogTable(), pipe[1])
    path = tmp_path / "access.log"
    access = AccessLog(path, log.logger())
    access.reopen(tmp_path / "missing" / "access.log")
    access.write("still here")
    access.close()
    assert path.read_bytes() == b"still here\n"
    assert json.loads(read(pipe[0]))["event"] == "access log not reopened"


def test_a_reload_turns_it_off_and_on(tmp_path: Path) -> None:
    access = AccessLog(tmp_path / "access.log")
    access.reopen("off")
    access.write("unseen")
    assert not access.enabled
    access.reopen(tmp_path / "access.log")
    access.write("seen")
    access.close()
    assert (tmp_path / "access.log").read_bytes() == b"seen\n"


def test_a_full_disk_loses_lines_counts_them_and_says_so_once(tmp_path: Path, pipe: tuple[int, int]) -> None:
    log.configure(LogTable(), pipe[1])
    access = AccessLog(Path("/dev/full"), log.logger())
    line = "x" * 1023
    for _ in range(2 * MAX_HELD // 1024):
        access.write(line)
    access.flush()
    assert access.lost == MAX_HELD // 1024
    events = [json.loads(event)["event"] for event in read(pipe[0]).splitlines()]
    assert events == ["access log can't be written, lines are lost"]
    access.reopen(tmp_path / "access.log")
    event = json.loads(read(pipe[0]))
    assert (event["event"], event["lost"]) == ("access log is written again", MAX_HELD // 1024)
    access.close()
    assert (tmp_path / "access.log").read_bytes() == (line + "\n").encode() * (MAX_HELD // 1024)


def test_a_sleeping_reader_of_a_pipe_gets_whole_lines_when_it_wakes(pipe: tuple[int, int]) -> None:
    access = AccessLog("off")
    access._descriptor, access.enabled = pipe[1], True
    for number in range(200):
        access.write(f"{number:05} " + "x" * 1000)
    access.flush()
    got = b""
    while chunk := read(pipe[0]):
        got += chunk
        access.flush()
    assert [int(line.split()[0]) for line in got.splitlines()] == [*range(200)]


def test_text_that_is_no_unicode_is_escaped() -> None:
    access = AccessLog("off")
    reader, writer = os.pipe()
    access._descriptor, access.enabled = writer, True
    access.write("a\udcffb")
    access.close()
    assert read(reader) == b"a\\udcffb\n"
    os.close(reader)


def test_a_ration_allows_so_many_a_minute() -> None:
    ration = log.Ration(per_minute=2)
    assert [ration.allows(now) for now in (0.0, 1.0, 2.0, 59.0, 60.0, 60.5, 61.0)] == [
        True, True, False, False, True, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["json", "console"])
def test_the_journal_is_told_the_level_of_each_line(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    stat = os.fstat(pipe[1])
    monkeypatch.setenv("JOURNAL_STREAM", f"{stat.st_dev}:{stat.st_ino}")
    log.configure(LogTable(format=form), pipe[1])  # type: ignore[arg-type]
    log.logger().info("fine")
    try:
        raise RuntimeError("bad")
    except RuntimeError:
        log.logger().exception("not fine")
    first, *rest = read(pipe[0]).splitlines()
    assert first.startswith(b"<6>")
    assert b"fine" in first
    assert rest
    assert all(line.startswith(b"<3>") for line in rest), "a traceback in every line"


def test_another_stream_than_the_journal_s_is_left_as_it_is(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    log.configure(LogTable(), pipe[1])
    log.logger().info("fine")
    assert read(pipe[0]).startswith(b"{")
    assert not log.is_journal(-1, "")
