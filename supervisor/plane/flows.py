"""UDP flows: which client goes to which server from which local port, kept for the worker that comes next.

Every slot of a UDP listener has a segment of its own, an open-addressing table that only the slot's owner writes.
A flow counts once its meta cell is stored, which is last, so an owner may die at any store. The local port is the
point: a successor binds the same one, and the server sees no new peer.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import NamedTuple

from supervisor.plane import layout
from supervisor.plane.layout import FlowMeta
from supervisor.plane.locks import LockResult, lock
from supervisor.plane.region import PlaneError, PlaneFullError, Region

MAX_FILL = layout.FLOWS_PER_SEGMENT * 7 // 8  # rows in use; beyond, searches get long

_MASK = layout.FLOWS_PER_SEGMENT - 1
_WORD = (1 << 64) - 1
_MIX = 0x9E3779B97F4A7C15  # 2**64 / golden ratio (Knuth 6.4): spreads ports and last octets over the high bits
_SHIFT = 64 - layout.FLOWS_PER_SEGMENT.bit_length() + 1
_MAPPED = bytes(10) + b"\xff\xff"
_PORT_MASK = 0xFFFF
_CLIENT_MASK = FlowMeta.USED | _PORT_MASK << FlowMeta.CLIENT_PORT


class FoundFlow(NamedTuple):
    host: str  # as it was given
    port: int
    server_row: int
    local_port: int
    seen: int  # monotonic ns


class FlowSegment:
    """The flows of one slot. Only the slot's owner calls `put`, `touch` and `remove`."""

    __slots__ = ("_base", "_cells", "_used")

    def __init__(self, region: Region, number: int) -> None:
        self._cells = region.cells
        self._base = layout.FLOWS_AT + number * layout.FLOWS_PER_SEGMENT * layout.FLOW_CELLS
        self._used = sum(1 for meta in self._metas() if meta & FlowMeta.USED)

    def __len__(self) -> int:
        return self._used

    def put(self, host: str, port: int, server_row: int, local_port: int, now_ns: int) -> bool:
        """Note a flow, or a client's new server and port. False if the segment is full: the flow then moves when its
        worker dies."""
        high, low, ipv4 = _words(host)
        cells = self._cells
        at, known = self._find(high, low, port)
        if not known:
            if self._used >= MAX_FILL or at < 0:
                return False
            self._used += 1
            cells[at + layout.Flow.HIGH] = high
            cells[at + layout.Flow.LOW] = low
        cells[at + layout.Flow.SEEN] = now_ns
        meta = FlowMeta.USED | port << FlowMeta.CLIENT_PORT | local_port << FlowMeta.LOCAL_PORT | server_row
        cells[at + layout.Flow.META] = meta | FlowMeta.IPV4 if ipv4 else meta
        return True

    def touch(self, host: str, port: int, now_ns: int) -> None:
        """Note that the flow is in use; from a sweep, not with each datagram."""
        high, low, _ = _words(host)
        at, known = self._find(high, low, port)
        if known:
            self._cells[at + layout.Flow.SEEN] = now_ns

    def remove(self, host: str, port: int) -> bool:
        """Forget a flow; False if there was none."""
        high, low, _ = _words(host)
        at, known = self._find(high, low, port)
        if not known:
            return False
        cells = self._cells
        cells[at + layout.Flow.META] = FlowMeta.REMOVED
        self._used -= 1
        # Where no search goes on behind it, a removed row is as good as a new one, and so are those before it.
        row = (at - self._base) // layout.FLOW_CELLS
        following = self._base + (row + 1 & _MASK) * layout.FLOW_CELLS + layout.Flow.META
        if not cells[following]:
            while cells[meta := self._base + row * layout.FLOW_CELLS + layout.Flow.META] == FlowMeta.REMOVED:
                cells[meta] = 0
                row = row - 1 & _MASK
        return True

    def find(self, host: str, port: int) -> FoundFlow | None:
        high, low, _ = _words(host)
        at, known = self._find(high, low, port)
        return self._flow(at, self._cells[at + layout.Flow.META]) if known else None

    def __iter__(self) -> Iterator[FoundFlow]:
        """Those that were there when the iteration began; they may be removed meanwhile."""
        for row, meta in enumerate(self._metas()):
            if meta & FlowMeta.USED:
                yield self._flow(self._base + row * layout.FLOW_CELLS, meta)

    def _metas(self) -> list[int]:
        start = self._base + layout.Flow.META
        return self._cells[start : start + layout.FLOWS_PER_SEGMENT * layout.FLOW_CELLS : layout.FLOW_CELLS].tolist()

    def _find(self, high: int, low: int, port: int) -> tuple[int, bool]:
        """The flow's row and True; or the row it would get (-1: none) and False."""
        cells, base = self._cells, self._base
        wanted = FlowMeta.USED | port << FlowMeta.CLIENT_PORT
        row = ((high ^ low ^ port << 40) * _MIX & _WORD) >> _SHIFT
        free = -1
        for _ in range(layout.FLOWS_PER_SEGMENT):
            at = base + row * layout.FLOW_CELLS
            meta = cells[at + layout.Flow.META]
            if not meta:
                return (at if free < 0 else free), False
            if meta & FlowMeta.REMOVED:
                if free < 0:
                    free = at
            elif meta & _CLIENT_MASK == wanted and cells[at + layout.Flow.LOW] == low and cells[at] == high:
                return at, True
            row = row + 1 & _MASK
        return free, False

    def _flow(self, at: int, meta: int) -> FoundFlow:
        cells = self._cells
        packed = cells[at + layout.Flow.HIGH].to_bytes(8, "big") + cells[at + layout.Flow.LOW].to_bytes(8, "big")
        ipv4 = meta & FlowMeta.IPV4
        return FoundFlow(
            host=socket.inet_ntop(socket.AF_INET, packed[12:]) if ipv4 else socket.inet_ntop(socket.AF_INET6, packed),
            port=meta >> FlowMeta.CLIENT_PORT & _PORT_MASK,
            server_row=meta & _PORT_MASK,
            local_port=meta >> FlowMeta.LOCAL_PORT & _PORT_MASK,
            seen=cells[at + layout.Flow.SEEN],
        )


class Flows:
    """The segments by listener and slot."""

    __slots__ = ("_region",)

    def __init__(self, region: Region) -> None:
        self._region = region

    def segment(self, listener_row: int, slot: int) -> FlowSegment:
        """The slot's segment, empty if it never had one. Raises PlaneFullError, PlaneError if the lock is held up."""
        owner = _owner(listener_row, slot)
        directory = self._directory()
        if owner in directory:
            return FlowSegment(self._region, directory.index(owner))
        mutex = lock(self._region, layout.SEGMENTS_LOCK)
        if mutex.acquire() is LockResult.TIMED_OUT:
            raise PlaneError("a stopped process holds the directory of flows")
        try:
            directory = self._directory()
            number = directory.index(owner if owner in directory else 0)
            self._region.cells[layout.SEGMENTS_AT + number] = owner  # one store: nothing for a recovery to repair
        except ValueError:
            raise PlaneFullError(f"flows of {layout.SEGMENTS} slots can be kept, not of more") from None
        finally:
            mutex.release()
        return FlowSegment(self._region, number)

    def _directory(self) -> list[int]:
        return self._region.cells[layout.SEGMENTS_AT : layout.SEGMENTS_AT + layout.SEGMENTS].tolist()


def release(region: Region, listener_row: int) -> None:
    """Empty and free all segments of a listener that is gone. Supervisor only."""
    cells = region.cells
    for number in range(layout.SEGMENTS):
        owner = cells[layout.SEGMENTS_AT + number]
        if owner and owner - 1 >> 8 == listener_row:
            base = layout.FLOWS_AT + number * layout.FLOWS_PER_SEGMENT * layout.FLOW_CELLS
            for at in range(base, base + layout.FLOWS_PER_SEGMENT * layout.FLOW_CELLS, layout.FLOW_CELLS):
                if cells[at + layout.Flow.META]:
                    cells[at + layout.Flow.META] = 0
            cells[layout.SEGMENTS_AT + number] = 0


def _owner(listener_row: int, slot: int) -> int:
    return (listener_row << 8 | slot) + 1


def _words(host: str) -> tuple[int, int, bool]:
    """The client's address as two words; whether it was IPv4. A scope (`%eth0`) is not kept."""
    if ":" in host:
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
        return int.from_bytes(packed[:8], "big"), int.from_bytes(packed[8:], "big"), False
    packed = _MAPPED + socket.inet_pton(socket.AF_INET, host)
    return 0, int.from_bytes(packed[8:], "big"), True
