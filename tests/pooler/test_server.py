"""Our own commands on a server connection."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pooler.errors import ServerError
from pooler.server import ServerConnection
from tests.pooler.stage import Stage

Make = Callable[..., Stage]


def run(playing: Stage, sql: str) -> ServerConnection:
    """One command on the pool's only connection."""
    (server,) = playing.pool.servers
    failures: list[ServerError] = []

    async def command() -> None:
        try:
            await server.command(sql)
        except ServerError as error:
            failures.append(error)

    playing.lane.spawn(command(), "command")
    playing.lane.run()
    if failures:
        raise failures[0]
    return server  # type: ignore[no-any-return]


def test_a_command_and_the_parameters_that_it_changed(stage: Make) -> None:
    playing = stage()
    playing.client()
    server = run(playing, "SELECT set_config('TimeZone',E'CET',false)")
    assert server.settings["TimeZone"] == "CET"
    assert server.outstanding.free


def test_a_command_that_fails_leaves_the_connection_free(stage: Make) -> None:
    playing = stage()
    playing.client()
    with pytest.raises(ServerError, match="42601: failed"):
        run(playing, "FAIL")
    assert next(iter(playing.pool.servers)).outstanding.free


@pytest.mark.parametrize("how", ["closes", "resets", "babbles"])
def test_a_server_that_fails_a_command_is_not_used_again(stage: Make, how: str) -> None:
    playing = stage()
    client = playing.client()
    backend = playing.postgres.backends[0]
    if how == "resets":
        backend.conn.abort()
    if how == "babbles":
        backend.conn.send_nowait(b"\xff" * 10)
    with pytest.raises(ServerError):
        run(playing, "DIE")
    assert not any(server.outstanding.free for server in playing.pool.servers)
    playing.lane.advance(0.2)
    assert client.ask("SELECT 1") == "DCI"
