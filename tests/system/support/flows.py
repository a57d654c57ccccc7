"""UDP flows at work: numbered datagrams from several clients at a steady pace, and what became of every one.

Each client keeps its source port; the server's answer names the server and the address that it saw, so a flow that
moved (another server, or another source port) is seen with the next answer, and a lost datagram by its number. The
answers come a while later, so that some are under way whatever moment it is.
"""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from tests.system.support.clients import UdpClient
from tests.system.support.poll import until

PACE = 0.02  # s between two datagrams of a flow
LATER = 30  # ms until the server answers
LAST = 3.0  # s for the last answers


@attrs.define(eq=False)
class Flow:
    """One client."""

    client: UdpClient
    sent: int = 0
    answered: set[int] = attrs.Factory(set)
    peers: list[tuple[str, str]] = attrs.Factory(list)  # (server, source) whenever another than before

    def send(self) -> None:
        self.sent += 1
        self.client.sock.send(f"later {LATER} {self.sent}".encode())

    def read(self) -> None:
        answer = json.loads(self.client.sock.recv(65535, socket.MSG_DONTWAIT))
        self.answered.add(int(answer["data"].split()[-1]))
        peer = (answer["server"], str(answer["source"]))
        if not self.peers or self.peers[-1] != peer:
            self.peers.append(peer)

    @property
    def lost(self) -> list[int]:
        return sorted(set(range(1, self.sent + 1)) - self.answered)


@attrs.define(eq=False)
class Flows:
    """All of them, driven by one thread."""

    flows: list[Flow]
    over: threading.Event = attrs.Factory(threading.Event)

    def run(self) -> None:
        poll = select.poll()
        by_fd = {flow.client.sock.fileno(): flow for flow in self.flows}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        due = time.monotonic()
        while not self.over.is_set():
            for fd, _ in poll.poll(max(0.0, due - time.monotonic()) * 1000):
                by_fd[fd].read()
            if time.monotonic() >= due:
                due += PACE
                for flow in self.flows:
                    flow.send()
        end = time.monotonic() + LAST
        while any(flow.lost for flow in self.flows) and time.monotonic() < end:
            for fd, _ in poll.poll(100):
                by_fd[fd].read()

    def more(self, count: int = 5) -> None:
        """Wait for so many further answers on each flow."""
        targets = [len(flow.answered) + count for flow in self.flows]
        until(
            lambda: all(len(flow.answered) >= target for flow, target in zip(self.flows, targets, strict=True)),
            "more answers on every flow",
            20,
        )

    def moved(self) -> list[list[tuple[str, str]]]:
        return [flow.peers for flow in self.flows if len(flow.peers) > 1]

    def lost(self) -> list[list[int]]:
        return [flow.lost for flow in self.flows if flow.lost]


@contextmanager
def flowing(address: str, count: int) -> Iterator[Flows]:
    """`count` flows; at the end of the block the last answers are awaited, so that `lost` is the truth."""
    clients = [UdpClient(address) for _ in range(count)]
    flows = Flows([Flow(client) for client in clients])
    thread = threading.Thread(target=flows.run)
    thread.start()
    try:
        flows.more()
        yield flows
    finally:
        flows.over.set()
        thread.join()
        for client in clients:
            client.sock.close()
