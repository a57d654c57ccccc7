"""Run-time parameters of clients and servers: what ParameterStatus reported, what else was set (`settling`), and what
must be SET before a server changes hands.

A set of values is an immutable mapping, interned: clients and servers with the same values share one object, so that
the hot path compares by identity and an idle client pays eight bytes for all its parameters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from weakref import WeakValueDictionary

from pooler.messages import parameter_status

# What a client may ask for at startup, and PostgreSQL reports (GUC_REPORT); by lower-cased name, for SET knows no case.
# Servers report different ones: default_transaction_read_only since 14, scram_iterations since 16, search_path since
# 18.
TRACKED = {
    name.lower(): name
    for name in (
        "application_name",
        "client_encoding",
        "DateStyle",
        "default_transaction_read_only",
        "IntervalStyle",
        "scram_iterations",
        "search_path",
        "standard_conforming_strings",
        "TimeZone",
    )
}
# What else a session can change: the others that are reported (server_version, is_superuser, ...) are the server's.
SETTABLE = frozenset({*TRACKED.values(), "session_authorization"})


class Values(dict[str, str]):
    """Parameters by name. Never changed once made: `intern` and `changed` return others."""

    __slots__ = ("__weakref__", "_packed")
    _packed: bytes

    def key(self) -> tuple[tuple[str, str], ...]:
        return tuple(sorted(self.items()))

    def pack(self) -> bytes:
        """For another worker; `unpack` makes them of it. Connections that wander make the same again and again."""
        try:
            return self._packed
        except AttributeError:
            self._packed = packed = json.dumps(self).encode()
            return packed


_interned: WeakValueDictionary[tuple[tuple[str, str], ...], Values] = WeakValueDictionary()
_unpacked: WeakValueDictionary[bytes, Values] = WeakValueDictionary()


def intern(values: Mapping[str, str]) -> Values:
    """The one object for these values; two that are equal are the same object."""
    made = Values(values)
    return _interned.setdefault(made.key(), made)


def unpack(packed: bytes) -> Values:
    """What `Values.pack` has made; raises ValueError for anything else."""
    values = _unpacked.get(packed)
    if values is None:
        made = json.loads(packed)
        if not isinstance(made, dict):
            raise ValueError("not a set of parameters")
        values = _unpacked[packed] = intern(made)
    return values


EMPTY = intern({})


def changed(values: Values, news: Mapping[str, str]) -> Values:
    """The values with these laid over them."""
    if all(values.get(name) == value for name, value in news.items()):
        return values
    return intern({**values, **news})


def settable(values: Mapping[str, str]) -> Values:
    """Only those that a session can set: what a client keeps when it moves to another server."""
    return intern({name: value for name, value in values.items() if name in SETTABLE})


def differences(wanted: Values, current: Values, first: Values = EMPTY) -> dict[str, str | None]:
    """What must be set on a server with `current` before a client that wants `wanted` may use it; None is RESET.
    `first` is what the server had at login."""
    differing: dict[str, str | None] = {name: value for name, value in wanted.items() if current.get(name) != value}
    for name, value in current.items():
        if name not in wanted and first.get(name) != value:
            differing[name] = first.get(name)
    return differing


def set_statement(differing: Mapping[str, str | None]) -> str:
    """One Query that sets them all: one round trip, and all or none. SET would take a list of schemas for one name."""
    # A role may not be allowed to set what its user is: it goes first, and comes last.
    ordered = sorted(differing, key=lambda name: (name == "role", name != "session_authorization"))
    resets = [f"RESET {_identifier(name)}" for name in ordered if differing[name] is None or name == "role"]
    calls = [
        f"pg_catalog.set_config({quoted(name)},{quoted(value)},false)"
        for name in ordered
        if (value := differing[name]) is not None
    ]
    resets.sort(key=lambda statement: statement != 'RESET "role"')
    return ";".join(resets + (["SELECT " + ",".join(calls)] if calls else []))


def _identifier(name: str) -> str:
    """A parameter's name; one with a dot is of two parts."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


def quoted(value: str) -> str:
    """A string constant that means the same whether standard_conforming_strings is on or off."""
    return "E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def greeting(values: Mapping[str, str]) -> bytes:
    """The ParameterStatus messages that a client gets at login."""
    return b"".join(parameter_status(name, value) for name, value in values.items())
