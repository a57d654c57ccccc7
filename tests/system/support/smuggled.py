"""Servers that read requests in different ways, and tell what they read.

`strict` reads by h11. The others are as careless as real servers have been: lines end with a bare LF, names may have
blanks before the colon and underscores for hyphens, folded lines go on, sizes end at the first thing that is no digit;
`length` believes Content-Length where both are there, `coding` anything that has "chunked" in it.
"""

from __future__ import annotations

import re
import socket
import threading

import h11

KINDS = ("strict", "length", "coding")
MAX = 1 << 20  # bytes of one request that is never complete


class Reader:
    """One of the kinds, behind a socket of its own. `targets` are those of all requests it saw."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.targets: list[str] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listening.getsockname()[1]}"

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()
        for sock in self._open:
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            self._open.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            (self._strictly if self.kind == "strict" else self._carelessly)(sock)
        except (OSError, h11.RemoteProtocolError, ValueError):
            pass
        finally:
            sock.close()

    def _answer(self, sock: socket.socket, target: str) -> None:
        self.targets.append(target)
        body = target.encode("latin-1")
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def _strictly(self, sock: socket.socket) -> None:
        connection = h11.Connection(h11.SERVER)
        target = ""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(sock.recv(1 << 16))
            elif isinstance(event, h11.Request):
                target = event.target.decode("latin-1")
            elif isinstance(event, h11.EndOfMessage):
                self._answer(sock, target)
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                connection.start_next_cycle()
            elif isinstance(event, h11.ConnectionClosed):
                return

    def _carelessly(self, sock: socket.socket) -> None:
        data = b""
        while True:
            found = self._whole(data)
            if found is not None:
                target, size = found
                data = data[size:]
                self._answer(sock, target)
                continue
            more = sock.recv(1 << 16)
            if not more or len(data) > MAX:
                return
            data += more

    def _whole(self, data: bytes) -> tuple[str, int] | None:
        """The target and the size of the request that `data` begins with, as this kind reads it."""
        end = re.search(rb"\r?\n\r?\n", data)
        if end is None:
            return None
        lines = re.split(rb"\r?\n", re.sub(rb"\r?\n[ \t]+", b" ", data[: end.start()].lstrip(b"\r\n")))
        words = re.split(rb"[ \t]+", lines[0])
        target = words[1].decode("latin-1") if len(words) > 1 else ""
        fields: dict[bytes, list[bytes]] = {}
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            fields.setdefault(name.strip().lower().replace(b"_", b"-"), []).append(value.strip())
        length = fields.get(b"content-length", [])
        chunked = any(b"chunked" in value.lower() for value in fields.get(b"transfer-encoding", []))
        if chunked and not (length and self.kind == "length"):
            size = _chunks(data, end.end())
            return None if size is None else (target, size)
        size = end.end() + (_number(length[0], 10) if length else 0)
        return (target, size) if len(data) >= size else None


def _number(text: bytes, base: int) -> int:
    digits = re.match(rb"[+\s]*(?:0x)?([0-9a-fA-F]+)" if base == 16 else rb"[+\s]*([0-9]+)", text)
    return int(digits[1], base) if digits else 0


def _chunks(data: bytes, at: int) -> int | None:
    """Where a chunked body ends, read carelessly."""
    while True:
        line = re.compile(rb"[^\n]*\n").match(data, at)
        if line is None:
            return None
        size = _number(line[0], 16)
        at = line.end()
        if not size:
            end = re.compile(rb"(?:[^\n]+\n)*?\r?\n").match(data, at)
            return None if end is None else end.end()
        at += size
        end = re.compile(rb"\r?\n").match(data, at)
        if end is None:
            return None if len(data) < at + 2 else at
        at = end.end()
