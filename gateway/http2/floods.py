"""Guards against clients that keep an HTTP/2 connection busy with next to nothing.

Frames that cost us more than their sender are counted a second; one above the number ends the connection with
ENHANCE_YOUR_CALM. The numbers are far above what clients do (curl, browsers and gRPC stay under 20 a second of each)
and far below what hurts. Window updates are measured by what we send, since a fast download asks for many.

Rapid reset (CVE-2023-44487): of each 500 streams, more than half reset within a second of their opening. Streams that
the client makes us reset by breaking the protocol count as well (CVE-2025-8671).
"""

from __future__ import annotations

from typing import Final

from gateway.http2.errors import ENHANCE_YOUR_CALM, ConnectionFault

PINGS_A_SECOND: Final = 200
SETTINGS_A_SECOND: Final = 50
TRIFLES_A_SECOND: Final = 1_000  # PRIORITY, frames of unknown types, and those for streams that are gone
UPDATES_A_SECOND: Final = 1_000  # beside those that DATA earns
UPDATES_A_FRAME: Final = 4  # for each DATA frame sent: stream and connection, and twice as often as needed
MAX_UPDATES: Final = 16 * UPDATES_A_SECOND  # of what DATA has earned, carried over
EMPTY_DATA_A_SECOND: Final = 100  # without END_STREAM: such a frame says nothing at all

STREAMS_WATCHED: Final = 500
EARLY_RESETS: Final = STREAMS_WATCHED // 2
EARLY_SECONDS: Final = 1.0


class FloodGuard:
    """Counts for one connection."""

    __slots__ = ("_resets", "_since", "empty", "pings", "settings", "streams", "trifles", "updates")

    def __init__(self) -> None:
        self.pings = PINGS_A_SECOND  # what is left of each in this second
        self.settings = SETTINGS_A_SECOND
        self.trifles = TRIFLES_A_SECOND
        self.updates = UPDATES_A_SECOND
        self.empty = EMPTY_DATA_A_SECOND
        self.streams = 0  # opened since the resets were last forgotten
        self._since = 0.0
        self._resets = 0

    def refill(self, now: float) -> None:
        """Begin a new second, if one has begun."""
        if now - self._since >= 1.0:
            self._since = now
            self.pings = PINGS_A_SECOND
            self.settings = SETTINGS_A_SECOND
            self.trifles = TRIFLES_A_SECOND
            self.updates = min(max(self.updates, UPDATES_A_SECOND), MAX_UPDATES)
            self.empty = EMPTY_DATA_A_SECOND

    def watch_anew(self) -> None:
        """The stream that is being opened is the first of the next STREAMS_WATCHED."""
        self.streams = 1
        self._resets = 0

    def was_reset(self, age: float) -> None:
        """A stream of this age, in seconds, was reset by the client or for a fault of the client."""
        if age < EARLY_SECONDS:
            self._resets += 1
            if self._resets > EARLY_RESETS:
                raise flood("streams that are reset as soon as they are opened")


def flood(what: str) -> ConnectionFault:
    return ConnectionFault(ENHANCE_YOUR_CALM, f"too many of {what}")
