"""SASLprep: the examples of RFC 4013, and what PostgreSQL does with what can't be prepared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler.saslprep import saslprep

EXAMPLES = {
    "I\u00adX": "IX",
    "user": "user",
    "USER": "USER",
    "\u00aa": "a",
    "\u2168": "IX",
    "a\u00a0b": "a b",
    "a\tb": "a\tb",  # prohibited: as it is
    "é\x07": "é\x07",
    "\u0627\u0031": "\u0627\u0031",  # bidirectional check fails: as it is
    "\u0627a\u0628": "\u0627a\u0628",
    "\u0627\u0628": "\u0627\u0628",
    "\u00ad": "\u00ad",  # nothing would be left
    "\u0221": "\u0221",  # unassigned in Unicode 3.2
}


@pytest.mark.parametrize(("password", "prepared"), EXAMPLES.items())
def test_examples(password: str, prepared: str) -> None:
    assert saslprep(password) == prepared.encode()


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_property_preparing_twice_changes_nothing(password: str) -> None:
    once = saslprep(password)
    assert saslprep(once.decode()) == once
