"""The control socket: commands to the running daemon from who may read its file (mode 0600).

One JSON object on one line asks, one answers; the answer may come later, as that of a reload does. A client costs the
loop nothing while it is silent, and is cut off when it is slow, long-winded or one too many.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
from structlog.typing import FilteringBoundLogger

from supervisor.arbiter.loop import Loop, Timer

MAX_CLIENTS = 64  # at once; people and scripts, not load
MAX_REQUEST = 64 * 1024  # bytes of a line
PATIENCE = 60.0  # seconds for a client to ask, and to take its answer
ANSWER_PATIENCE = 180.0  # seconds for the answer to be made: a rehearsal and the start of all workers have 60 each

_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid

Reply = Callable[[Mapping[str, Any]], None]
Command = Callable[[Mapping[str, Any], Reply], None]


class CannotControl(Exception):
    """The socket can't be made, and why."""


def bind(path: Path) -> socket.socket:
    """The listening socket, mode 0600 from its first moment. One that a dead daemon left is replaced. CannotControl."""
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
        sock.listen(MAX_CLIENTS)
    except OSError as error:
        sock.close()
        raise CannotControl(f"control socket {path}: {error.strerror or error}") from None
    finally:
        os.umask(before)
    return sock


def _clear(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise CannotControl(f"control socket {path}: {error.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise CannotControl(f"control socket {path}: there is a file of that name, and it is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
        except OSError as error:
            raise CannotControl(f"control socket {path}: {error.strerror}") from None
        else:
            raise CannotControl(f"control socket {path}: a daemon (process {peer(probe)[0]}) answers there already")


def peer(sock: socket.socket) -> tuple[int, int]:
    """The process id and the user id of the other end, by the kernel's word (unix(7), SO_PEERCRED)."""
    pid, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, uid


@attrs.define(eq=False)
class Control:
    """The server's side."""

    loop: Loop
    path: Path
    sock: socket.socket
    commands: Mapping[str, Command]
    log: FilteringBoundLogger
    _clients: set[Client] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self.loop.watch(self.sock, self._accept)

    def close(self) -> None:
        """Answer nobody any more, and take the file away."""
        for client in list(self._clients):
            client.close()
        self.loop.forget(self.sock)
        self.sock.close()
        try:
            self.path.unlink(missing_ok=True)
        except OSError:  # the folder has changed hands; the next start replaces a dead one
            pass

    def descriptor(self, reply: Reply) -> int | None:
        """Of the client that waits for this reply; None when it has left."""
        return next((client.sock.fileno() for client in self._clients if client.reply == reply), None)

    def resume(self, sock: socket.socket) -> Reply:
        """A client that has asked an earlier supervisor."""
        client = Client(self, sock)
        self._clients.add(client)
        client.wait()
        return client.reply

    def foreign(self) -> list[socket.socket]:
        """What a child must not hold."""
        return [self.sock, *(client.sock for client in self._clients)]

    def _accept(self) -> None:
        try:
            sock, _ = self.sock.accept()
        except OSError:  # gone again, or no descriptor left: it will ask again
            return
        if len(self._clients) >= MAX_CLIENTS:
            sock.close()
            return
        self._clients.add(Client(self, sock))

    def answer(self, line: bytes, reply: Reply, uid: int) -> None:
        """Carry out one request of a user; `uid` stands in the request, whatever the request says of itself."""
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError
        except (ValueError, RecursionError):
            reply(refusal("a request is one JSON object on one line"))
            return
        name = request.get("command")
        command = self.commands.get(name) if isinstance(name, str) else None
        if command is None:
            reply(refusal(f"unknown command; there are {', '.join(sorted(self.commands))}"))
            return
        try:
            command({**request, "uid": uid}, reply)
        except Exception:  # a question must not end the daemon
            self.log.exception("command failed", command=name)
            reply(refusal(f"{name} failed; the daemon's log says why"))

    def left(self, client: Client) -> None:
        self._clients.discard(client)


def refusal(*errors: str) -> dict[str, Any]:
    """The answer to what can't be done."""
    return {"ok": False, "errors": list(errors)}


class Client:
    """One visit: a line in, a line out."""

    def __init__(self, control: Control, sock: socket.socket) -> None:
        self.control = control
        self.sock = sock
        self._received = bytearray()
        self._to_send = b""
        self._closed = False
        sock.setblocking(False)
        control.loop.watch(sock, self._read)
        self._timer: Timer = control.loop.after(PATIENCE, self.close)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._timer.cancel()
            self.control.loop.forget(self.sock)
            self.sock.close()
            self.control.left(self)

    def _read(self) -> None:
        try:
            data = self.sock.recv(MAX_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received += data
        line, newline, _ = self._received.partition(b"\n")
        if newline:
            # One request a visit: what follows, an end of file too, is not listened to.
            self.wait()
            self.control.answer(bytes(line), self.reply, peer(self.sock)[1])
        elif not data or len(self._received) > MAX_REQUEST:
            self.close()

    def wait(self) -> None:
        """It has asked, and is not listened to any more."""
        self.control.loop.forget(self.sock)
        self._timer.cancel()
        self._timer = self.control.loop.after(ANSWER_PATIENCE, self.close)

    def reply(self, answer: Mapping[str, Any]) -> None:
        if not self._closed:  # it may have left while the answer was made
            self._to_send = json.dumps(answer).encode() + b"\n"
            self._write()

    def _write(self) -> None:
        try:
            self._to_send = self._to_send[self.sock.send(self._to_send) :]
        except BlockingIOError:
            pass
        except OSError:
            self._to_send = b""
        if self._to_send:
            self.control.loop.watch(self.sock, self._write, write=True)
        else:
            self.close()
