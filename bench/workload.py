"""A workload: the same work for Portway and its peers, and how one run of it becomes one figure.

A figure is CPU per operation (or per GB, or memory per connection); smaller is better. `measure` takes it from a proxy
that already runs; `fresh` workloads start the proxy anew for each run, because what they measure stays behind.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from bench.loads import Load, head, wrk
from bench.proxies import Proxy
from bench.stage import Stage
from supervisor.cli.demo.tree import cpu_seconds

Starter = Callable[[Stage, Path], Proxy]
Loader = Callable[[Stage, Proxy, float], Load]  # for so many seconds


@attrs.frozen
class Figure:
    """One run: the figure, and what the load completed a second."""

    value: float
    rate: float


@attrs.frozen(kw_only=True)
class Workload:
    """One line (or two) of the table."""

    name: str
    title: str
    unit: str
    goals: Mapping[str, float]  # peer -> Portway's figure over the peer's must be at most this
    sides: Mapping[str, Starter]  # peer or "portway" -> how it is started for this work
    measure: Callable[[Stage, Proxy, float], Figure]
    ceiling: float | None = None  # Portway's own figure must be at most this
    warm_up: float = 0.5  # s of load before the first figure of a side
    fresh: bool = False
    whole_machine: bool = False  # that is what is measured: what others do meanwhile can't be told apart
    check: Callable[[Stage, Proxy], object] = lambda stage, proxy: None  # does it do the work? BadRun if not
    prepare: Callable[[Stage], object] = lambda stage: None  # what must be there before anything starts


def asking(path: str, scheme: str = "http", connections: int = 32, **headers: str) -> Loader:
    """The same GET again and again, by wrk."""

    def load(stage: Stage, proxy: Proxy, seconds: float) -> Load:
        url = f"{scheme}://{proxy.address}"
        return wrk(stage.folder, url, [head("GET", path, **headers)], seconds, connections)

    return load


def per_operation(load: Loader) -> Callable[[Stage, Proxy, float], Figure]:
    """CPU microseconds of the proxy's process tree per operation that the load completed."""
    return _cpu(load, lambda done: done.operations, 1e6)


def per_gigabyte(load: Loader) -> Callable[[Stage, Proxy, float], Figure]:
    """CPU milliseconds of the proxy's process tree per 10^9 bytes received."""
    return _cpu(load, lambda done: done.volume, 1e12)


def _cpu(load: Loader, amount: Callable[[Load], float], scale: float) -> Callable[[Stage, Proxy, float], Figure]:
    def measure(stage: Stage, proxy: Proxy, seconds: float) -> Figure:
        before = cpu_seconds(proxy.child.pid)
        done = load(stage, proxy, seconds)
        spent = settled(proxy) - before
        return Figure(spent * scale / amount(done), amount(done) / done.seconds)

    return measure


def settled(proxy: Proxy) -> float:
    """Its CPU time once it has done with the connections that the load left: they are its work too."""
    spent = cpu_seconds(proxy.child.pid)
    for _ in range(20):
        time.sleep(0.02)
        again = cpu_seconds(proxy.child.pid)
        if again - spent < 0.01:
            return again
        spent = again
    return spent
