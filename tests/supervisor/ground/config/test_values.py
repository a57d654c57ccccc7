"""Durations, sizes, rates, percentages, addresses, networks."""

from __future__ import annotations

import pickle
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.ground.config import Address, Bind, Duration, Network, Percent, Place, Rate, Size

PLACE = Place(Path("/etc"), {})


def read(kind: Any, raw: str) -> Any:
    return kind.from_config(raw, PLACE)


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        (Duration, "500ms", 0.5),
        (Duration, "3s", 3.0),
        (Duration, "5m", 300.0),
        (Duration, "1h", 3600.0),
        (Duration, "2d", 172800.0),
        (Duration, "1.5s", 1.5),
        (Duration, "0", 0.0),
        (Duration, "0s", 0.0),
        (Size, "512B", 512),
        (Size, "16KiB", 16384),
        (Size, "1MiB", 1 << 20),
        (Size, "2GiB", 2 << 30),
        (Size, "1KB", 1000),
        (Rate, "100/s", Rate(100, 1)),
        (Rate, "1000/m", Rate(1000, 60)),
        (Rate, "1/h", Rate(1, 3600)),
        (Percent, "50%", 0.5),
        (Percent, "0%", 0.0),
        (Percent, "12.5%", 0.125),
        (Bind, "127.0.0.1:80", Bind("127.0.0.1", 80)),
        (Bind, "[::1]:443", Bind("::1", 443)),
        (Bind, "[0:0::1]:443", Bind("::1", 443)),
        (Bind, "localhost:1", Bind("127.0.0.1", 1)),
        (Bind, "0.0.0.0:0", Bind("0.0.0.0", 0)),
    ],
)
def test_what_is_written_right_is_read(kind: Any, raw: str, value: object) -> None:
    assert read(kind, raw) == value


@pytest.mark.parametrize(
    ("kind", "raw", "message"),
    [
        (Duration, "3", '"3" is not a duration such as "500ms", "3s", "5m" or "1h"'),
        (Duration, "-3s", '"-3s" is not a duration such as "500ms", "3s", "5m" or "1h"'),
        (Duration, "3 s", '"3 s" is not a duration such as "500ms", "3s", "5m" or "1h"'),
        (Duration, "٣s", '"٣s" is not a duration such as "500ms", "3s", "5m" or "1h"'),
        (Duration, "4000d", '"4000d" is longer than ten years'),
        (Size, "16kib", '"16kib" is not a size such as "512B", "16KiB" or "1MiB"'),
        (Size, "16777216GiB", '"16777216GiB" is too large'),
        (Rate, "0/s", "a rate of zero would admit nothing"),
        (Rate, "5/sec", '"5/sec" is not a rate such as "100/s" or "1000/m"'),
        (Percent, "101%", '"101%" is not a percentage from "0%" to "100%"'),
        (Percent, "0.5", '"0.5" is not a percentage from "0%" to "100%"'),
        (Bind, "127.0.0.1", '"127.0.0.1" is not an address such as "127.0.0.1:8080" or "[::1]:8080"'),
        (Bind, ":80", '":80" is not an address such as "127.0.0.1:8080" or "[::1]:8080"'),
        (Bind, "::1:80", '"::1:80" is not an address such as "127.0.0.1:8080" or "[::1]:8080"'),
        (Bind, "127.0.0.1:65536", "port 65536 is above 65535"),
        (Bind, "db.example:5432", '"db.example" is not an IP address'),
        (Bind, "[127.0.0.1]:1", '"127.0.0.1" is not an IP address'),
        (Network, "10.0.0.1/8", '"10.0.0.1/8" has bits set beyond its prefix; did you mean "10.0.0.0/8"?'),
        (Network, "ten", '"ten" is not a network such as "10.0.0.0/8"'),
    ],
)
def test_what_is_written_wrong_is_said(kind: Any, raw: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read(kind, raw)
    assert str(caught.value) == message


def test_a_rate_knows_its_interval() -> None:
    assert Rate(100, 1).interval_ns == 10_000_000
    assert Rate(1, 60).interval_ns == 60_000_000_000


def test_an_address_is_ready_for_a_socket() -> None:
    assert Bind("::1", 80).family == socket.AF_INET6
    assert Bind("127.0.0.1", 80).family == socket.AF_INET
    assert Bind("127.0.0.1", 80).sockaddr == ("127.0.0.1", 80)


def test_a_network_contains_mapped_addresses() -> None:
    network = read(Network, "127.0.0.0/8")
    assert "127.9.9.9" in network
    assert "::ffff:127.0.0.1" in network
    assert "128.0.0.1" not in network
    assert "::1" not in network
    assert "fe80::1%eth0" in read(Network, "fe80::/10")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Duration(0.5), "500ms"),
        (Duration(90), "90s"),
        (Duration(1.5), "1.5s"),
        (Duration(120), "2m"),
        (Duration(0), "0s"),
        (Duration(86400), "1d"),
        (Size(16384), "16KiB"),
        (Size(1000), "1000B"),
        (Size(0), "0B"),
        (Rate(5, 60.0), "5/m"),
        (Percent(0.5), "50%"),
        (Bind("::1", 80), "[::1]:80"),
        (Network.from_config("10.0.0.0/8", PLACE), "10.0.0.0/8"),
    ],
)
def test_a_value_is_shown_as_it_is_written(value: Any, text: str) -> None:
    assert str(value) == text
    assert read(type(value), text) == value


@pytest.mark.parametrize("kind", [Duration, Size, Rate, Percent, Bind, Network])
def test_a_value_survives_pickle_with_its_type(kind: Any) -> None:
    raw = {Duration: "3s", Size: "1KiB", Rate: "1/s", Percent: "1%", Bind: "1.2.3.4:5", Network: "::/0"}[kind]
    value = read(kind, raw)
    again = pickle.loads(pickle.dumps(value))
    assert again == value
    assert type(again) is kind


@pytest.mark.parametrize("kind", [Duration, Size, Rate, Percent, Bind, Network])
@given(raw=st.text(max_size=30) | st.from_regex(r"[0-9.:/a-zA-Z%\[\]]{0,20}"))
def test_property_only_valueerror_and_the_schema_agrees(kind: Any, raw: str) -> None:
    try:
        read(kind, raw)
    except ValueError:
        pass
    else:
        assert re.search(kind.SCHEMA["pattern"], raw)


@pytest.mark.parametrize(
    ("raw", "host", "port"),
    [
        ("App.Internal:8080", "app.internal", 8080),
        ("app:1", "app", 1),
        ("a_b.example.:80", "a_b.example.", 80),
        ("_http._tcp.app.internal", "_http._tcp.app.internal", 0),
        ("127.0.0.1:80", "127.0.0.1", 80),
        ("[::1]:80", "::1", 80),
        ("localhost:80", "127.0.0.1", 80),
    ],
)
def test_a_server_may_be_given_by_name(raw: str, host: str, port: int) -> None:
    address = Address.from_config(raw, PLACE)
    assert (address.host, address.port) == (host, port)
    assert address.is_name == (host[0] not in "1:")
    if address.is_name:
        assert str(address) == raw.lower()


@pytest.mark.parametrize(
    "raw",
    ["10.0.0.300:80", "app.internal", "app..internal:80", "-app:80", "app:http", "app:65536", "a b:80"],
)
def test_what_is_neither_an_address_nor_a_name_is_refused(raw: str) -> None:
    with pytest.raises(ValueError):
        Address.from_config(raw, PLACE)


def test_a_bind_is_never_a_name() -> None:
    with pytest.raises(ValueError):
        Bind.from_config("app.internal:80", PLACE)
    assert not Bind("127.0.0.1", 80).is_name
