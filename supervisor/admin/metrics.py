"""The plane as Prometheus metrics.

Every counter cell becomes `portway_KIND_FIELD_total`, every gauge `portway_KIND_FIELD`, summed over all processes, the
dead included, so that no total falls when a worker dies. A new field of the plane is a new metric without a line here;
below stands only what needs another form: histograms, seconds, states.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import attrs
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from supervisor.ground import status
from supervisor.ground.config import Config
from supervisor.ground.health import Health
from supervisor.plane import layout
from supervisor.plane.layout import Kind, Route
from supervisor.plane.memory import Plane

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_US = 1e-6
_NS = 1e-9

_LABELS: Mapping[Kind, Sequence[str]] = {
    Kind.SERVER: ("pool", "server"),
    Kind.POOL: ("pool",),
    Kind.LISTENER: ("tier", "listener"),
    Kind.ROUTE: ("route",),
    Kind.LIMIT: ("limit",),
    Kind.LEASEPOOL: ("database", "user"),
    Kind.TIER: ("tier",),
    Kind.DATABASE: ("database",),
}
# Shown in another form below, or a part of something else.
_APART: Mapping[Kind, frozenset[int]] = {
    Kind.SERVER: frozenset({layout.Server.STREAK}),  # a sum of streaks says nothing
    Kind.POOL: frozenset({layout.Pool.OLDEST_TICKET}),
    Kind.ROUTE: frozenset({*range(Route.RESPONSES_1XX, Route.RESPONSES_5XX + 1), Route.LATENCY_SUM}),
    Kind.LEASEPOOL: frozenset({layout.LeasePool.OLDEST_TICKET, layout.LeasePool.WAIT_US}),
}


@attrs.define(eq=False)
class PlaneCollector(Collector):
    """Reads the plane at each scrape. `reasons` names the gateway's reason codes in the order of their cells."""

    config: Config
    plane: Plane
    reasons: Sequence[str] = ()

    def collect(self) -> Iterator[Metric]:
        """All metrics. The registry calls this."""
        yield from self._daemon()
        yield from self._processes()
        for kind in Kind:
            rows = sorted(self.plane.names(kind).items())
            totals = {name: self.plane.row_totals(kind, row) for name, row in rows}
            yield from _counters(kind, totals)
            if kind is Kind.ROUTE:
                yield from self._routes(totals)
            elif kind is Kind.LEASEPOOL:
                yield from self._lease_pools(rows, totals)
        yield from self._servers()
        yield from self._pools()

    def _daemon(self) -> Iterator[Metric]:
        labels = (status.version(), self.config.supervisor.pop)
        yield _gauge("portway_info", "The daemon", ("version", "pop"), [(labels, 1)])
        ready = status.state(self.config, self.plane) == "ready"
        yield _gauge("portway_ready", "Whether every listener is polled and no drain runs", (), [((), ready)])
        created = self.plane.cells[layout.Header.CREATED] * _NS
        yield _gauge("portway_start_time_seconds", "When the daemon started, Unix time", (), [((), created)])
        generation = self.plane.generation
        yield _gauge("portway_generation", "Generation of the running configuration", (), [((), generation)])

    def _processes(self) -> Iterator[Metric]:
        now_ns = time.monotonic_ns()
        infos = [info for info in map(self.plane.process, range(layout.COLUMNS)) if info is not None and info.pid]
        names = ("tier", "number", "pid")
        labels = [(info.tier, str(info.number), str(info.pid)) for info in infos]
        yield _gauge(
            "portway_process_state",
            "1 starting, 2 ready, 3 draining",
            names,
            [(label, info.state) for label, info in zip(labels, infos, strict=True)],
        )
        yield _gauge(
            "portway_process_heartbeat_age_seconds",
            "Since the process last went round its loop",
            names,
            [(label, (now_ns - info.heartbeat) * _NS) for label, info in zip(labels, infos, strict=True)],
        )

    def _servers(self) -> Iterator[Metric]:
        now_ns = time.monotonic_ns()
        up = GaugeMetricFamily("portway_server_up", "Whether the server gets new work", labels=_LABELS[Kind.SERVER])
        states = GaugeMetricFamily(
            "portway_server_state", "1 for the state that the server is in", labels=(*_LABELS[Kind.SERVER], "state")
        )
        checks = CounterMetricFamily("portway_server_checks", "Active checks made", labels=_LABELS[Kind.SERVER])
        failed = CounterMetricFamily("portway_server_check_failures", "Of those, failed", labels=_LABELS[Kind.SERVER])
        rows = self.plane.names(Kind.SERVER)
        for name, pool in sorted(self.config.pools.items()):
            for server in pool.servers:
                row = rows.get(f"{name}/{server.address}")
                if row is None:
                    continue
                labels = (name, str(server.address))
                health, _ = status.server_health(self.plane, row, pool.health, now_ns, server.address.is_name)
                up.add_metric(labels, health is Health.UP)
                for each in Health:
                    states.add_metric((*labels, each.value), health is each)
                shared = status.state_fields(self.plane, Kind.SERVER, row)
                checks.add_metric(labels, shared["checks"])
                failed.add_metric(labels, shared["check_failures"])
        yield from (up, states, checks, failed)

    def _pools(self) -> Iterator[Metric]:
        rows = self.plane.names(Kind.POOL)
        failing = [
            ((name,), status.state_fields(self.plane, Kind.POOL, rows[name])["failing_open"])
            for name in sorted(self.config.pools)
            if name in rows
        ]
        yield _gauge("portway_pool_failing_open", "1 while no server of the pool is up", ("pool",), failing)

    def _routes(self, totals: Mapping[str, Sequence[int]]) -> Iterator[Metric]:
        responses = CounterMetricFamily(
            "portway_route_responses", "Responses by the class of their status", labels=("route", "code")
        )
        latency = HistogramMetricFamily(
            "portway_route_latency_seconds", "From the head of a request to the end of its response", labels=("route",)
        )
        refusals = CounterMetricFamily(
            "portway_route_reasons", "Responses of the gateway's own, by reason code", labels=("route", "reason")
        )
        for name, values in totals.items():
            for number in range(5):
                responses.add_metric((name, f"{number + 1}xx"), values[Route.RESPONSES_1XX + number])
            buckets = values[Route.LATENCY : Route.LATENCY + Route.LATENCY_BUCKETS]
            latency.add_metric((name,), histogram(buckets), values[Route.LATENCY_SUM] * _US)
            for index, reason in enumerate(self.reasons):
                if count := values[Route.REASONS + index]:
                    refusals.add_metric((name, reason), count)
        yield from (responses, latency, refusals)

    def _lease_pools(self, rows: Iterable[tuple[str, int]], totals: Mapping[str, Sequence[int]]) -> Iterator[Metric]:
        now_ns = time.monotonic_ns()
        labels = _LABELS[Kind.LEASEPOOL]
        wait_us = layout.LeasePool.WAIT_US
        waited = [(_label(Kind.LEASEPOOL, name), values[wait_us] * _US) for name, values in totals.items()]
        yield _counter("portway_leasepool_wait_seconds", "Waited for a server connection", labels, waited)
        oldest = [(_label(Kind.LEASEPOOL, name), status.oldest_wait(self.plane, row, now_ns)) for name, row in rows]
        yield _gauge("portway_leasepool_oldest_wait_seconds", "The longest wait under way", labels, oldest)
        for field, text in (("open", "Server connections"), ("limit", "How many there may be")):
            shared = [
                (_label(Kind.LEASEPOOL, name), status.state_fields(self.plane, Kind.LEASEPOOL, row)[field])
                for name, row in rows
            ]
            yield _gauge(f"portway_leasepool_{field}", text, labels, shared)


def exposition(config: Config, plane: Plane, reasons: Sequence[str] = ()) -> bytes:
    """The page of metrics, in the text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(PlaneCollector(config, plane, reasons))
    return generate_latest(registry)


def histogram(buckets: Sequence[int]) -> list[tuple[str, float]]:
    """Cumulative counts by upper edge in seconds; cell i of the plane counts the µs of i bits, below 2 to the i."""
    seen = 0
    cumulative: list[tuple[str, float]] = []
    for power, count in enumerate(buckets):
        seen += count
        last = power == len(buckets) - 1
        cumulative.append(("+Inf" if last else repr((1 << power) * _US), seen))
    return cumulative


def _counters(kind: Kind, totals: Mapping[str, Sequence[int]]) -> Iterator[Metric]:
    table = layout.TABLES[kind]
    for field, at in layout.fields(table.counters).items():
        if at in _APART.get(kind, ()):
            continue
        make: Callable[..., Metric] = _gauge if at in table.gauges else _counter
        samples = [(_label(kind, name), values[at]) for name, values in totals.items()]
        yield make(f"portway_{kind.value}_{field}", f"{kind.value}: {field.replace('_', ' ')}", _LABELS[kind], samples)


def _label(kind: Kind, name: str) -> Sequence[str]:
    """A row's name as label values: `edge/web` is the tier and the listener."""
    return name.split("/", 1) if len(_LABELS[kind]) == 2 else (name,)


Samples = Iterable[tuple[Sequence[str], float]]


def _gauge(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _counter(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
