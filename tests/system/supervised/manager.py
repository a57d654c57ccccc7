"""A stand-in for systemd: it hears what the daemon says (sd_notify), and starts it with sockets (LISTEN_FDS).

Run as a program it is the launcher: `manager.py [--listen HOST:PORT]... [--plain] -- COMMAND...` binds, sets the
variables and executes the command, as systemd does after its fork.
"""

from __future__ import annotations

import itertools
import os
import socket
import sys
from pathlib import Path

import attrs

FIRST = 3  # SD_LISTEN_FDS_START


@attrs.define(eq=False)
class Manager:
    """The hearing side."""

    address: Path
    sock: socket.socket
    heard: list[dict[str, str]] = attrs.Factory(list)

    @classmethod
    def listen(cls, folder: Path) -> Manager:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sock.bind(str(folder / "notify"))
        return cls(folder / "notify", sock)

    def prefix(self, watchdog: float = 0.0) -> tuple[str, ...]:
        """What starts the daemon with this manager."""
        seconds = (f"WATCHDOG_USEC={int(watchdog * 1e6)}",) if watchdog else ()
        return ("env", f"NOTIFY_SOCKET={self.address}", *seconds)

    def hear(self) -> list[dict[str, str]]:
        """All messages so far."""
        while True:
            try:
                lines = self.sock.recv(4096).decode().split("\n")
            except BlockingIOError:
                return self.heard
            self.heard.append(dict(line.split("=", 1) for line in lines))

    def words(self) -> list[str]:
        """The first word of each message, watchdogs left out."""
        return [next(iter(message)) for message in self.hear() if "WATCHDOG" not in message]


def activating(*addresses: str, plain: bool = False) -> tuple[str, ...]:
    """A prefix that starts the daemon with listening sockets on these; `plain`: without ReusePort=yes."""
    listen = [word for address in addresses for word in ("--listen", address)]
    return (sys.executable, __file__, *listen, *(("--plain",) if plain else ()), "--")


def main(arguments: list[str]) -> None:
    at = arguments.index("--")
    options, command = arguments[:at], arguments[at + 1 :]
    sockets = []
    for flag, address in itertools.pairwise(options):
        if flag != "--listen":
            continue
        kind = socket.SOCK_DGRAM if address.startswith("udp:") else socket.SOCK_STREAM
        host, _, port = address.removeprefix("udp:").rpartition(":")
        sock = socket.socket(socket.AF_INET, kind)
        if "--plain" not in options:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, int(port)))
        if kind == socket.SOCK_STREAM:
            sock.listen(100)
        sockets.append(sock)
    high = [os.dup2(sock.fileno(), 100 + number) for number, sock in enumerate(sockets)]
    for sock in sockets:
        sock.close()
    for number, fd in enumerate(high):
        os.dup2(fd, FIRST + number)
        os.close(fd)
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(high))}
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
