"""Who may come in from where, and TLS on both sides with certificates and channel binding, with real peers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from supervisor.cli.demo import ports
from supervisor.cli.demo.credentials import Certificate, write_certificate
from supervisor.cli.demo.postgres import Cluster
from tests.system.support.daemon import Daemon
from tests.system.support.poll import until
from tests.system.support.pooler import Pooler, check_cancel, poolers

RULES = """
hostssl   sessions  app   127.0.0.1/32  cert
hostssl   app  legacy     all           password
hostssl   all  all        127.0.0.0/8   scram-sha-256
hostnossl app  app        127.0.0.1/32  scram-sha-256
host      all  all        all           reject
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return write_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return write_certificate(tmp_path_factory.mktemp("client"), ("app",))


@pytest.fixture(scope="module")
def secure_postgres(postgres: Cluster, certificate: Certificate) -> Iterator[Cluster]:
    """The cluster with TLS, as long as these tests run."""
    for name, source in (("server.crt", certificate.cert), ("server.key", certificate.key)):
        path = postgres.data / name
        path.write_bytes(Path(source).read_bytes())
        path.chmod(0o600)
        if postgres.owner is not None:
            os.chown(path, postgres.owner.uid, postgres.owner.gid)
    postgres.execute("ALTER SYSTEM SET ssl = on")
    postgres.execute("SELECT pg_reload_conf()")
    assert until(lambda: postgres.execute("SHOW ssl") == [("on",)])
    yield postgres
    postgres.execute("ALTER SYSTEM SET ssl = off")
    postgres.execute("SELECT pg_reload_conf()")


@pytest.fixture(scope="module")
def running(
    secure_postgres: Cluster, certificate: Certificate, client: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pooler]:
    folder = tmp_path_factory.mktemp("trust")
    (folder / "hba.conf").write_text(RULES)
    with ExitStack() as stack:

        def start(text: str) -> Daemon:
            daemon = Daemon.start(folder, text, "portway.toml", True)
            stack.callback(daemon.stop)
            return daemon

        with poolers(start, folder, ports.free_tcp_port, secure_postgres) as make:
            yield make(
                listener=f'tls = {{ certificates = [{{ cert = "{certificate.cert}", key = "{certificate.key}" }}], '
                f'client_ca = "{client.authority}" }}',
                auth='hba = "hba.conf"',
                database=f'pool_size = 1\ntls = {{ ca = "{certificate.authority}" }}',
            )


def encrypted(running: Pooler) -> list[Any]:
    return running.cluster.execute(
        "SELECT ssl, version FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'app'"
    )


def test_channel_binding_on_both_sides(running: Pooler) -> None:
    connection = running.connect(sslmode="require", channel_binding="require")
    assert connection.execute("SELECT 1").fetchone() == (1,)
    assert encrypted(running) == [(True, "TLSv1.3")]
    check_cancel(connection)


def test_a_connection_under_tls_that_is_wanted_in_another_worker_is_opened_anew_there(running: Pooler) -> None:
    one, other = running.connect_each_worker(sslmode="require")
    backends = {c.execute("SELECT pg_backend_pid()").fetchone() for _ in range(3) for c in (one, other)}
    assert len(backends) > 1
    assert running.servers() == 1


def test_rules_say_how_and_whether(running: Pooler, certificate: Certificate, client: Certificate) -> None:
    assert running.connect(sslmode="disable").execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="reject"):
        running.connect(user="legacy", sslmode="disable")
    secure = running.connect(user="legacy", sslmode="require", require_auth="password")
    assert secure.info.user == "legacy"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        running.connect(user="legacy", sslmode="require", password="wrong")
    with pytest.raises(psycopg.OperationalError, match="certificate authentication failed"):
        running.connect("sessions", sslmode="require")
    shown = {"sslcert": str(client.cert), "sslkey": str(client.key), "password": ""}
    assert running.connect("sessions", sslmode="require", **shown).info.user == "app"
    with pytest.raises(psycopg.OperationalError):
        running.connect("sessions", sslmode="require", sslcert=str(certificate.cert), sslkey=str(certificate.key))


def test_a_server_that_can_not_prove_its_name_gets_no_password(
    running: Pooler, certificate: Certificate, tmp_path: Path
) -> None:
    stranger = write_certificate(tmp_path)
    before = (running.folder / "portway.toml").read_text()
    wanted = f'tls = {{ ca = "{certificate.authority}" }}'
    try:
        running.daemon.rewrite(before.replace(wanted, f'tls = {{ ca = "{stranger.authority}" }}'))
        assert running.daemon.command("reload").status == 0
        assert until(lambda: not any(secure for secure, _ in encrypted(running)))
        with pytest.raises(psycopg.OperationalError, match=r"TLS with pg/127\.0\.0\.1"):
            running.connect(sslmode="disable").execute("SELECT 1")
    finally:
        running.daemon.rewrite(before)
        assert running.daemon.command("reload").status == 0


def test_users_by_query(running: Pooler, client: Certificate) -> None:
    """`lookup` may read the secrets, and stands in the file; the others stand in the database alone."""
    cluster = running.cluster
    query = (
        "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END "
        "FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin"
    )
    cluster.add_role("lookup", "secret")
    cluster.add_role("unlisted", "secret")
    cluster.add_role("expired", "secret")
    cluster.execute("GRANT SELECT ON pg_authid TO lookup", database="app")
    cluster.execute("ALTER ROLE expired VALID UNTIL '2001-01-01'")
    path = running.folder / "portway.toml"
    before = path.read_text()
    (running.folder / "users.txt").write_text('"app" "secret"\n"legacy" "secret"\n"lookup" "secret"\n')
    try:
        running.daemon.rewrite(before.replace('hba = "hba.conf"', f'query = "{query}"\nquery_user = "lookup"'))
        assert running.daemon.command("reload").status == 0
        for _ in range(4):  # both workers
            connection = running.connect(user="unlisted")
            assert connection.execute("SELECT current_user").fetchone() == ("unlisted",)
        for user, password in (("expired", "secret"), ("unlisted", "wrong"), ("it's nobody", "secret")):
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                running.connect(user=user, password=password)
        cluster.execute("ALTER ROLE unlisted PASSWORD 'other'")
        assert until(lambda: entered(running, "other"))
    finally:
        running.daemon.rewrite(before)
        assert running.daemon.command("reload").status == 0


def entered(running: Pooler, password: str) -> bool:
    try:
        return running.connect(user="unlisted", password=password).execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False
