"""Patterns of the names in certificates: which of them one takes."""

from __future__ import annotations


def fits(pattern: str, name: str) -> bool:
    """An exact name; "*.example.com" for one label more; "spiffe://site/*" for all that begins so; "*" for any."""
    if pattern.startswith("*."):
        return name.partition(".")[2].lower() == pattern[2:].lower()
    if pattern.endswith("/*"):
        return name.startswith(pattern[:-1])
    return pattern == "*" or name == pattern or ("/" not in pattern and name.lower() == pattern.lower())


def is_pattern(text: str) -> bool:
    """Whether the asterisk stands where it can."""
    return text == "*" or (bool(text) and "*" not in text.removeprefix("*.").removesuffix("/*"))
