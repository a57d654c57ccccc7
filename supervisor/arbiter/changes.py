"""What a reload changes, by key: the answer of `portway reload` and the line in the log. Keys only, never values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from supervisor.ground.config import Config, Path, show_path

_ABSENT = object()


def changes(old: Config, new: Config) -> list[str]:
    """The keys that differ, as the file writes them: `pools.user.servers`, `gateway.routes.feed`. A table that came or
    went is one key; a list is one key; so is a file whose contents changed."""
    found: list[Path] = []
    for name in ("supervisor", "log", "pools"):
        found += _differing(getattr(old, name), getattr(new, name), (name,))
    found += _differing(old.tiers, new.tiers, ())
    return [show_path(path) for path in found]


def _differing(old: Any, new: Any, path: Path) -> Iterator[Path]:
    if old is new or old == new:
        return
    before, after = _members(old), _members(new)
    if before is None or after is None or type(old) is not type(new):
        yield path
        return
    for key in dict.fromkeys((*before, *after)):
        yield from _differing(before.get(key, _ABSENT), after.get(key, _ABSENT), (*path, key))


def _members(value: Any) -> Mapping[str, Any] | None:
    """What stands in a table; None for anything else. A value type (an address, a file) is no table: it has no keys."""
    if isinstance(value, Mapping):
        return value
    if attrs.has(type(value)) and not hasattr(type(value), "from_config"):
        return {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}
    return None
