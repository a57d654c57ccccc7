"""[pooler]: listeners, databases, users, and the times and sizes that PgBouncer's users know by these names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

import attrs

from pooler import hba, users
from pooler.encryption import encryption
from pooler.hba import Rules
from pooler.users import Users
from supervisor.ground.config import (
    Between,
    Bind,
    CertificateTable,
    Duration,
    File,
    Problem,
    Secret,
    Workers,
    unbelievable,
    unknown_name,
    unusable,
)
from supervisor.plane.layout import TABLES, Kind

MAX_POOLS = TABLES[Kind.LEASEPOOL].rows
MAX_SOCKET_PATH = 107  # bytes: sun_path has 108 with its NUL (unix(7))
REPLICAS = "@replicas"  # behind a database's name: the pool of its replicas, in the plane, the console and metrics
MAX_USER_PROBLEMS = 10  # of one file; a file in another format is wrong in every line


@attrs.frozen(kw_only=True)
class TlsTable:
    """[pooler.listeners.NAME] tls: TLS 1.2 and 1.3; the first certificate serves clients that name no host."""

    certificates: tuple[CertificateTable, ...]
    required: bool = False  # refuse clients that do not ask for TLS
    client_ca: File | None = None  # PEM: whose certificates of clients are believed

    def problems(self, config: Any) -> Iterable[Problem]:
        yield from unusable(self.certificates)
        if self.client_ca is not None:
            yield from unbelievable(self.client_ca, "client_ca")


@attrs.frozen(kw_only=True)
class ServerTlsTable:
    """[pooler.databases.NAME] tls: connections to its servers."""

    mode: Literal["prefer", "require", "verify-ca", "verify-full"] = "verify-full"  # libpq's sslmode
    ca: File | None = None  # PEM: whom to trust; None: whom the system trusts
    name: str | None = None  # what a server's certificate must name; None: its address
    cert: File | None = None  # PEM: what we show to servers that ask who we are
    key: File | None = None

    def problems(self, config: Any) -> Iterable[Problem]:
        for key, other in (("cert", "key"), ("key", "cert")):
            if getattr(self, key) is None and getattr(self, other) is not None:
                yield Problem((other,), f"needs a {key} beside it")
        if self.ca is not None and self.mode in ("prefer", "require"):
            yield Problem(("ca",), f'is not used in mode "{self.mode}"; "verify-ca" checks it')
        try:
            encryption(self)
        except ValueError as error:
            yield Problem(("ca" if self.ca is not None else "cert",), str(error))


@attrs.frozen(kw_only=True)
class ListenerTable:
    """[pooler.listeners.NAME]: a port that speaks the PostgreSQL protocol."""

    bind: Bind | None = None
    unix_socket: FilePath | None = None  # instead: libpq's name for it is DIRECTORY/.s.PGSQL.PORT
    tls: TlsTable | None = None

    def problems(self, config: Any) -> Iterable[Problem]:
        if (self.bind is None) == (self.unix_socket is None):
            yield Problem(("bind",), "a listener has either bind or unix_socket")
        elif self.unix_socket is not None and len(os.fsencode(self.unix_socket)) > MAX_SOCKET_PATH:
            yield Problem(("unix_socket",), f"longer than the {MAX_SOCKET_PATH} bytes of a socket's path")

    @property
    def address(self) -> Bind:
        """Where it listens."""
        if self.bind is not None:
            return self.bind
        assert self.unix_socket is not None
        return Bind.at_path(self.unix_socket.absolute())


@attrs.frozen(kw_only=True)
class DatabaseTable:
    """[pooler.databases.NAME]: where a database that clients name really is."""

    primary: str
    replicas: str | None = None  # the pool whose servers may answer what only reads
    reads: Literal["off", "read_only_transactions", "auto"] = "off"
    max_replica_lag: Duration = Duration(10)  # a replica further behind is not asked; 0: no limit
    target_session_attrs: Literal["any", "primary", "standby"] | None = None  # which servers of `primary`; libpq's word
    database: str | None = None  # its name there, if another
    pool_mode: Literal["session", "transaction", "statement"] = "transaction"
    pool_size: Annotated[int, Between(1, 10_000)] = 20  # server connections per user, over all workers
    min_pool_size: Annotated[int, Between(0, 10_000)] = 0  # are kept open, once the pool has been used
    reserve_pool_size: Annotated[int, Between(0, 10_000)] = 0  # more, for clients that wait too long
    max_db_connections: Annotated[int, Between(0, 100_000)] = 0  # of all its users together; 0: no limit
    # What can't leave a server connection (temporary tables, advisory locks, ...): its client keeps that, or gets an
    # error.
    session_state: Literal["pin", "refuse"] = "pin"
    saturated_wait: Duration = Duration(1)  # that a client has waited: routes that shed on it do; 0: never
    saturated_queue: Annotated[int, Between(0, 1_000_000)] = 0  # or so many wait in one of its pools; 0: never
    user: str | None = None  # log in to the server as this user, whoever the client is
    password: Secret | None = None  # of that user, if the users file does not hold it
    tls: ServerTlsTable | None = None  # to its servers

    def problems(self, config: Any) -> Iterable[Problem]:
        if self.min_pool_size > self.pool_size:
            yield Problem(("min_pool_size",), f"more than pool_size, {self.pool_size}")
        if self.primary not in config.pools:
            yield Problem(("primary",), unknown_name("pool", self.primary, config.pools))
        elif not config.pools[self.primary].speaks_plainly:
            yield Problem(("primary",), "a pool with tls or protocol is for the gateway")
        if self.replicas is not None and self.replicas not in config.pools:
            yield Problem(("replicas",), unknown_name("pool", self.replicas, config.pools))
        if self.reads != "off":
            yield from self._routing_problems(config)
        if self.password is not None and self.user is None:
            yield Problem(("password",), "belongs to a user; name it beside")

    def warnings(self, config: Any, now: datetime) -> Iterable[Problem]:
        """What its mode breaks, as against a connection of one's own."""
        if self.pool_mode == "statement":
            yield Problem(
                ("pool_mode",),
                "a session that begins a transaction is ended; BEGIN, cursors, temporary tables and "
                "advisory locks don't work",
            )
        elif self.pool_mode == "session":
            yield Problem(
                ("pool_mode",),
                f"a client keeps its connection until it leaves: of {self.pool_size + 1} clients of a user one waits",
            )
        elif self.session_state == "refuse":
            yield Problem(
                ("session_state",),
                "temporary tables, advisory locks of a session and WITH HOLD cursors are errors",
            )

    @property
    def role(self) -> str:
        """Which servers of `primary` it takes."""
        return self.target_session_attrs or ("any" if self.replicas is None else "primary")

    def _routing_problems(self, config: Any) -> Iterable[Problem]:
        if self.replicas is None:
            yield Problem(("reads",), "there are no replicas to read from")
        if self.pool_mode == "session":
            yield Problem(("reads",), "a session keeps its server; transactions can be routed in transaction mode")
        for key in ("primary", "replicas"):
            pool = config.pools.get(getattr(self, key))
            if pool is not None and (pool.health is None or pool.health.type != "postgres"):
                yield Problem((key,), "nobody asks its servers what they are: the pool needs health of type postgres")


@attrs.frozen(kw_only=True)
class UserTable:
    """[pooler.users.NAME]: what is other for this user of the servers, in every database."""

    pool_mode: Literal["session", "transaction", "statement"] | None = None
    pool_size: Annotated[int, Between(1, 10_000)] | None = None
    max_user_connections: Annotated[int, Between(0, 100_000)] = 0  # 0: as [pooler] says


@attrs.frozen(kw_only=True)
class AuthTable:
    """[pooler.auth]: who may log in, and how it is proved."""

    users: File
    query: str | None = None  # for who is not in the file: its only row is name and secret; $1 is the name
    query_user: str | None = None  # who asks; a user of the file
    type: Literal["auto", "scram-sha-256", "md5", "password", "cert", "trust"] = "auto"
    hba: File | None = None  # rules by address, database and user, instead of one type for all

    def problems(self, config: Any) -> Iterable[Problem]:
        for problem in read_users(self.users)[1][:MAX_USER_PROBLEMS]:
            yield Problem(("users",), f"{self.users}: {problem}")
        if (self.query is None) != (self.query_user is None):
            yield Problem(("query",), "query and query_user go together")
        elif self.query is not None:
            known = read_users(self.users)[0].by_name
            if self.query_user not in known:
                yield Problem(("query_user",), unknown_name("user", str(self.query_user), known))
            if "$1" not in self.query:
                yield Problem(("query",), "does not say where the name goes: $1")
        if self.hba is not None:
            for problem in read_rules(self.hba)[1][:MAX_USER_PROBLEMS]:
                yield Problem(("hba",), f"{self.hba}: {problem}")


@attrs.frozen(kw_only=True)
class PoolerTable:
    """[pooler]"""

    workers: Workers | None = None
    listeners: Mapping[str, ListenerTable] = attrs.Factory(dict)
    databases: Mapping[str, DatabaseTable] = attrs.Factory(dict)
    users: Mapping[str, UserTable] = attrs.Factory(dict)
    auth: AuthTable | None = None
    admin_users: tuple[str, ...] = ()  # of the console: may do everything
    stats_users: tuple[str, ...] = ()  # may look
    max_client_conn: Annotated[int, Between(1, 1_000_000)] = 10_000  # over all workers
    max_user_connections: Annotated[int, Between(0, 100_000)] = 0  # server connections in all databases; 0: no limit
    reserve_pool_timeout: Duration = Duration(5)  # that a client has waited before it gets one of the reserve
    # JDBC sends extra_float_digits at every login; since PostgreSQL 12 it changes nothing that a client sees.
    ignore_startup_parameters: tuple[str, ...] = ("extra_float_digits",)
    client_login_timeout: Duration = Duration(60)
    client_idle_timeout: Duration = Duration(0)  # 0: never
    query_timeout: Duration = Duration(0)  # for an answer; 0: for ever
    idle_transaction_timeout: Duration = Duration(0)  # silence inside a transaction; 0: for ever
    query_wait_timeout: Duration = Duration(120)  # for a server connection; 0: for ever
    server_connect_timeout: Duration = Duration(15)  # connect and log in
    # Between logins while a server refuses them; clients get its error meanwhile.
    server_login_retry: Duration = Duration(1)
    server_lifetime: Duration = Duration(3600)
    server_idle_timeout: Duration = Duration(600)
    max_prepared_statements: Annotated[int, Between(1, 1_000)] = 200  # kept on a server connection, in transaction mode
    server_reset_query: str = "DISCARD ALL"  # when a session ends in session mode; "" for none

    def problems(self, config: Any) -> Iterable[Problem]:
        if self.listeners and self.auth is None:
            yield Problem(("auth",), "missing: a listener needs to know its users")
        asking = [one for one in self.listeners.values() if one.tls is not None and one.tls.client_ca is not None]
        if self.auth is not None and self.auth.type == "cert" and self.auth.hba is None and not asking:
            yield Problem(("auth", "type"), "no listener asks for certificates: its tls needs a client_ca")
        if self.listeners and not self.databases:
            yield Problem(("databases",), "missing: a listener needs a database to lead to")
        known = users_of(self).by_name
        for key in ("admin_users", "stats_users") if known else ():
            for number, name in enumerate(getattr(self, key)):
                if name not in known:
                    yield Problem((key, number), unknown_name("user", name, known))
        names = pool_names(self)
        if len(names) > MAX_POOLS:
            yield Problem(
                ("databases",),
                f"{len(names)} pools (one for each database and user), at most {MAX_POOLS} are possible; "
                "a database with a `user` of its own has one pool",
            )


@lru_cache(maxsize=8)
def read_users(file: File) -> tuple[Users, list[str]]:
    """The users of a file and what is wrong with it; read once for each content."""
    try:
        return users.read(file.data.decode())
    except UnicodeDecodeError:
        return Users(), ["is not UTF-8"]


@lru_cache(maxsize=8)
def read_rules(file: File) -> tuple[Rules, list[str]]:
    """The rules of a file and what is wrong with it; read once for each content."""
    try:
        return hba.read(file.data.decode())
    except UnicodeDecodeError:
        return Rules(), ["is not UTF-8"]


def users_of(table: PoolerTable) -> Users:
    """Who may log in."""
    return read_users(table.auth.users)[0] if table.auth is not None else Users()


def pool_names(table: PoolerTable) -> list[str]:
    """The pools that these databases and users make: "database/user", as the plane's rows are called."""
    everybody = list(users_of(table).by_name)
    return [
        pool
        for name, database in table.databases.items()
        for pool in pool_names_of(name, database, everybody if database.user is None else [database.user])
    ]


def pool_names_of(name: str, database: DatabaseTable, users: Iterable[str]) -> Iterator[str]:
    """Those of one database and these users."""
    for suffix in ("", REPLICAS) if database.reads != "off" else ("",):
        yield from (f"{name}{suffix}/{user}" for user in users)
