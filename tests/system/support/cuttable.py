"""A wire that can be cut: a TCP relay which, while it is cut, keeps every connection and passes nothing on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

READ = 64 * 1024


@attrs.define(eq=False)
class Wire:
    """Between whoever connects to `port` and the target."""

    target: tuple[str, int]
    whole: threading.Event = attrs.field(factory=threading.Event)
    _listener: socket.socket = attrs.field(factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _open: list[socket.socket] = attrs.field(factory=list)

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def cut(self) -> None:
        """Silence, until `mend`."""
        self.whole.clear()

    def mend(self) -> None:
        """New connections pass; those that were cut are closed, as by a firewall that has forgotten them."""
        for sock in self._open:
            _close(sock)
        self._open.clear()
        self.whole.set()

    def run(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.target)
            except OSError:
                near.close()
                continue
            self._open += (near, far)
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(READ):
                self.whole.wait()
                sink.sendall(data)
        except OSError:
            pass
        _close(source)
        _close(sink)

    def close(self) -> None:
        _close(self._listener)
        self.mend()


def _close(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    sock.close()


@contextmanager
def wire(host: str, port: int) -> Iterator[Wire]:
    """One that is whole, to this address."""
    made = Wire((host, port))
    made.whole.set()
    threading.Thread(target=made.run, daemon=True).start()
    try:
        yield made
    finally:
        made.close()
