"""What the gateway asks of the supervisor, and what it does with a reload."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import REASONS
from gateway.tier import REASON_CODES, TIER
from supervisor.ground.config import load_bytes
from supervisor.plane.layout import Kind
from tests.gateway.house import PLAIN, House

LIMITED = PLAIN + '[gateway.limits.few]\nkey = "route"\nrate = "1/s"\n'


@pytest.fixture
def house() -> Iterator[House]:
    house = House(PLAIN)
    yield house
    house.gateway.close()
    house.lane.finish()
    house.plane.close()


def test_listeners_and_rows_follow_the_configuration(tmp_path: Path) -> None:
    config = load_bytes(LIMITED.encode(), "t.toml", tmp_path, {"gateway": TIER.table})
    assert [(spec.name, str(spec.bind)) for spec in TIER.listeners(config)] == [("web", "127.0.0.1:80")]
    assert set(TIER.rows(config)) == {(Kind.ROUTE, "-"), (Kind.ROUTE, "web"), (Kind.LIMIT, "few")}
    assert TIER.inherit(config) == {}


def test_reasons_keep_their_numbers() -> None:
    # Counters in the plane outlive a reload and an upgrade: new codes go to the end.
    assert tuple(REASONS) == REASON_CODES
    assert REASON_CODES[:3] == ("bad_request_line", "bad_field", "bad_host")


def test_a_reload_without_rows_is_refused_and_changes_nothing(house: House, tmp_path: Path) -> None:
    text = PLAIN + '[gateway.routes.other]\npool = "web"\npath = "/other"\n'
    config = load_bytes(text.encode(), "t.toml", tmp_path, {"gateway": TIER.table})
    before = house.gateway._listeners["web"].plan
    with pytest.raises(ValueError, match="no row for the route other"):
        house.gateway.prepare(config)
    assert house.gateway._listeners["web"].plan is before


def test_a_new_listener_comes_with_a_reload(house: House) -> None:
    house.reload(PLAIN + '[gateway.listeners.more]\nbind = "127.0.0.1:81"\n')
    assert set(house.gateway._listeners) == {"web", "more"}
    house.reload(PLAIN)
    assert set(house.gateway._listeners) == {"web"}
