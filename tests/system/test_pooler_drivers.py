"""What applications use, as they use it: drivers and programs in transaction mode with their own default settings.

Prepared statements are on everywhere. Each does its ordinary work with more clients than there are server connections,
on one daemon with two workers; drivers run as programs of their own (`support/drivers/`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.cli.demo.ports import free_tcp_port
from supervisor.cli.demo.postgres import Cluster
from tests.system.support.daemon import Daemon
from tests.system.support.pooler import Pooler, psql
from tests.system.support.programs import needed

DRIVERS = Path(__file__).parent / "support" / "drivers"
JDBC = Path("/usr/share/java/postgresql.jar")  # Debian's libpostgresql-jdbc-java
MODULES = ("/usr/share/nodejs", "/usr/lib/node_modules", "/usr/local/lib/node_modules")  # Debian's, npm's -g
PATIENCE = 120.0  # s for any of them


@pytest.fixture(scope="module")
def running(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooler]:
    """One daemon, with three server connections for everybody."""
    folder = tmp_path_factory.mktemp("drivers")
    pooler = Pooler(
        lambda text: Daemon.start(folder, text), folder, free_tcp_port(), postgres, database="pool_size = 3"
    )
    with pooler.stack:
        yield pooler
    pooler.daemon.stop()


def works(running: Pooler, *command: str | Path, **environment: str) -> None:
    """The program ends with "done"."""
    done = subprocess.run(
        [*command, str(running.port)],
        capture_output=True, text=True, timeout=PATIENCE, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr
    assert running.servers() <= 3


@pytest.mark.parametrize("module", ["psycopg", "asyncpg", "sqlalchemy", "django"])
def test_python(running: Pooler, module: str) -> None:
    works(running, sys.executable, "-W", "error", DRIVERS / f"{module}_work.py")


@pytest.mark.parametrize("module", ["pg", "postgres"])
def test_node(running: Pooler, module: str) -> None:
    needed("node")
    path = os.pathsep.join((*filter(None, [os.environ.get("NODE_PATH")]), *MODULES))
    look = subprocess.run(
        ["node", "-e", f'require.resolve("{module}")'], env={**os.environ, "NODE_PATH": path}, capture_output=True
    )
    if look.returncode:
        pytest.skip(f"not installed: node's {module} (npm install -g {module}, or name its folder in NODE_PATH)")
    works(running, "node", DRIVERS / f"{module}_work.js", NODE_PATH=path)


def test_jdbc(running: Pooler) -> None:
    needed("java")
    if not JDBC.exists():
        pytest.skip("not installed: libpostgresql-jdbc-java")
    modules = subprocess.run(["java", "--list-modules"], capture_output=True, text=True, timeout=PATIENCE)
    if "jdk.compiler" not in modules.stdout:
        pytest.skip("not installed: a JDK, to compile the program that uses JDBC; there is a JRE alone")
    works(running, "java", "-XX:TieredStopAtLevel=1", "-cp", str(JDBC), str(DRIVERS / "Work.java"))


SCRIPTS = {
    "plain": "BEGIN;\nUPDATE counted SET n = n + 1 WHERE client = :client_id;\nSELECT sum(n) FROM counted;\nEND;\n",
    "pipeline": "\\startpipeline\nUPDATE counted SET n = n + 1 WHERE client = :client_id;\nSELECT 1;\n\\endpipeline\n",
}


@pytest.mark.parametrize(
    ("protocol", "script", "arguments"),
    [
        ("simple", "plain", ()),
        ("extended", "plain", ()),
        ("prepared", "plain", ()),
        ("extended", "pipeline", ()),
        ("prepared", "pipeline", ()),
        ("prepared", "plain", ("-C",)),
    ],
    ids=["simple", "extended", "prepared", "pipelined", "pipelined-prepared", "connect-each"],
)
def test_pgbench(running: Pooler, protocol: str, script: str, arguments: tuple[str, ...]) -> None:
    needed("pgbench")
    clients, transactions = 8, 20
    execute = running.cluster.execute
    execute("CREATE TABLE counted (client int, n int)", database="app")
    execute(f"INSERT INTO counted SELECT client, 0 FROM generate_series(0, {clients - 1}) client", database="app")
    execute("GRANT ALL ON counted TO app", database="app")
    path = running.folder / "script.sql"
    path.write_text(SCRIPTS[script])
    # A thread of pgbench waits for each Prepare: one thread a client, or it holds up the servers that it waits for.
    options = ("-n", "-M", protocol, "-c", str(clients), "-j", str(clients), "-t", str(transactions), "-f", str(path))
    try:
        done = psql(running.port, *options, *arguments, program="pgbench")
        assert done.returncode == 0, done.stderr
        processed = clients * transactions
        assert f"transactions actually processed: {processed}/{processed}" in done.stdout
        assert execute("SELECT sum(n), min(n) FROM counted", database="app") == [(processed, transactions)]
    finally:
        execute("DROP TABLE counted", database="app")


def test_psql(running: Pooler) -> None:
    script = r"""
\set ON_ERROR_STOP 1
SELECT 41 + 1;
PREPARE twice (int) AS SELECT $1 * 2;
EXECUTE twice(21);
BEGIN;
CREATE TABLE psql_work (n int, word text);
\copy psql_work FROM stdin
1	one
2	two
\.
SAVEPOINT here;
\set ON_ERROR_STOP 0
SELECT 1 / 0;
\set ON_ERROR_STOP 1
ROLLBACK TO here;
COMMIT;
\copy (SELECT * FROM psql_work ORDER BY n) TO stdout
\d psql_work
SET application_name = 'mine';
SHOW application_name;
EXECUTE twice(4);
DROP TABLE psql_work;
"""
    path = running.folder / "script.psql"
    path.write_text(script)
    done = psql(running.port, "-XAtq", "-f", str(path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["42", "42", "1\tone", "2\ttwo", "n|integer|||", "word|text|||", "mine", "8"]
    assert "division by zero" in done.stderr
