"""What servers say of themselves at login, which is what clients are greeted with.

A login needs no server connection, only these parameters. A worker in which the pool has not had a connection yet gets
them from the first that comes, or from another worker that knows them: so a client gets in where every connection is
taken, or the primary is gone, whichever worker it comes to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pooler.orders import Introduce, Introduced
from pooler.parameters import intern

if TYPE_CHECKING:
    from pooler.client import Client
    from pooler.pool import ServerPool


class Acquainted(Exception):
    """Thrown into a session that waits to be greeted, when the parameters are known."""


async def acquaint(pool: ServerPool, client: Client) -> None:
    """Wait in the queue, until there is a connection or word from another worker. Raises PeerError, and what is thrown
    into the session."""
    if not pool.strangers:
        ask(pool)
    pool.strangers.add(client)
    try:
        server = await pool.wait(client)
    except Acquainted:
        return
    finally:
        pool.strangers.discard(client)
    client.server = None
    pool.release(server)


def ask(pool: ServerPool) -> None:
    """Ask all other workers; with each sweep anew, while somebody waits."""
    settings, worker = pool.settings, pool.worker
    question = Introduce(pool.name, settings.group, settings.database, worker.column)
    for column in worker.plane.live(worker.tier):
        if column != worker.column:
            worker.mailbox.send(column, question)


def asked(pool: ServerPool, order: Introduce) -> None:
    """Tell what is known here, unless a reload has led one of us elsewhere."""
    settings, reported = pool.settings, pool.reported
    if reported is not None and (order.group, order.database) == (settings.group, settings.database):
        told = Introduced(pool.name, settings.group, settings.database, dict(reported))
        pool.worker.mailbox.send(order.column, told)


def told(pool: ServerPool, order: Introduced) -> None:
    """Another worker's answer."""
    settings = pool.settings
    if pool.reported is None and (order.group, order.database) == (settings.group, settings.database):
        learn(pool, order.reported)


def learn(pool: ServerPool, reported: Mapping[str, str]) -> None:
    """These are the parameters: who waits for nothing else is greeted."""
    pool.reported = intern(reported)
    for client in pool.strangers:
        pool.leave(client)
        client.session.throw(Acquainted())
    pool.strangers.clear()
