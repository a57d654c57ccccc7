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


def concerns(text: bytes, several: bool) -> bool:
    """Whether this SQL text, terminator included, could. `several`: more statements may stand in it (a Query)."""
    if text[:3] not in _ORDINARY:
        return len(text) > 1  # an empty one does nothing
    if several and text.find(b";", 0, -2) >= 0:
        return True
    looked_at = text[:LOOKED_AT].lower()
    return b"advisory" in looked_at or b"set_config" in looked_at or (b"temp" in looked_at and b"into" in looked_at)
