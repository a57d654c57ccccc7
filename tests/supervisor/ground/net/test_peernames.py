"""Patterns of the names in certificates."""

from __future__ import annotations

import pytest

from supervisor.ground.net.peernames import fits, is_pattern


@pytest.mark.parametrize(("pattern", "name", "taken"), [
    ("a.example", "A.example", True), ("*.example", "a.example", True), ("*.example", "b.a.example", False),
    ("*.example", "example", False), ("spiffe://site/*", "spiffe://site/a/b", True),
    ("spiffe://site/*", "spiffe://sites/a", False), ("spiffe://site/a", "spiffe://site/A", False),
    ("*", "anybody", True),
    ("a@example", "a@example", True), ("192.0.2.1", "192.0.2.1", True), ("a.example", "xa.example", False),
])  # fmt: skip
def test_patterns_of_names(pattern: str, name: str, taken: bool) -> None:
    assert fits(pattern, name) is taken


@pytest.mark.parametrize(("text", "fine"), [
    ("*", True), ("*.a", True), ("a", True), ("spiffe://a/*", True), ("", False), ("a.*", False), ("*a", False),
    ("**", False), ("*.*", False),
])  # fmt: skip
def test_where_an_asterisk_can_stand(text: str, fine: bool) -> None:
    assert is_pattern(text) is fine
