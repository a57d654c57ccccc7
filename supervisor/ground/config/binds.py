"""Two listeners on one address: found when the file is read, across all tiers and the admin.

What only the kernel knows (another program on the port) is found when the sockets are opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .problems import Path, Problem, show_path
from .values import Bind

_ANY = {"0.0.0.0", "::"}  # every address of the family


def clashes(taken: Mapping[str, Any]) -> Iterator[Problem]:
    """A problem for each address that an earlier table has already; `taken` holds the tables by name."""
    ports: dict[tuple[str, int, int], list[tuple[Bind, Path]]] = {}
    for path, protocol, bind in _binds(taken):
        if bind.port == 0 and not bind.is_local:  # the kernel gives each its own
            continue
        # "[::]" is IPv6 only here, so the families don't meet.
        others = ports.setdefault((protocol, bind.family, bind.port), [])
        for other, earlier in others:
            if other == bind:
                yield Problem(path, f"{bind} is already taken by {show_path(earlier)}")
                break
            if _ANY & {other.host, bind.host}:
                yield Problem(path, f"{bind} is already taken by {show_path(earlier)}, on {other}")
                break
        others.append((bind, path))


def _binds(taken: Mapping[str, Any]) -> Iterator[tuple[Path, str, Bind]]:
    admin = getattr(taken.get("supervisor"), "admin", None)
    if isinstance(admin, Bind):
        yield ("supervisor", "admin"), "tcp", admin
    for tier, table in taken.items():
        listeners = getattr(table, "listeners", None)
        for name, listener in listeners.items() if isinstance(listeners, Mapping) else ():
            bind = getattr(listener, "address", None) or getattr(listener, "bind", None)
            if isinstance(bind, Bind):
                yield (tier, "listeners", name, "bind"), getattr(listener, "protocol", "tcp"), bind
