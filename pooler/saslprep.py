"""SASLprep (RFC 4013) of a password, as PostgreSQL applies it: what can't be prepared is used as the bytes it is.

Owns only the string; `scram` hashes it.
"""

from __future__ import annotations

import stringprep
import unicodedata

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,  # unassigned in Unicode 3.2: a stored string may not hold them
)


def saslprep(password: str) -> bytes:
    """The prepared password in UTF-8; the password itself where preparation is not defined for it."""
    if password.isascii():
        # Control characters are prohibited, and a prohibited string is taken as it is: either way the bytes don't
        # change.
        return password.encode()
    mapped = "".join(
        " " if stringprep.in_table_c12(c) else c for c in password if not stringprep.in_table_b1(c)
    )  # 2.1: other spaces become a space, some characters vanish
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if not prepared or any(table(c) for c in prepared for table in _PROHIBITED) or not _bidirectional(prepared):
        return password.encode()
    return prepared.encode()


def _bidirectional(text: str) -> bool:
    """RFC 3454 6: with one right-to-left character, none may be left-to-right, and first and last must be
    right-to-left."""
    if not any(stringprep.in_table_d1(c) for c in text):
        return True
    if any(stringprep.in_table_d2(c) for c in text):
        return False
    return stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
