"""The daemon's log on stderr, and the access log.

The daemon's log goes through structlog, one line an event, as JSON or for the console; `configure` may be called
again by a reload and takes effect on loggers already bound. The access log takes finished lines from the hot path,
holds them, and writes many at once when the sweeper calls `flush` or 64 KiB have gathered. Neither ever raises into
its caller, and neither waits for a reader that has stopped: what can't be written is counted as lost, and that is told.
"""

from __future__ import annotations

import logging
import os
import select
import stat
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import attrs
import structlog
from structlog.typing import FilteringBoundLogger, WrappedLogger

from supervisor.ground.config import LogTable

FLUSH_AT = 64 * 1024  # bytes: one write a few hundred requests; Linux keeps an O_APPEND write of a file in one piece
MAX_HELD = 1024 * 1024  # bytes kept while the disk is full or the reader of a pipe sleeps; beyond, lines are lost
PIPE_CHUNK = 4096  # bytes: PIPE_BUF (pipe(7)): up to here a write is in one piece, and POLLOUT means it won't wait
FILE_MODE = 0o640  # the group may be the one that ships logs; addresses and users of a site are not for everyone

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # syslog(3)
_EventDict = MutableMapping[str, Any]


_to_json = structlog.processors.JSONRenderer()


def _json(logger: WrappedLogger, method: str, event: _EventDict) -> str | bytes:
    """One line; what people look for stands in front."""
    front = {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event}
    return _to_json(logger, method, {**front, **event})


class _Sink:
    """Where the daemon's log of this process goes; swapped in place, so that bound loggers follow."""

    def __init__(self) -> None:
        self.descriptor = 2
        self.threshold = _LEVELS["info"]
        self.render: Callable[[Any, str, _EventDict], Any] = _json
        self.journal = False  # what we write goes to systemd's
        self.lost = 0

    def filter(self, logger: WrappedLogger, method: str, event: _EventDict) -> _EventDict:
        if _LEVELS.get(method, 40) < self.threshold:
            raise structlog.DropEvent
        return event

    def format(self, logger: WrappedLogger, method: str, event: _EventDict) -> str:
        line = str(self.render(logger, method, event))
        if self.journal:
            # sd-daemon(3): the journal takes the level off each line, for `journalctl --priority`.
            level = f"<{_PRIORITIES.get(method, 3)}>"
            line = level + line.replace("\n", f"\n{level}")
        return line

    def write(self, line: str) -> None:
        data = line.encode(errors="backslashreplace") + b"\n"
        if write_now(self.descriptor, data) < len(data):
            self.lost += 1


_sink = _Sink()


class _Out:
    """The logger that structlog wraps: every level is one write."""

    def msg(self, line: str) -> None:
        _sink.write(line)

    debug = info = warning = error = critical = exception = msg


class _FromLogging(logging.Handler):
    """What libraries say through the standard library's logging."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning"
        getattr(logger(), level)(record.getMessage(), library=record.name)


def configure(table: LogTable, descriptor: int = 2) -> None:
    """Set level and format of this process's log; also of the loggers already given out."""
    _sink.descriptor, _sink.journal = descriptor, is_journal(descriptor, os.environ.get("JOURNAL_STREAM", ""))
    _sink.threshold = _LEVELS[table.level]
    if table.format == "json":
        _sink.render = _json
    else:
        _sink.render = structlog.dev.ConsoleRenderer(
            colors=os.isatty(descriptor), exception_formatter=structlog.dev.plain_traceback
        )
    console = table.format == "console"
    structlog.configure(
        processors=[
            _sink.filter,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(() if console else (structlog.processors.format_exc_info,)),
            _sink.format,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=lambda *_: _Out(),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_FromLogging()]
    root.setLevel(logging.WARNING)


def is_journal(descriptor: int, stream: str) -> bool:
    """Whether it leads to systemd's journal; `stream` is `$JOURNAL_STREAM`, systemd.exec(5)."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return stream == f"{found.st_dev}:{found.st_ino}"


@attrs.define
class Ration:
    """Lines of one kind (tracebacks, say), so many a minute; who asks counts the others elsewhere."""

    per_minute: int = 20  # more of a kind nobody reads
    _told: list[float] = attrs.field(factory=list, init=False)

    def allows(self, now: float) -> bool:
        """Whether one more may be told at `now` (monotonic seconds); then it counts."""
        self._told = [when for when in self._told if now - when < 60.0]
        if len(self._told) >= self.per_minute:
            return False
        self._told.append(now)
        return True


def logger(**context: Any) -> FilteringBoundLogger:
    """A logger whose every line carries `context`."""
    bound: FilteringBoundLogger = structlog.get_logger().bind(**context)
    return bound


def write_now(descriptor: int, data: bytes) -> int:
    """Write as much as goes without waiting; the number of bytes written. Never raises.

    The descriptor is left in blocking mode: stdout and stderr are shared with whoever started us.
    """
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return _write_file(descriptor, data)
        return _write_stream(descriptor, data)
    except OSError:  # the descriptor itself is gone
        return 0


def _write_file(descriptor: int, data: bytes) -> int:
    done = 0
    try:
        while done < len(data):
            done += os.write(descriptor, data[done:] if done else data)
    except OSError:  # ENOSPC, EDQUOT, EIO
        pass
    return done


def _write_stream(descriptor: int, data: bytes) -> int:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    done = 0
    try:
        while done < len(data):
            # Whole lines where they fit, so that the lines of several processes on one pipe don't mix.
            end = min(done + PIPE_CHUNK, len(data))
            line_end = data.rfind(b"\n", done, end) + 1
            if not any(event & select.POLLOUT for _, event in poll.poll(0)):
                break
            done += os.write(descriptor, data[done : line_end or end])
    except OSError:  # EPIPE, EAGAIN
        pass
    return done


@attrs.define(eq=False)
class AccessLog:
    """Lines of finished requests, connections and transactions.

    Made before or after a fork: the buffer belongs to the process. `enabled` lets the hot path skip the formatting.
    """

    target: str | Path = "off"
    log: FilteringBoundLogger | None = None
    enabled: bool = attrs.field(init=False, default=False)
    lost: int = attrs.field(init=False, default=0)  # lines, since the start
    _descriptor: int = attrs.field(init=False, default=-1)
    _lines: list[str] = attrs.field(init=False, factory=list)
    _size: int = attrs.field(init=False, default=0)
    _held: bytes = attrs.field(init=False, default=b"")
    _told: int = attrs.field(init=False, default=0)  # `lost` when it was last told
    _stuck: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        """Opens the target. Raises OSError when that fails: a daemon doesn't start without its log."""
        self._descriptor = _open(self.target)
        self.enabled = self._descriptor >= 0

    def write(self, line: str) -> None:
        """Take one line, without its newline."""
        if not self.enabled:
            return
        self._lines.append(line)
        self._size += len(line)
        if self._size >= FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered. The sweeper calls this; it never raises and never waits."""
        if self._lines:
            self._lines.append("")
            self._held += "\n".join(self._lines).encode(errors="backslashreplace")
            self._lines.clear()
            self._size = 0
        if not self._held:
            return
        self._held = self._held[write_now(self._descriptor, self._held) :]
        if len(self._held) > MAX_HELD:
            kept = self._held.rfind(b"\n", 0, MAX_HELD) + 1
            self.lost += self._held.count(b"\n", kept)
            self._held = self._held[:kept]
        self._tell()

    def reopen(self, target: str | Path | None = None) -> None:
        """Open the file anew (USR1, after a rotation), or another target (reload). Keeps the old one on failure."""
        self.flush()
        wanted = self.target if target is None else target
        try:
            descriptor = _open(wanted)
        except OSError as error:
            self._say("error", "access log not reopened", target=str(wanted), reason=error.strerror)
            return
        self._close_descriptor()
        self.target = wanted
        self._descriptor = descriptor
        self.enabled = descriptor >= 0
        if self.enabled:
            self.flush()
        else:
            self._held = b""

    def close(self) -> None:
        """Flush, and let go of the file."""
        self.flush()
        self._close_descriptor()
        self._descriptor = -1
        self.enabled = False

    def _close_descriptor(self) -> None:
        if self._descriptor > 2:
            os.close(self._descriptor)

    def _tell(self) -> None:
        """Say once that lines are lost, and once, with the number, when writing goes on."""
        if self.lost > self._told and not self._stuck:
            self._stuck = True
            self._say("error", "access log can't be written, lines are lost", target=str(self.target))
        elif self._stuck and not self._held:
            self._stuck = False
            self._say("warning", "access log is written again", lost=self.lost - self._told)
            self._told = self.lost

    def _say(self, level: str, event: str, **context: Any) -> None:
        if self.log is not None:
            getattr(self.log, level)(event, **context)


def _open(target: str | Path) -> int:
    if target == "off":
        return -1
    if target == "stdout":
        sys.stdout.flush()
        return 1
    return os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, FILE_MODE)
