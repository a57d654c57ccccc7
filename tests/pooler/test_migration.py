"""pgbouncer.ini as a configuration of Portway."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler.config import PoolerTable
from pooler.migration import NotIni, convert, pairs
from supervisor.ground.config import load

INI = """
;; a comment
[databases]
app = host=127.0.0.1 port=5433 dbname=app_production pool_size=7 reserve_pool=2
other = host=127.0.0.1 port=5433 user=fixed password='it''s' pool_mode=statement connect_query='SELECT 1'
My DB = host=127.0.0.2,127.0.0.3
* = host=127.0.0.1

[users]
reports = pool_mode=session max_user_connections=3 weight=1

[pgbouncer]
listen_addr = *
listen_port = 6543
auth_type = scram-sha-256
auth_file = userlist.txt
pool_mode = transaction
default_pool_size = 15
min_pool_size = 2
max_client_conn = 500
server_idle_timeout = 30
query_wait_timeout = 0
admin_users = ops, root
ignore_startup_parameters = extra_float_digits, search_path
server_tls_sslmode = disable
unix_socket_dir = /tmp
logfile = /var/log/pgbouncer.log
auth_dbname = x
%include other.ini
"""


def test_what_means_the_same_is_carried_and_the_rest_is_listed() -> None:
    converted = convert(INI)
    made = tomllib.loads(converted.toml)
    assert made["pools"] == {
        "pg": {"servers": ["127.0.0.1:5433"]},
        "pg2": {"servers": ["127.0.0.2:5432", "127.0.0.3:5432"]},
    }
    pooler = made["pooler"]
    assert pooler["databases"]["app"] == {
        "primary": "pg", "database": "app_production", "pool_mode": "transaction", "pool_size": 7, "min_pool_size": 2,
        "reserve_pool_size": 2,
    }  # fmt: skip
    assert pooler["databases"]["other"]["password"] == "it's"
    assert pooler["databases"]["other"]["pool_mode"] == "statement"
    assert pooler["databases"]["My DB"]["primary"] == "pg2"
    assert pooler["users"] == {"reports": {"pool_mode": "session", "max_user_connections": 3}}
    assert pooler["listeners"] == {
        "main": {"bind": "0.0.0.0:6543"}, "local": {"unix_socket": "/tmp/.s.PGSQL.6543"},
    }  # fmt: skip
    assert pooler["auth"] == {"users": "userlist.txt", "type": "scram-sha-256"}
    assert (pooler["max_client_conn"], pooler["server_idle_timeout"], pooler["query_wait_timeout"]) == (500, "30s", "0")
    assert pooler["admin_users"] == ["ops", "root"]
    lost = "\n".join(converted.lost)
    for words in ("* (any other database)", "connect_query", "weight", "%include other.ini",
                  "auth_dbname: not carried over", "logfile: not needed here"):  # fmt: skip
        assert words in lost
    assert "max_client_conn" not in lost


def test_the_outcome_can_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "userlist.txt").write_text('"ops" "x"\n"root" "x"\n')
    path = tmp_path / "portway.toml"
    path.write_text(convert(INI).toml)
    assert load(path, {"pooler": PoolerTable}).tier("pooler").databases["app"].pool_size == 7


def test_pgbouncers_defaults_are_written_out_where_they_are_others() -> None:
    made = tomllib.loads(convert("[databases]\napp =\n[pgbouncer]\nauth_file=u").toml)
    assert made["pooler"]["databases"]["app"]["pool_mode"] == "session"
    assert made["pooler"]["max_client_conn"] == 100
    assert made["pooler"]["databases"]["app"]["tls"] == {"mode": "prefer"}


def test_tls_on_both_sides() -> None:
    ini = (
        "[databases]\napp = host=10.0.0.1\n[pgbouncer]\nlisten_addr=127.0.0.1,::1\nclient_tls_sslmode=verify-full\n"
        "client_tls_cert_file=c.pem\nclient_tls_key_file=k.pem\nclient_tls_ca_file=a.pem\nauth_type=hba\n"
        "auth_hba_file=hba.conf\nserver_tls_sslmode=verify-full\nserver_tls_ca_file=ca.pem\nauth_file=u"
    )
    made = tomllib.loads(convert(ini).toml)["pooler"]
    assert made["listeners"]["main"]["tls"] == {
        "certificates": [{"cert": "c.pem", "key": "k.pem"}], "required": True, "client_ca": "a.pem",
    }  # fmt: skip
    assert made["listeners"]["main2"]["bind"] == "[::1]:6432"
    assert made["databases"]["app"]["tls"] == {"mode": "verify-full", "ca": "ca.pem"}
    assert made["auth"] == {"users": "u", "hba": "hba.conf"}


def test_users_by_query() -> None:
    ini = "[databases]\napp = host=10.0.0.1\n[pgbouncer]\nlisten_addr=*\nauth_file=u\nauth_user=asker"
    made = tomllib.loads(convert(ini).toml)["pooler"]["auth"]
    assert made["query_user"] == "asker"
    assert "$1" in made["query"]


@pytest.mark.parametrize("text", ["no section", "[databases]\napp = host='x", "[databases]\napp = nonsense"])
def test_what_is_no_pgbouncer_ini_is_said_so(text: str) -> None:
    with pytest.raises(NotIni):
        convert(text)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(st.characters(exclude_characters="'\0"))))
def test_a_connection_string_gives_what_was_written(words: dict[str, str]) -> None:
    assert pairs(" ".join(f"{key}='{value}'" for key, value in words.items())) == words
