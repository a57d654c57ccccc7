"""A slot that remembers no client: each of its datagrams gets a server of its own, whatever came before it."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import attrs

from edge import outbound
from supervisor.ground.lane import Listening
from supervisor.plane import layout

if TYPE_CHECKING:
    from edge.udp import UdpListener

_IN, _BYTES_IN, _DROPPED = layout.Listener.DATAGRAMS_IN, layout.Listener.BYTES_IN, layout.Listener.DROPPED

buffer = bytearray(outbound.LARGEST)  # one for the process: a datagram is sent on before the next is read
view = memoryview(buffer)


@attrs.define(eq=False)
class Sessionless(ABC):
    """One SO_REUSEPORT socket of the listener."""

    listener: UdpListener
    number: int
    sock: socket.socket
    listening: Listening | None = attrs.field(default=None, init=False)

    def poll(self, handed: Iterable[tuple[Any, socket.socket]]) -> None:
        """Begin to receive. Sessions that another kind of slot `handed` over end here."""
        for _, sock in handed:
            sock.close()
        self.listening = self.listener.lane.watch(self.sock, self.received)

    def received(self) -> None:
        """Datagrams from clients."""
        listener = self.listener
        cells, row = listener.cells, listener.row
        for _ in range(outbound.DATAGRAMS_A_WAKE):
            try:
                size, address = self.sock.recvfrom_into(buffer)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error about an answer of ours
            cells[row + _IN] += 1
            cells[row + _BYTES_IN] += size
            if not self.send(address, size):
                cells[row + _DROPPED] += 1

    @abstractmethod
    def send(self, address: Any, size: int) -> bool:
        """Send on what was read, the first `size` bytes of the buffer; whether some server took it."""
