"""Header edits of a route: what it takes away from a message, sets and adds. Made of whole lines, without CRLF.

Requests are edited when everything else about them is decided, answers when their head is read; the framing and what
the gateway itself says are not to be edited, which the configuration sees to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from gateway.answers import Answer, AnswerReader


@attrs.frozen
class Edits:
    """`gone` are names in lower case; `lines` stand at the end."""

    gone: frozenset[bytes]
    lines: tuple[bytes, ...]

    def apply(self, lines: list[bytes]) -> list[bytes]:
        """Of a head's lines, the first of which is no field's. A part may hold several lines, joined by CRLF."""
        if self.gone:
            lines = [lines[0], *(line for part in lines[1:] for line in part.split(b"\r\n") if not self._takes(line))]
        return [*lines, *self.lines]

    def _takes(self, line: bytes) -> bool:
        return line.partition(b":")[0].lower() in self.gone


def edits(set_: Mapping[str, str], add: Mapping[str, str], remove: Sequence[str]) -> Edits:
    """What a configuration asks for."""
    lines = [f"{name}: {value}".encode() for written in (set_, add) for name, value in written.items()]
    return Edits(frozenset(name.lower().encode() for name in (*set_, *remove)), tuple(lines))


class EditedAnswerReader(AnswerReader):
    """Reads answers' heads as a route's clients are to see them. Interim answers stay as they are."""

    __slots__ = ("_edits",)

    def __init__(self, edits: Edits) -> None:
        super().__init__()
        self._edits = edits

    def judge(self, data: bytes, end: int) -> Answer:
        status, out, flags, length, dated = super().judge(data, end)
        if status >= 200:
            out = self._edits.apply(out)
        return status, out, flags, length, dated
