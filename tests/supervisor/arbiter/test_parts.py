"""What the roof hands over: a file is read with the tables of the tiers that there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from supervisor.arbiter.parts import Parts
from supervisor.ground.config import ConfigError
from supervisor.ground.tier import Tier, Worker


@attrs.frozen(kw_only=True)
class Table:
    greeting: str = "hello"


async def once(worker: Worker) -> None: ...


def start(worker: Worker) -> Any: ...


TIER = Tier(name="web", table=Table, listeners=lambda config: (), rows=lambda config: (), start=start)


def test_each_tier_has_its_table_and_no_other_has_one(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    parts = Parts((TIER,), prober=once, admin=once)
    path.write_text('[web]\ngreeting = "good day"\n')
    assert parts.load(path).tier("web") == Table(greeting="good day")
    path.write_text("[wep]\n")
    with pytest.raises(ConfigError, match='wep: unknown key; did you mean "web"'):
        parts.load(path)
