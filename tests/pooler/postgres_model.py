"""A model of how PostgresMain answers, for the property test of `states`: only kinds of messages, errors wherever it
likes."""

from __future__ import annotations

from hypothesis import strategies as st

from pooler.messages import message

COMPLETIONS = {"P": ["1"], "B": ["2"], "C": ["3"], "D": ["tT", "tn", "T", "n"], "E": ["C", "DC", "Ds", "I", "COPY"]}


class PostgresModel:
    """Consumes a client's bytes message by message; `data` decides what happens."""

    def __init__(self, data: st.DataObject, copies: bool = False) -> None:
        self.data = data
        self.copies = copies  # every query and every execute begins COPY FROM STDIN
        self.skipping = False
        self.copying = ""  # Q or E: who began the COPY
        self.dirty = False  # something since the last ReadyForQuery
        self.status = b"I"
        self.dead = False

    def can_step(self, pending: bytes) -> bool:
        return self._whole(pending) is not None

    def idle(self, pending: bytes) -> bool:
        """Nothing owed, nothing begun; CopyData and the like that it will ignore may be under way."""
        while (found := self._whole(pending)) is not None:
            if found[0] not in "dcfH":
                return False
            pending = pending[found[1] :]
        return not pending and not (self.skipping or self.copying or self.dirty) and self.status == b"I"

    @staticmethod
    def _whole(pending: bytes) -> tuple[str, int] | None:
        if len(pending) < 5:
            return None
        size = int.from_bytes(pending[1:5], "big") + 1
        return (chr(pending[0]), size) if len(pending) >= size else None

    def step(self, pending: bytes) -> tuple[bytes, bytes]:
        """Reads one message (or fails all by itself inside a COPY): what is left to read, and the answer."""
        if self.copying and self.data.draw(st.integers(0, 9)) == 0:
            return pending, self._fail(self.copying == "E")  # a cancel, a timeout
        found = self._whole(pending)
        assert found is not None
        kind, size = found
        return pending[size:], self._read(kind)

    def _read(self, kind: str) -> bytes:
        if self.copying:
            return self._read_copying(kind)
        if self.skipping and kind != "S":
            return b""
        if kind == "S":
            self.skipping = False
            return (message(b"E") if self._draw_failure() else b"") + self._ready()
        if kind in "dcf":
            return b""
        if kind == "H":
            return b""
        self.dirty = True
        if self._draw_failure():
            return self._fail(kind in COMPLETIONS)
        if kind == "F":
            return message(b"V") + self._ready()
        if kind == "Q" and self.copies:
            self.copying = "Q"
            return message(b"G")
        if kind == "Q":
            return self._statements()
        copies = self.copies and kind == "E"
        answer = "COPY" if copies else self.data.draw(st.sampled_from(COMPLETIONS[kind]))
        if answer == "COPY":
            self.copying = "E"
            return message(b"G")
        return self._plain(answer)

    def _statements(self) -> bytes:
        """The rest of a simple query: some results, perhaps a COPY, then ReadyForQuery."""
        answer = self._plain(self.data.draw(st.sampled_from(["", "TDC", "I", "CC", "HdcC"])))
        what = self.data.draw(st.sampled_from(["end", "end", "end", "copy", "fail"]))
        if what == "copy":
            self.copying = "Q"
            return answer + message(b"G")
        return answer + (message(b"E") if what == "fail" else b"") + self._ready()

    def _read_copying(self, kind: str) -> bytes:
        by_execute = self.copying == "E"
        if kind in "HS":
            return b""
        if kind == "d":
            return self._fail(by_execute) if self._draw_failure() else b""
        if kind == "f" or (kind == "c" and self._draw_failure()):
            return self._fail(by_execute)
        if kind == "c":
            self.copying = ""
            return message(b"C") + (b"" if by_execute else self._statements())
        self.dead = True
        return b""

    def _fail(self, extended: bool) -> bytes:
        self.copying = ""
        if extended:
            self.skipping = True
            return message(b"E")
        return message(b"E") + self._ready()

    def _ready(self) -> bytes:
        self.dirty = False
        self.status = self.data.draw(st.sampled_from([b"I", b"I", b"T", b"E"]))
        return message(b"Z", self.status)

    def _draw_failure(self) -> bool:
        return self.data.draw(st.integers(0, 3)) == 0

    def _plain(self, kinds: str) -> bytes:
        noise = self.data.draw(st.sampled_from([b"", b"", message(b"N", b"x"), message(b"A")]))
        return noise + b"".join(message(kind.encode()) for kind in kinds)
