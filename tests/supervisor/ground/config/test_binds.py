"""Two listeners on one address."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import attrs
import pytest

from supervisor.ground.config import Bind, ConfigError, load_bytes


@attrs.frozen(kw_only=True)
class Listener:
    bind: Bind
    protocol: Literal["tcp", "udp"] = "tcp"


@attrs.frozen(kw_only=True)
class Table:
    listeners: Mapping[str, Listener] = attrs.field(factory=dict)


def problems(text: str) -> list[str]:
    try:
        load_bytes(text.encode(), "a.toml", Path("/"), {"one": Table, "two": Table}, {})
    except ConfigError as error:
        return str(error).splitlines()
    return []


def test_the_same_address_twice_is_said_across_tiers() -> None:
    assert problems('one.listeners.a.bind = "1.2.3.4:5"\ntwo.listeners.b.bind = "1.2.3.4:5"') == [
        "a.toml:2: two.listeners.b.bind: 1.2.3.4:5 is already taken by one.listeners.a.bind"
    ]


def test_the_admin_s_address_is_taken_too() -> None:
    assert problems('supervisor.admin = "[::1]:9"\none.listeners.a.bind = "[0::1]:9"') == [
        "a.toml:2: one.listeners.a.bind: [::1]:9 is already taken by supervisor.admin"
    ]


@pytest.mark.parametrize(
    ("one", "two"), [("0.0.0.0:5", "1.2.3.4:5"), ("1.2.3.4:5", "0.0.0.0:5"), ("[::]:5", "[::1]:5")]
)
def test_all_addresses_of_a_port_are_taken_by_any_of_them(one: str, two: str) -> None:
    assert problems(f'one.listeners.a.bind = "{one}"\ntwo.listeners.b.bind = "{two}"') == [
        f"a.toml:2: two.listeners.b.bind: {two} is already taken by one.listeners.a.bind, on {one}"
    ]


@pytest.mark.parametrize(
    "text",
    [
        'one.listeners.a.bind = "[::]:5"\none.listeners.b.bind = "0.0.0.0:5"',
        'one.listeners.a = { bind = "0.0.0.0:5" }\none.listeners.b = { bind = "1.2.3.4:5", protocol = "udp" }',
        'one.listeners.a = { bind = "1.2.3.4:5" }\none.listeners.b = { bind = "1.2.3.4:5", protocol = "udp" }',
        'one.listeners.a.bind = "1.2.3.4:5"\none.listeners.b.bind = "1.2.3.4:6"',
        'one.listeners.a.bind = "1.2.3.4:0"\none.listeners.b.bind = "1.2.3.4:0"',
    ],
)
def test_what_does_not_clash_passes(text: str) -> None:
    assert problems(text) == []


def test_a_listener_that_has_a_problem_is_left_aside() -> None:
    assert problems("one.listeners.a = 3\none.listeners.b.bind = 3\ntwo.listeners = 4") == [
        "a.toml:1: one.listeners.a: must be a table, not an integer",
        'a.toml:2: one.listeners.b.bind: must be an address such as "127.0.0.1:8080", not an integer',
        "a.toml:3: two.listeners: must be a table, not an integer",
    ]
