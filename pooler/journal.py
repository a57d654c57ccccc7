"""What the statements of a client may have done to its session, until it is known for sure (`settling`).

Owns what is to be asked of the server for that, and the words for what was found.
"""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

import attrs

from pooler.messages import parameter_status
from pooler.parameters import SETTABLE, TRACKED
from pooler.sql import SHARED, Act, Kind, Pin

if TYPE_CHECKING:
    from pooler.client import Client

# What a connection listens to are marks of LISTEN and UNLISTEN that held (`rewriting`).
MARKS = "(SELECT pg_catalog.string_agg(mark, ',') FROM pg_catalog.pg_listening_channels() AS mark)"
CHECKS = {
    Pin.TEMPORARY_TABLE: (
        "EXISTS(SELECT FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema() AND relkind <> 'i')"
    ),
    Pin.ADVISORY_LOCK: (
        "EXISTS(SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid())"
    ),
    Pin.HELD_CURSOR: "EXISTS(SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)",
}
REASONS = {
    Pin.TEMPORARY_TABLE: "temporary table",
    Pin.ADVISORY_LOCK: "advisory lock",
    Pin.HELD_CURSOR: "cursor with hold",
    Pin.SETTING: "unknown setting",
}


def reasons(pins: Pin) -> str:
    """Why a client keeps its server, for people."""
    return ", ".join(text for pin, text in REASONS.items() if pin & pins)


@attrs.define(eq=False)
class Journal:
    """What statements may have done since the server connection was settled last. Names are in lower case."""

    client: Client
    asked: set[str] = attrs.field(factory=set)  # parameters whose value is to be asked for
    dropped: set[str] = attrs.field(factory=set)  # that have their first value again
    all_dropped: bool = False
    checks: Pin = Pin.NONE
    # LISTEN, UNLISTEN and DISCARD ALL with their marks, in order; without one it has held already.
    listens: list[tuple[Act, bytes]] = attrs.field(factory=list)
    _batch: list[Act] = attrs.field(factory=list)

    @property
    def may_listen(self) -> bool:
        """Whether there may be something that an UNLISTEN takes back."""
        return self.client.listening is not None or bool(self.listens)

    def note(self, act: Act, mark: bytes = b"") -> None:
        """It was executed; its batch is not over."""
        self.client.unsettled = True
        if act.kind in SHARED or act.kind is Kind.DISCARD_ALL:
            self.listens.append((act, mark))
        self._batch.append(act)
        self.checks |= act.makes | (act.lifts & self.client.pins)

    def end_batch(self, certain: bool) -> bytes:
        """`certain`: all of it was committed. Else it may have been rolled back, then or later. What the client is to
        be told before it hears that: a RESET gives it what it began with, whatever the server has told."""
        batch, self._batch = self._batch, []
        for act in batch:
            names = set(act.parameters)
            if act.kind is Kind.SET or (act.kind is Kind.RESET and not certain):
                self.asked |= names
                self.dropped -= names
            elif act.kind is Kind.RESET:
                self.dropped |= names
                self.asked -= names
            elif act.kind in (Kind.RESET_ALL, Kind.DISCARD_ALL):
                self._drop_all(act, certain)
        base = self.client.base if self.all_dropped or self.dropped else {}
        return b"".join(
            parameter_status(name, value)
            for name, value in base.items()
            if name in SETTABLE and (self.all_dropped or name.lower() in self.dropped)
        )

    def _drop_all(self, act: Act, certain: bool) -> None:
        if certain:
            self.all_dropped = True
            self.asked.clear()
        else:
            self.asked |= {name.lower() for name in self.client.settings}
        if act.kind is Kind.DISCARD_ALL:
            self.checks |= self.client.pins

    def question(self, reported: Container[str]) -> tuple[list[str], list[Pin]]:
        """The parameters and the pins to ask for; those that the server has `reported` need not be."""
        names = sorted(name for name in self.asked if TRACKED.get(name, name) not in reported)
        return names, [pin for pin in CHECKS if pin & self.checks]

    def clear(self) -> None:
        """All is known."""
        self.asked.clear()
        self.dropped.clear()
        self._batch.clear()
        self.listens.clear()
        self.all_dropped, self.checks = False, Pin.NONE
        self.client.unsettled = False
