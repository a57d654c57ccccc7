"""Users by query: who is in no file is looked up in the database that it names, and remembered for a while.

The query runs on a connection of the pool of `query_user`, as any client's would. Many who ask for the same name at
once wait for one answer. A name whose proof fails is looked up anew, so that a changed password holds at once.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from pooler import recovery, users
from pooler.errors import INTERNAL_ERROR, PeerError, ServerError
from pooler.parameters import quoted
from pooler.users import User
from supervisor.ground.lane import Event

if TYPE_CHECKING:
    from pooler.client import Client
    from pooler.runtime import PoolerRuntime

REMEMBERED = 60.0  # seconds; a password that was changed fails once, and is looked up again then
UNKNOWN_REMEMBERED = 1.0  # seconds that a name without an answer is not asked for: a flood must not reach the server
MAX_REMEMBERED = 10_000  # names; beyond, the oldest go
_PARAMETER = re.compile(r"\$1\b")


@attrs.frozen
class Known:
    """An answer, and until when it holds, on the lane's clock."""

    user: User | None
    until: float


@attrs.define(eq=False)
class Lookup:
    """What one worker remembers, by database and name: databases may stand on different servers."""

    runtime: PoolerRuntime
    _known: dict[tuple[str, str], Known] = attrs.field(factory=dict, repr=False)
    _asking: dict[tuple[str, str], Event] = attrs.field(factory=dict)

    def found(self, database: str) -> dict[str, User]:
        """Who was found there and is still remembered; the pools of those that are connected are theirs for longer."""
        return {name: known.user for (where, name), known in self._known.items() if where == database and known.user}

    def forget(self, database: str, name: str) -> None:
        """Ask again the next time."""
        known = self._known.get((database, name))
        if known is not None:
            self._known[database, name] = attrs.evolve(known, until=0.0)

    async def find(self, client: Client) -> User | None:
        """Who this client says it is, if the query knows. Raises PeerError."""
        auth = self.runtime.table.auth
        key = (client.database, client.user)
        if auth is None or auth.query is None or client.database not in self.runtime.table.databases:
            return None
        while True:
            known = self._known.get(key)
            if known is not None and known.until > self.runtime.lane.now:
                return known.user
            asking = self._asking.get(key)
            if asking is None:
                break
            await asking.wait()
        self._asking[key] = done = Event(self.runtime.lane)
        try:
            user = await self._ask(client, auth.query, auth.query_user or "")
            keys = known.user.keys if known is not None and known.user is not None else None
            if user is not None and keys is not None and keys.secret == user.secret:
                user.keys = keys  # learned by an earlier proof
            for_seconds = REMEMBERED if user is not None else UNKNOWN_REMEMBERED
            self._known.pop(key, None)
            self._known[key] = Known(user, self.runtime.lane.now + for_seconds)
            while len(self._known) > MAX_REMEMBERED:
                del self._known[next(iter(self._known))]
            return user
        finally:
            del self._asking[key]
            done.set()

    async def _ask(self, client: Client, sql: str, query_user: str) -> User | None:
        pool = self.runtime.pool(client.database, query_user)
        if pool is None:
            raise PeerError(INTERNAL_ERROR, "users can't be looked up: there is no pool for query_user")
        client.told = True  # before its proof, clients take a notice for a breach of the protocol
        server = await pool.wait(client)
        client.server, client.told = None, False
        try:
            row = await server.ask(_PARAMETER.sub(lambda _: quoted(client.user), sql))
        except ServerError as error:
            self.runtime.worker.log.error("users can't be looked up", database=client.database, reason=error.message)
            raise PeerError(INTERNAL_ERROR, "users can't be looked up: the query failed") from None
        finally:
            if server.outstanding.free:
                pool.release(server)
            else:
                recovery.retire(pool, server)
        if len(row) < 2 or row[0] != client.user or not row[1]:
            return None
        try:
            return users.user(client.user, row[1])
        except ValueError:
            return None
