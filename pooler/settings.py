"""What a pool takes from the configuration, looked up once: a reload makes another and swaps it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs

from pooler import roles
from pooler.config import REPLICAS, DatabaseTable, PoolerTable, UserTable, users_of
from pooler.encryption import Encryption, encryption
from pooler.sql import EVERY_PIN, Pin
from pooler.users import User

_NOBODY: Mapping[str, User] = {}


@attrs.frozen
class PoolSettings:
    """Of one database and user. Times are in seconds; no limit is infinity."""

    database: str  # its name on the server
    user: User  # who logs in there
    group: str  # the pool of servers
    role: str  # which of them: any, primary, standby
    max_lag: float  # of a replica
    auto_reads: bool  # single SELECTs go to replicas, too
    mode: str  # session, transaction, statement
    saturated_wait: float  # of who has waited for longest
    saturated_queue: float  # clients waiting
    size: int
    min_size: int
    reserve: int
    reserve_timeout: float
    database_limit: int  # of all pools of the database together; 0: none
    user_limit: int  # and of the user
    reset_query: str
    encryption: Encryption | None  # towards its servers
    query_wait_timeout: float
    client_idle_timeout: float
    server_connect_timeout: float
    server_login_retry: float
    server_lifetime: float
    server_idle_timeout: float
    query_timeout: float
    idle_transaction_timeout: float
    max_prepared_statements: int  # on a server connection
    refuses: Pin  # what is not to outlive a transaction


def pool_settings(
    table: PoolerTable, name: str, client: str, found: Mapping[str, User] = _NOBODY
) -> PoolSettings | None:
    """For the database `name` and the client user `client`; None if there is no such database or user. `name` with
    REPLICAS behind it is the pool of a database's replicas; `found` are users that are in no file."""
    replicas = name.endswith(REPLICAS)
    name = name.removesuffix(REPLICAS)
    database = table.databases.get(name)
    if replicas and (database is None or database.replicas is None or database.reads == "off"):
        return None
    user = None if database is None else _server_user(table, database, client, found)
    if database is None or user is None:
        return None
    special = table.users.get(user.name, UserTable())
    return PoolSettings(
        database=database.database or name,
        user=user,
        group=database.replicas if replicas and database.replicas is not None else database.primary,
        role=roles.REPLICA if replicas else database.role,
        max_lag=database.max_replica_lag or math.inf,
        auto_reads=database.reads == "auto",
        saturated_wait=database.saturated_wait or math.inf,
        saturated_queue=database.saturated_queue or math.inf,
        mode=special.pool_mode or database.pool_mode,
        size=special.pool_size or database.pool_size,
        min_size=database.min_pool_size,
        reserve=database.reserve_pool_size,
        reserve_timeout=table.reserve_pool_timeout,
        database_limit=database.max_db_connections,
        user_limit=special.max_user_connections or table.max_user_connections,
        reset_query=table.server_reset_query,
        encryption=encryption(database.tls),
        query_wait_timeout=table.query_wait_timeout or math.inf,
        client_idle_timeout=table.client_idle_timeout or math.inf,
        server_connect_timeout=table.server_connect_timeout,
        server_login_retry=table.server_login_retry,
        server_lifetime=table.server_lifetime or math.inf,
        server_idle_timeout=table.server_idle_timeout or math.inf,
        query_timeout=table.query_timeout or math.inf,
        idle_transaction_timeout=table.idle_transaction_timeout or math.inf,
        max_prepared_statements=table.max_prepared_statements,
        refuses=EVERY_PIN if database.session_state == "refuse" else Pin.NONE,
    )


def _server_user(table: PoolerTable, database: DatabaseTable, client: str, found: Mapping[str, User]) -> User | None:
    if database.user is None:
        return users_of(table).find(client) or found.get(client)
    if database.password is not None:
        return User(database.user, password=database.password.value)
    return users_of(table).find(database.user) or User(database.user)
