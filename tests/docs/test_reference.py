"""conf/reference.toml: what people copy from must load, and the JSON Schema must take it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli.tables import TABLES
from supervisor.ground.config import Config, load
from supervisor.ground.config.schema import json_schema

REFERENCE = Path(__file__).parents[2] / "conf" / "reference.toml"

_PYTHON = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}


@pytest.fixture(scope="module")
def config() -> Config:
    return load(REFERENCE, TABLES, {})


def accepts(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """As much of JSON Schema as ours uses."""
    if "$ref" in schema:
        return accepts(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], value, root)
    if "anyOf" in schema:
        return any(accepts(member, value, root) for member in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    kind = _PYTHON[schema["type"]]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        return False
    if isinstance(value, dict):
        properties, further = schema.get("properties", {}), schema.get("additionalProperties", True)
        return all(name in value for name in schema.get("required", ())) and all(
            accepts(properties[name], item, root)
            if name in properties
            else isinstance(further, dict) and accepts(further, item, root)
            for name, item in value.items()
        )
    if isinstance(value, list):
        return all(accepts(schema["items"], item, root) for item in value)
    if isinstance(value, str):
        return len(value) >= schema.get("minLength", 0) and bool(re.search(schema.get("pattern", ""), value))
    return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))


def test_it_loads_and_uses_every_tier(config: Config) -> None:
    assert all(config.tier(tier).listeners for tier in TABLES)


def test_it_says_what_the_contract_says(config: Config) -> None:
    assert str(config.supervisor.admin) == "127.0.0.1:9900"
    assert config.supervisor.drain_timeout == 60
    assert config.pools["user"].servers[0].max_connections == 500
    assert config.pools["game"].balance == "source_hash"
    assert config.tier("edge").listeners["https"].send_proxy_protocol == "v2"
    assert config.tier("edge").listeners["shared"].routes[1].detect == "ssh"
    assert config.tier("gateway").limits["per_user"].burst == 200
    assert config.tier("pooler").databases["app"].pool_size == 20


def test_every_line_that_matters_is_known(config: Config) -> None:
    lines = REFERENCE.read_text().splitlines()
    for path, start in (
        (("pools", "user", "outlier"), "outlier ="),
        (("gateway", "routes", "checkout", "limits"), "limits ="),
        (("pooler", "auth", "users"), "users ="),
    ):
        assert lines[config.line(path) - 1].startswith(start)


def test_the_schema_takes_it() -> None:
    schema = json_schema(TABLES)
    assert accepts(schema, tomllib.loads(REFERENCE.read_text()), schema)


@pytest.mark.parametrize(
    "text",
    [
        "unknown = 1",
        "[supervisor]\nworkers = 0",
        '[supervisor]\nworkers = "many"',
        '[pools.a]\nbalence = "x"\nservers = []',
        "[pools.a]",
        "[pools.a]\nservers = [{ weight = 1 }]",
        '[pools.a]\nservers = ["x"]',
        '[log]\nlevel = "loud"',
        "[gateway.limits.a]\nkey = 'user'\nrate = 100",
        "[gateway.listeners.a]\nbind = '1.2.3.4:5'\nhttp2 = 'yes'",
        "[gateway.auth.a]\ntype = 'jwt'\nalgorithms = ['RS256']\nsecret = { environment = 'A' }",
    ],
)
def test_the_schema_refuses_what_check_refuses(text: str) -> None:
    schema = json_schema(TABLES)
    assert not accepts(schema, tomllib.loads(text), schema)


def test_the_schema_gives_defaults_and_descriptions() -> None:
    table = json_schema(TABLES)["$defs"]["supervisor.ground.config.tables.SupervisorTable"]
    assert table["properties"]["drain_timeout"]["default"] == "1m"
    assert table["description"] == "[supervisor]: the process tree."
