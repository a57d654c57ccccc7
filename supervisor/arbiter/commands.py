"""What the control socket can be asked: `status`, `reload`, `upgrade`, `drain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from structlog.typing import FilteringBoundLogger

from supervisor.arbiter.control import Command, Reply, refusal
from supervisor.arbiter.holdings import Holdings
from supervisor.arbiter.reloading import Reloading
from supervisor.ground import health, status
from supervisor.ground.config import not_one_of, unknown_name
from supervisor.plane import layout
from supervisor.plane.layout import Admin, Kind
from supervisor.plane.memory import Plane

_ADMIN = {"normal": Admin.NORMAL, "draining": Admin.DRAINING, "maintenance": Admin.MAINTENANCE}


@attrs.define(eq=False)
class Commands:
    """The commands, and what they need."""

    plane: Plane
    reloading: Reloading
    log: FilteringBoundLogger
    holdings: Holdings
    upgrade: Command

    def table(self) -> dict[str, Command]:
        """By name."""
        return {"status": self.status, "reload": self.reload, "upgrade": self.upgrade, "drain": self.drain}

    def status(self, request: Mapping[str, Any], reply: Reply) -> None:
        """The status document, and what holds up those who drain; or, with a `tier`, all that its processes carry."""
        tier, tiers = request.get("tier"), self.reloading.config.tiers
        if tier is not None and tier not in tiers:
            reply(refusal(unknown_name("tier", str(tier), tiers)))
            return

        def told(answers: Sequence[Mapping[str, Any]]) -> None:
            document = status.document(self.reloading.config, self.plane)
            part = "holding" if tier is None else "flows"
            reply({"ok": True, "status": {**document, part: answers}})

        self.holdings.ask(told, tier)

    def reload(self, request: Mapping[str, Any], reply: Reply) -> None:
        """The reply comes when every process has taken the file, or one has refused."""
        self.reloading.ask(reply)

    def drain(self, request: Mapping[str, Any], reply: Reply) -> None:
        """`server` is "POOL/HOST:PORT"; `state` is "draining" (the default), "maintenance" or "normal"."""
        name, word = str(request.get("server", "")), str(request.get("state", "draining"))
        if word not in _ADMIN:
            reply(refusal(f"state: {not_one_of(word, tuple(_ADMIN))}"))
            return
        pool, _, _ = name.partition("/")
        # The rows of servers that a reload has taken out may still be there: the configuration says who exists.
        servers = [
            f"{key}/{server.address}" for key, table in self.reloading.config.pools.items() for server in table.servers
        ]
        if name not in servers:
            reply(refusal(unknown_name("server", name, servers)))
            return
        pool_row, server_row = self.plane.row(Kind.POOL, pool), self.plane.row(Kind.SERVER, name)
        uid = request.get("uid")
        health.set_admin(self.plane, pool_row, server_row, _ADMIN[word], layout.SUPERVISOR, uid)
        self.log.info("server set by hand", server=name, state=word, user=status.user_name(uid))
        reply({"ok": True, "server": name, "state": word})
