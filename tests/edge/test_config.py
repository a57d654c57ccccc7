"""[edge]: what a listener may be told, and what is refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.config import EdgeTable
from supervisor.ground.config import ConfigError, load_bytes

POOLS = '[pools.a]\nservers = ["127.0.0.1:1"]\n[pools.b]\nservers = ["127.0.0.1:2"]\n'


def load(listener: str) -> EdgeTable:
    text = f'{POOLS}[edge.listeners.l]\nbind = "127.0.0.1:80"\n{listener}\n'
    table: EdgeTable = load_bytes(text.encode(), "test.toml", Path("/nonexistent"), {"edge": EdgeTable}).tier("edge")
    return table


def problems(listener: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(listener)
    return str(caught.value).splitlines()


def test_a_transparent_listener_takes_servers_of_its_family_and_by_name() -> None:
    listener = (
        'pool = "{}"\ntransparent = true\n[pools.n]\nservers = ["db.example:1"]\n[pools.s]\nservers = ["[::1]:1"]'
    )
    assert load(listener.format("n")).listeners["l"].transparent
    assert any("another family" in line for line in problems(listener.format("s")))


def test_routes_stand_in_their_order() -> None:
    routes = load('routes = [{ sni = "*.a.example", alpn = "h2", pool = "a" }, { pool = "b" }]').listeners["l"].routes
    assert [(route.sni, route.alpn, route.detect, route.pool) for route in routes] == [
        ("*.a.example", "h2", None, "a"),
        (None, None, None, "b"),
    ]


@pytest.mark.parametrize(
    ("listener", "problem"),
    [
        ("", "exactly one of pool and routes is needed"),
        ('pool = "a"\nroutes = [{ pool = "b" }]', "exactly one of pool and routes is needed"),
        ('routes = [{ pool = "aa" }]', "aa"),
        ('routes = [{ sni = "A.example", pool = "a" }]', "lower case"),
        ('routes = [{ sni = "a.*.example", pool = "a" }]', "lower case"),
        ('routes = [{ alpn = "", pool = "a" }]', "1 to 255 bytes"),
        ('routes = [{ detect = "shh", pool = "a" }]', '"ssh"'),
        ('routes = [{ detect = "ssh", sni = "a", pool = "a" }]', "told by TLS alone"),
        ('routes = [{ pool = "a" }, { sni = "a", pool = "b" }]', "never reached: route 0"),
        ('routes = [{ detect = "mysql", pool = "a" }, { detect = "smtp", pool = "b" }]', "never reached: route 0"),
        ('protocol = "udp"\npool = "a"\naccept_proxy_protocol = ["::1"]', "streams only"),
        ('protocol = "udp"\nroutes = [{ pool = "a" }]', "datagrams are not told apart"),
    ],
)
def test_what_makes_no_sense_is_refused(listener: str, problem: str) -> None:
    assert any(problem in line for line in problems(listener))
