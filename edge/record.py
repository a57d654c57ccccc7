"""The access log's line for a connection: at its end, and at intervals while it lives, so that a long one is seen."""

from __future__ import annotations

import json
from collections.abc import Iterable

import attrs

from edge.connection import Connection
from supervisor.ground.lane import Scheduler
from supervisor.ground.log import AccessLog


@attrs.define(eq=False)
class Recorder:
    """The lines of one listener."""

    listener: str
    access: AccessLog
    lane: Scheduler
    _name: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._name = json.dumps(self.listener)

    def ended(self, connection: Connection, reason: str) -> None:
        """`reason` is "" when both sides had ended theirs."""
        if self.access.enabled:
            self._write(connection, "closed", reason)

    def go_on(self, connections: Iterable[Connection], interval: float) -> None:
        """Tell of those that are alive and were last told of `interval` seconds ago (0: of none). Call it about once a
        second."""
        if not self.access.enabled or not interval:
            return
        now = self.lane.now
        before = now - interval
        for connection in connections:
            if connection.told <= before and connection.began <= before:
                connection.told = now
                self._write(connection, "open", "")

    def _write(self, connection: Connection, state: str, reason: str) -> None:
        lane, server, hello = self.lane, connection.server, connection.hello
        self.access.write(
            f'{{"ts":{lane.wall:.3f},"connection":"{connection.unique_id}","listener":{self._name},"protocol":"tcp",'
            f'"client":"{connection.client[0]}","port":{connection.client[1]},'
            f'"sni":{json.dumps(hello.name) if hello is not None and hello.name else "null"},'
            f'"server":{json.dumps(server.name) if server is not None else "null"},"state":"{state}",'
            f'"reason":"{reason}","bytes_in":{connection.bytes_in},"bytes_out":{connection.bytes_out},'
            f'"us":{int((lane.now - connection.began) * 1e6)}}}'
        )
