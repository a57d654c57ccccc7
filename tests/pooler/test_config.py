"""[pooler]: what is accepted, what is refused, and what pools it makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pooler.config import PoolerTable, pool_names, users_of
from pooler.settings import pool_settings
from supervisor.ground.config import Config, ConfigError, load

SMALL = """
[pools.pg]
servers = ["127.0.0.1:5432"]
[pooler.listeners.main]
bind = "127.0.0.1:6432"
[pooler.databases.app]
primary = "pg"
[pooler.auth]
users = "users.txt"
"""


@pytest.fixture
def configure(tmp_path: Path) -> object:
    def made(text: str, users: str = '"app" "secret"\n"other" "secret"\n') -> Config:
        (tmp_path / "users.txt").write_text(users)
        path = tmp_path / "portway.toml"
        path.write_text(text)
        return load(path, {"pooler": PoolerTable})

    return made


def table(config: Config) -> PoolerTable:
    found: PoolerTable = config.tier("pooler")
    return found


def test_the_smallest_one_and_its_defaults(configure) -> None:  # type: ignore[no-untyped-def]  # a fixture's function
    found = table(configure(SMALL))
    settings = pool_settings(found, "app", "app")
    assert settings is not None
    assert (settings.mode, settings.size, settings.database, settings.group) == ("transaction", 20, "app", "pg")
    assert (settings.query_wait_timeout, settings.server_lifetime, settings.server_idle_timeout) == (120, 3600, 600)
    assert settings.client_idle_timeout == float("inf")
    assert users_of(found).find("app") is not None
    assert pool_names(found) == ["app/app", "app/other"]


def test_a_database_elsewhere_with_a_user_of_its_own(configure) -> None:  # type: ignore[no-untyped-def]
    extra = '[pooler.databases.app]\ndatabase = "real"\nuser = "one"\npassword = "p"'
    found = table(configure(SMALL.replace("[pooler.databases.app]", extra)))
    settings = pool_settings(found, "app", "whoever")
    assert settings is not None
    assert (settings.database, settings.user.name, settings.user.password) == ("real", "one", "p")
    assert pool_names(found) == ["app/one"]
    by_file = table(configure(SMALL.replace("[pooler.databases.app]", '[pooler.databases.app]\nuser = "other"')))
    other = pool_settings(by_file, "app", "app")
    assert other is not None
    assert other.user.password == "secret"


def test_what_there_is_no_pool_for(configure) -> None:  # type: ignore[no-untyped-def]
    found = table(configure(SMALL))
    assert pool_settings(found, "nosuch", "app") is None
    assert pool_settings(found, "app", "nosuch") is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('primary = "pg"', 'primary = "gp"', 'primary: unknown pool "gp"'),
        ('primary = "pg"', 'primary = "pg"\npool_mode = "transactoin"', 'did you mean "transaction"'),
        ('primary = "pg"', 'primary = "pg"\npool_size = 0', "pool_size"),
        ('primary = "pg"', 'primary = "pg"\nreplicaz = "pg"', "replicaz: unknown key"),
        ('primary = "pg"', 'primary = "pg"\npassword = "x"', "password: belongs to a user"),
        ('users = "users.txt"', 'users = "missing.txt"', "cannot be read"),
        ('[pooler.auth]\nusers = "users.txt"', "", "auth: missing"),
        ('[pooler.databases.app]\nprimary = "pg"', "", "databases: missing"),
    ],
)
def test_what_is_refused(configure, old: str, new: str, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError) as error:
        configure(SMALL.replace(old, new))
    assert message in str(error.value)


def test_a_broken_users_file_is_refused_line_by_line(configure) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError) as error:
        configure(SMALL, '"app" "secret"\nbroken\n"half" "open\n')
    assert "users.txt: line 2" in str(error.value)
    assert "users.txt: line 3" in str(error.value)


def test_more_pools_than_the_plane_has_rows_are_refused(configure) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match="2049 pools"):
        configure(SMALL, "".join(f'"u{number}" "x"\n' for number in range(2049)))


@pytest.mark.parametrize(
    ("mode", "warned"),
    [
        ("transaction", ""),
        ("session", "of 21 clients of a user one waits"),
        ("statement", "begins a transaction is ended"),
    ],
)
def test_what_a_mode_breaks_is_said(configure, mode: str, warned: str) -> None:  # type: ignore[no-untyped-def]
    config = configure(SMALL.replace('primary = "pg"', f'primary = "pg"\npool_mode = "{mode}"'))
    said = [problem.message for problem in config.warnings() if problem.path[-1] == "pool_mode"]
    assert len(said) == bool(warned)
    assert all(warned in message for message in said)
