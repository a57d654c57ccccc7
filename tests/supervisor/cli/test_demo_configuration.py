"""The demo's configuration is one that Portway accepts, with every part of the picture in it."""

from pathlib import Path

import pytest

from supervisor.cli.demo.configuration import Places, write_configuration
from supervisor.cli.demo.credentials import Issuer, write_certificate, write_private
from supervisor.cli.tables import TABLES
from supervisor.ground.config import load


@pytest.fixture
def places(tmp_path: Path) -> Places:
    services = {"user": {"user-1": 8101, "user-2": 8102}, "feed": {"feed-1": 8201}, "payment": {"payment-1": 8301}}
    return Places(folder=tmp_path, https=8443, gateway=8444, rtmp=1935, sql=6432, admin=9900, game=7777,
                  services=services, games={"game-1": 7101, "game-2": 7102}, ingests={"ingest-1": 1936})  # fmt: skip


def test_portway_accepts_it(places: Places) -> None:
    issuer = Issuer()
    issuer.add_key("k", "RS256")
    issuer.write_jwks(places.jwks)
    write_certificate(places.folder)
    write_private(places.users, b'"app" "x"\n')
    write_private(places.folder / "password", b"x")
    config = load(write_configuration(places, "127.0.0.1:5432", "127.0.0.1:5433", issuer.name, issuer.audience), TABLES)
    assert set(config.pools) == {"game", "ingest", "gateway", "user", "feed", "payment", "pg_primary", "pg_replicas"}
    assert [str(server.address) for server in config.pools["user"].servers] == ["127.0.0.1:8101", "127.0.0.1:8102"]
    assert set(config.tier("edge").listeners) == {"https", "game", "rtmp"}
    assert set(config.tier("gateway").routes) == {"user", "feed", "checkout"}
    assert set(config.tier("pooler").databases) == {"app", "feed"}
