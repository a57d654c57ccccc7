"""A service: one function, started anew by a reload, ended by a drain, and missed when it ends by itself."""

from __future__ import annotations

import os
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from supervisor.ground.service import ServiceEnded, ServiceRuntime
from supervisor.ground.tier import Worker


@attrs.define(eq=False)
class FakeWorker:
    config: str = "one"


def service(seen: list[str]) -> tuple[ServiceRuntime, Any]:
    worker: Any = FakeWorker()

    async def function(worker: Worker) -> None:
        seen.append(f"began {worker.config}")
        try:
            await trio.sleep_forever()
        finally:
            seen.append(f"ended {worker.config}")

    return ServiceRuntime(worker, function), worker


def test_a_reload_starts_it_anew_and_a_drain_ends_it() -> None:
    seen: list[str] = []
    runtime, worker = service(seen)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runtime.run)
            await trio.testing.wait_all_tasks_blocked()
            worker.config = "two"
            runtime.commit(runtime.prepare(worker.config))
            await trio.testing.wait_all_tasks_blocked()
            assert seen == ["began one", "ended two", "began two"]
            runtime.drain()
        assert runtime.holding() == ()

    trio.run(main)
    assert seen[-1] == "ended two"


class Resident:
    """A service that goes on."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.heard: list[Any] = []

    async def run(self, worker: Worker) -> None:
        self.seen.append("began")
        try:
            await trio.sleep_forever()
        finally:
            self.seen.append(f"ended {worker.config}")

    def receive(self, message: Any) -> None:
        self.heard.append(message)

    def drain(self) -> None:
        self.heard.append("drain")

    def holding(self) -> list[str]:
        return ["one more"]


def test_a_resident_goes_on_through_a_reload_and_hears_messages() -> None:
    resident, worker = Resident(), FakeWorker()
    runtime = ServiceRuntime(worker, resident)  # type: ignore[arg-type]

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runtime.run)
            await trio.testing.wait_all_tasks_blocked()
            worker.config = "two"
            runtime.commit(runtime.prepare(worker.config))  # type: ignore[arg-type]
            runtime.receive("news", [])
            await trio.testing.wait_all_tasks_blocked()
            runtime.drain()
            assert runtime.holding() == ["one more"]
            await trio.testing.wait_all_tasks_blocked()
            assert resident.seen == ["began"]
            runtime.close()

    trio.run(main)
    assert resident.seen == ["began", "ended two"]
    assert resident.heard == ["news", "drain"]


def test_one_that_ends_by_itself_is_an_error() -> None:
    async def function(worker: Worker) -> None:
        await trio.lowlevel.checkpoint()

    worker: Any = FakeWorker()
    with pytest.raises(ServiceEnded):
        trio.run(ServiceRuntime(worker, function).run)


def test_descriptors_that_came_by_mistake_are_closed() -> None:
    runtime, _ = service([])
    read, write = os.pipe()
    runtime.receive("anything", [write])
    assert os.read(read, 1) == b""
    os.close(read)
