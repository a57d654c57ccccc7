"""What a service manager is told, in the words of sd_notify(3): datagrams of `KEY=VALUE` lines to `$NOTIFY_SOCKET`.

Without that variable nothing is sent and nothing costs anything. A manager that has gone or is stuck never holds the
daemon up: a message that can't be sent now is lost, and counted.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

import attrs

MICROSECONDS = 1_000_000


@attrs.define(eq=False)
class Notifier:
    """The sending end. `watchdog` is how often to beat, in seconds; None: nobody watches."""

    address: str | bytes | None = None
    watchdog: float | None = None
    lost: int = attrs.field(default=0, init=False)
    _running: bool = attrs.field(default=False, init=False)  # between `ready` and `stopping`
    _socket: socket.socket | None = attrs.field(default=None, init=False)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], pid: int) -> Notifier:
        """The variables stay in place: new code that is executed in this process needs them as well."""
        name = environ.get("NOTIFY_SOCKET", "")
        if name[:1] not in ("/", "@"):
            return cls()
        address: str | bytes = b"\0" + os.fsencode(name[1:]) if name[0] == "@" else name
        return cls(address, watchdog_interval(environ, pid))

    def __bool__(self) -> bool:
        return self.address is not None

    def ready(self, status: str) -> None:
        """It works."""
        self._running = True
        self.send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """`reloaded` follows. The time lets systemd tell this reload's end from an earlier one's."""
        if not self._running:
            return  # READY=1 at its end would be said too early, or too late
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.send("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reloading")

    def reloaded(self, status: str) -> None:
        """Whatever the outcome: it serves by the new file or goes on with the old."""
        if self._running:
            self.ready(status)

    def stopping(self, status: str, patience: float) -> None:
        """The end has begun and takes at most `patience` seconds, however short the manager's own time is."""
        self._running = False
        self.send("STOPPING=1", f"STATUS={status}", f"EXTEND_TIMEOUT_USEC={int(patience * MICROSECONDS)}")

    def beat(self) -> None:
        """Once in each `watchdog` seconds."""
        self.send("WATCHDOG=1")

    def send(self, *lines: str) -> None:
        """One message; a value has no line breaks."""
        if self.address is None:
            return
        try:
            if self._socket is None:
                kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
                self._socket = socket.socket(socket.AF_UNIX, kind)
            data = "\n".join(line.replace("\n", " ") for line in lines).encode(errors="replace")
            self._socket.sendto(data, self.address)
        except OSError:
            self.lost += 1

    def close(self) -> None:
        """Also in a child, whose word nobody would take."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Half the time that the manager waits, as sd_watchdog_enabled(3) advises; None if it doesn't watch us."""
    try:
        wait = int(environ.get("WATCHDOG_USEC", "0"))
        watched = int(environ.get("WATCHDOG_PID", pid))
    except ValueError:
        return None
    return wait / MICROSECONDS / 2 if wait > 0 and watched == pid else None
