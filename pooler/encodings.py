"""Encodings as PostgreSQL calls them: what text from one connection is to a client with another client_encoding.

Source: PostgreSQL 24.3 "Character Set Support".
"""

from __future__ import annotations

import codecs
from functools import lru_cache

UTF8 = "UTF8"
ANY = "SQL_ASCII"  # bytes that nobody converts
# Of PostgreSQL's names those that Python knows by others; EUC_TW and MULE_INTERNAL it does not know at all.
_CALLED = {"WIN": "cp", "KOI8R": "koi8_r", "KOI8U": "koi8_u", "EUC_CN": "gb2312", "ISO_8859_": "iso8859_"}


@lru_cache(maxsize=64)
def codec(client: str, server: str) -> str | None:
    """Python's codec for a client with this client_encoding, at a database with this server_encoding; None where UTF-8
    (or what nobody converts) is right as it is."""
    if server == ANY:
        return None
    name = server if client == ANY else client
    if name == UTF8:
        return None
    for prefix, other in _CALLED.items():
        if name.startswith(prefix):
            name = other + name.removeprefix(prefix)
    try:
        return codecs.lookup(name).name
    except LookupError:
        return "ascii"


def recoded(data: bytes, source: str | None, target: str | None) -> bytes:
    """The same text in another codec, None being UTF-8; what can't be said there is a question mark."""
    if source == target or data.isascii():
        return data
    return data.decode(source or "utf-8", "replace").encode(target or "utf-8", "replace")
