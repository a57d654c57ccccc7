"""A cheap look at a client's message: whether it could matter to the session beyond its transaction.

On the hot path of every client that shares its server. May say yes for nothing (then `sql` reads the text), never no
for something that it knows: named statements, and texts that begin like a statement of the session, hold several
statements, or name the functions that lock and set. What stands behind `LOOKED_AT` bytes is seen only if another
statement begins there.
"""

from __future__ import annotations

# bytes of a text in which the names of functions are searched: a bulk INSERT must not be read twice.
LOOKED_AT = 4096

# What a text may begin with that can't matter, by its first three letters, in the two spellings that people use.
_ORDINARY = frozenset(
    spelled
    for word in (b"select", b"insert", b"update", b"delete", b"with", b"merge", b"values", b"copy", b"fetch", b"move",
                 b"begin", b"start", b"commit", b"end", b"rollback", b"abort", b"savepoint", b"release", b"show",
                 b"table", b"lock", b"notify", b"truncate", b"vacuum", b"analyze")
    for spelled in (word[:3], word[:3].upper())
)  # fmt: skip


MAX_REMEMBERED = 4096  # texts that can't matter; then all are forgotten
MAX_REMEMBERED_SIZE = 1024  # bytes of one
_ALIKE = bytes(0x30 if 0x30 <= byte <= 0x39 else byte for byte in range(256))  # texts differ in their numbers, mostly
_passed: set[bytes] = set()


def concerns(text: bytes, several: bool) -> bool:
    """Whether this SQL text, terminator included, could. `several`: more statements may stand in it (a Query)."""
    text = text.translate(_ALIKE)  # nothing that is looked for has a digit
    if text in _passed:  # half the price of looking
        return False
    if text[:3] not in _ORDINARY:
        return len(text) > 1  # an empty one does nothing
    if several and text.find(b";", 0, -2) >= 0:
        return True
    looked_at = text.lower() if len(text) <= LOOKED_AT else text[:LOOKED_AT].lower()
    # A single byte is found at a tenth of what a word costs: v of advisory, _ of set_config, mp of temp.
    if (
        (118 in looked_at and b"advisory" in looked_at)
        or (95 in looked_at and 103 in looked_at and b"set_config" in looked_at)
        or (109 in looked_at and 112 in looked_at and b"temp" in looked_at and b"into" in looked_at)
    ):
        return True
    if len(text) <= MAX_REMEMBERED_SIZE:
        if len(_passed) >= MAX_REMEMBERED:
            _passed.clear()
        _passed.add(text)
    return False
