"""Whole files: from disk, by reload, and the one law: nothing but ConfigError comes out."""

from __future__ import annotations

import datetime
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from supervisor.ground.config import Config, ConfigError, load, load_bytes

GOOD = """\
[supervisor]
workers = 2
admin = "127.0.0.1:9900"

[log]
access = "logs/access.log"

[pools.user]
balance = "least_connections"
servers = [{ address = "127.0.0.1:8101", weight = 2, max_connections = 500 }, "[::1]:8102"]
health = { type = "http", path = "/healthz", interval = "3s" }
outlier = { consecutive_failures = 5, eject = "30s", max_ejected = "50%" }
"""


def test_a_file_is_loaded_from_disk(tmp_path: Path) -> None:
    path = tmp_path / "portway.toml"
    path.write_text(GOOD)
    config = load(path, {})
    assert config.path == path
    assert config.directory == tmp_path
    assert config.log.access == tmp_path / "logs/access.log"
    assert config.line(("pools", "user", "health", "path")) == 11


def test_a_relative_name_stays_in_messages_and_becomes_absolute_in_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/a.toml").write_text("pols = 1")
    (tmp_path / "conf/b.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r'\Aconf/a.toml:1: pols: unknown key; did you mean "pools"\?\Z'):
        load("conf/a.toml", {})
    assert load("conf/b.toml", {}).path == tmp_path / "conf/b.toml"


def test_the_contract_s_own_example_of_an_error() -> None:
    text = "\n" * 12 + '[pools.user]\nbalence = "round_robin"\nservers = ["127.0.0.1:1"]\n'
    with pytest.raises(ConfigError) as caught:
        load_bytes(text.encode(), "reference.toml", Path("/"), {}, {})
    assert str(caught.value) == 'reference.toml:14: pools.user.balence: unknown key; did you mean "balance"?'


def test_a_config_survives_pickle() -> None:
    config = load_bytes(GOOD.encode(), "a.toml", Path("/x"), {}, {})
    again: Config = pickle.loads(pickle.dumps(config))
    assert again == config
    assert again.line(("log", "access")) == config.line(("log", "access"))


def test_two_files_with_the_same_values_are_equal_wherever_their_lines_are() -> None:
    one = load_bytes(GOOD.encode(), "a.toml", Path("/x"), {}, {})
    assert load_bytes(b"# moved\n" + GOOD.encode(), "a.toml", Path("/x"), {}, {}) == one


def write(values: dict[str, Any]) -> str:
    """A dictionary as TOML: strings as JSON writes them, tables inline."""

    def value(item: Any) -> str:
        if isinstance(item, dict):
            return "{" + ", ".join(f"{json.dumps(key)} = {value(inner)}" for key, inner in item.items()) + "}"
        if isinstance(item, list):
            return "[" + ", ".join(map(value, item)) + "]"
        if isinstance(item, datetime.date):
            return item.isoformat()
        return json.dumps(item) if isinstance(item, (str, bool)) else repr(item)

    return "\n".join(f"{json.dumps(key)} = {value(item)}" for key, item in values.items())


# The words of the contract, so that what is drawn gets past the first table.
WORDS = st.sampled_from(
    [
        *(
            "supervisor",
            "workers",
            "admin",
            "control",
            "drain_timeout",
            "pop",
            "user",
            "group",
            "log",
            "level",
            "access",
        ),
        *(
            "pools",
            "balance",
            "servers",
            "health",
            "outlier",
            "address",
            "weight",
            "backup",
            "type",
            "interval",
            "fall",
        ),
        *("path", "host", "status", "port", "initial", "password", "eject", "max_eject", "max_ejected", "env", "file"),
        *("auto", "127.0.0.1:80", "[::1]:80", "3s", "50%", "http", "tcp", "postgres", "stdout", "off", "/", "a"),
    ]
)
SCALARS = (
    WORDS
    | st.text(max_size=8)
    | st.integers()
    | st.booleans()
    | st.floats()
    | st.dates(min_value=datetime.date(1000, 1, 1))
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=4)
)


def outcome(data: bytes) -> Config | ConfigError:
    try:
        return load_bytes(data, "a.toml", Path("/base"), {}, {})
    except ConfigError as error:
        return error


@given(st.dictionaries(WORDS, VALUES, max_size=5))
@example({"pools": {"a": {"servers": [{}], "health": {}, "outlier": 3}}})
@example({"supervisor": {"user": "a\0b"}})
def test_property_any_values_make_a_config_or_a_configerror(values: dict[str, Any]) -> None:
    loaded = outcome(write(values).encode("utf-8", "replace"))
    if isinstance(loaded, ConfigError):
        assert loaded.problems
        assert all(line.startswith("a.toml") for line in str(loaded).splitlines())
    else:
        assert pickle.loads(pickle.dumps(loaded)) == loaded


@given(st.integers(0, len(GOOD)), st.integers(0, 20), st.text(max_size=5))
def test_property_a_good_file_with_a_part_replaced(start: int, length: int, text: str) -> None:
    data = (GOOD[:start] + text + GOOD[start + length :]).encode("utf-8", "replace")
    loaded = outcome(data)
    assert isinstance(loaded, Config) or loaded.problems
