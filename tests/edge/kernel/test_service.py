"""The service without a kernel: what it asks of nft, and what it does when that fails.

Its time is a clock that jumps to whatever is due next: nothing here waits, and nothing depends on the machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from edge.config import EdgeTable
from edge.kernel import conntrack, service
from edge.kernel.service import COUNT, LOOK, RETRY, Datapath, Unavailable, table_name, wanted
from supervisor.arbiter.rows import rows_of
from supervisor.cli.tiers import TIERS
from supervisor.ground import health
from supervisor.ground.config import Config
from supervisor.ground.config.load import load_bytes
from supervisor.ground.pools import Pools
from supervisor.plane import layout
from supervisor.plane.layout import Admin, Kind, ListenerState
from supervisor.plane.memory import Plane

TEXT = """
[pools.web]
servers = ["127.0.0.1:9001", "127.0.0.1:9002"]
[edge.listeners.web]
bind = "127.0.0.1:80"
pool = "web"
datapath = "kernel"
persist = true
[edge.listeners.plain]
bind = "127.0.0.1:81"
pool = "web"
[edge.listeners.timed]
bind = "127.0.0.1:82"
pool = "web"
datapath = "auto"
idle_timeout = "1s"
"""


def load(text: str = TEXT) -> Config:
    return load_bytes(text.encode(), "x.toml", Path("/tmp"), {"edge": EdgeTable})


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    error = info


class FakeLane:
    """The time that trio has."""

    @property
    def now(self) -> float:
        return trio.current_time()

    wall = 0.0


@attrs.define(eq=False)
class FakeWorker:
    config: Config
    plane: Plane
    pools: Pools
    column: int
    tier: str = "edge-datapath"
    log: Log = attrs.field(factory=Log)
    lane: FakeLane = attrs.field(factory=FakeLane)


@attrs.define(eq=False)
class Kernel:
    """What nft was told."""

    told: list[Any] = attrs.field(factory=list)
    counters: dict[str, tuple[int, int]] = attrs.field(factory=dict)
    deleted: list[Any] = attrs.field(factory=list)
    failure: str = ""

    async def run(self, arguments: Sequence[str], data: bytes) -> bytes:
        if self.failure:
            raise Unavailable(self.failure)
        if "list" in arguments:
            listed = [{"counter": {"name": name, "packets": p, "bytes": b}} for name, (p, b) in self.counters.items()]
            return json.dumps({"nftables": listed}).encode()
        self.told.append(json.loads(data)["nftables"])
        return b""

    def servers(self) -> set[int]:
        """The ports that new flows of the last transaction go to."""
        text = json.dumps(
            [one for one in self.told[-1] if one.get("add", {}).get("rule", {}).get("chain") == "prerouting"]
        )
        return {port for port in (9001, 9002) if str(port) in text}


@pytest.fixture
def plane() -> Iterator[Plane]:
    plane = Plane.create()
    yield plane
    plane.close()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(service, "_run_nft", made.run)

    def delete(places: Any) -> int:
        made.deleted.append(places)
        return len(places)

    monkeypatch.setattr(conntrack, "delete", delete)
    return made


@pytest.fixture
def worker(plane: Plane) -> FakeWorker:
    config = load()
    for kind, name in rows_of(config, [tier for tier in TIERS if tier.name == "edge"]):
        plane.allocate(kind, name)
    column = plane.claim_column("edge-datapath", 0)
    return FakeWorker(config, plane, Pools(config, plane, column), column)


def drive(worker: Any, script: Callable[[], Any]) -> None:
    """Run the service beside the script, on a clock that jumps."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Datapath(worker).run)
            await trio.testing.wait_all_tasks_blocked()
            await script()
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def by_kernel(worker: FakeWorker, name: str) -> int:
    plane = worker.plane
    return plane.cells[plane.state(Kind.LISTENER, plane.row(Kind.LISTENER, f"edge/{name}")) + ListenerState.BY_KERNEL]


def set_admin(worker: FakeWorker, value: int) -> None:
    plane = worker.plane
    row = plane.row(Kind.SERVER, "web/127.0.0.1:9002")
    health.set_admin(plane, plane.row(Kind.POOL, "web"), row, value, layout.SUPERVISOR)


def test_it_is_wanted_by_listeners_that_ask_for_more_than_the_proxy() -> None:
    assert wanted(load())
    assert not wanted(load(TEXT.replace('"kernel"\npersist = true', '"proxy"').replace('"auto"', '"proxy"')))


def test_each_daemon_has_a_table_of_its_own() -> None:
    other = load('[supervisor]\ncontrol = "other.sock"\n')
    assert table_name(load()) != table_name(other)


def test_a_drain_moves_new_flows_only_and_maintenance_deletes_the_old(worker: FakeWorker, kernel: Kernel) -> None:
    async def script() -> None:
        assert kernel.servers() == {9001, 9002}
        assert (by_kernel(worker, "web"), by_kernel(worker, "timed")) == (1, 0)
        set_admin(worker, Admin.DRAINING)
        await trio.sleep(2.5 * LOOK)
        assert kernel.servers() == {9001}
        assert kernel.deleted == []
        set_admin(worker, Admin.MAINTENANCE)
        await trio.sleep(2.5 * LOOK)
        assert kernel.deleted == [{(6, 80, "127.0.0.1", 9002)}]
        set_admin(worker, Admin.NORMAL)
        await trio.sleep(2.5 * LOOK)
        assert kernel.servers() == {9001, 9002}
        before = len(kernel.told)
        await trio.sleep(30 * LOOK)
        assert len(kernel.told) == before  # nothing has changed

    drive(worker, script)


def test_the_flows_that_a_drain_leaves_are_deleted_when_its_time_is_over(worker: FakeWorker, kernel: Kernel) -> None:
    async def script() -> None:
        set_admin(worker, Admin.DRAINING)
        await trio.sleep(worker.config.supervisor.drain_timeout - 1)
        assert kernel.deleted == []
        await trio.sleep(1.5)
        assert kernel.deleted == [{(6, 80, "127.0.0.1", 9002)}]
        set_admin(worker, Admin.NORMAL)
        await trio.sleep(0.25)
        assert kernel.servers() == {9001, 9002}

    drive(worker, script)


def test_what_it_counts_is_in_its_column(worker: FakeWorker, kernel: Kernel) -> None:
    row = worker.plane.row(Kind.LISTENER, "edge/web")
    server = worker.plane.row(Kind.SERVER, "web/127.0.0.1:9001")
    name = f"listener_{row}_server_{server}"

    async def script() -> None:
        kernel.counters = {f"{name}_new": (2, 120), f"{name}_in": (10, 1000), f"{name}_out": (8, 5000)}
        await trio.sleep(1.2 * COUNT)
        kernel.counters = {f"{name}_new": (3, 180), f"{name}_in": (20, 3000), f"{name}_out": (9, 5100)}
        await trio.sleep(1.2 * COUNT)
        kernel.counters = {f"{name}_new": (1, 60), f"{name}_in": (1, 10), f"{name}_out": (0, 0)}  # made anew
        await trio.sleep(1.2 * COUNT)

    drive(worker, script)
    totals = worker.plane.row_totals(Kind.LISTENER, row)
    assert totals[layout.Listener.ACCEPTED] == 4
    assert (totals[layout.Listener.BYTES_IN], totals[layout.Listener.BYTES_OUT]) == (3010, 5100)
    assert worker.plane.total(Kind.SERVER, server, layout.Server.REQUESTS) == 4


def test_a_failure_is_told_once_and_tried_again(worker: FakeWorker, kernel: Kernel) -> None:
    kernel.failure = "there is no program nft; install nftables"

    async def script() -> None:
        await trio.sleep(3 * RETRY)
        assert by_kernel(worker, "web") == 0
        kernel.failure = ""
        await trio.sleep(1.2 * RETRY)
        assert by_kernel(worker, "web") == 1

    drive(worker, script)
    reasons = [fields["reason"] for event, fields in worker.log.lines if "not available" in event]
    assert reasons == ["there is no program nft; install nftables"]


def test_the_end_keeps_what_persists_and_another_of_its_kind_keeps_all(worker: FakeWorker, kernel: Kernel) -> None:
    async def nothing() -> None: ...

    drive(worker, nothing)
    assert kernel.servers() == {9001, 9002}
    assert by_kernel(worker, "web") == 0
    successor = worker.plane.claim_column("edge-datapath", 0)
    worker.plane.set_state(successor, layout.ProcessState.READY)
    count = len(kernel.told)
    drive(worker, nothing)
    assert len(kernel.told) == count + 1  # that of its start


def test_without_persistence_the_table_goes(worker: FakeWorker, kernel: Kernel) -> None:
    worker.config = load(TEXT.replace("persist = true\n", ""))

    async def nothing() -> None: ...

    drive(worker, nothing)
    assert [[*command] for command in kernel.told[-1]] == [["add"], ["delete"]]


def test_without_a_listener_for_it_the_kernel_is_cleared_and_its_absence_no_error(
    worker: FakeWorker, kernel: Kernel
) -> None:
    worker.config = load(TEXT.replace('"kernel"\npersist = true', '"proxy"'))

    async def script() -> None:
        await trio.sleep(10 * LOOK)
        assert [[*command] for command in kernel.told[-1]] == [["add"], ["delete"]]

    drive(worker, script)
    kernel.failure = "there is no program nft; install nftables"

    async def nothing() -> None:
        await trio.sleep(3 * RETRY)

    drive(worker, nothing)
    assert not [event for event, _ in worker.log.lines if "not available" in event]


def test_a_reload_leaves_the_rules_to_the_same_process_and_a_renewal_does_not(
    worker: FakeWorker, kernel: Kernel
) -> None:
    worker.config = load(TEXT.replace("persist = true\n", ""))

    async def reload() -> None:
        worker.config = load()
        worker.plane.generation += 1

    drive(worker, reload)
    assert kernel.servers() == {9001, 9002}
    worker.config = load(TEXT.replace("persist = true\n", ""))

    async def renew() -> None:
        worker.config = load()

    drive(worker, renew)
    assert [[*command] for command in kernel.told[-1]] == [["add"], ["delete"]]
