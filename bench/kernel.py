"""Layer 4 by the kernel: what the whole machine spends on top of a plain routed path, over network namespaces.

No process of ours carries a byte, so its own CPU says nothing: what counts is the machine's, from /proc/stat, with the
balancer in the way and without. Others' work can't be told apart, so these figures want a quiet machine.
"""

from collections.abc import Callable
from pathlib import Path

from bench.loads import Load, head, wrk
from bench.proxies import Proxy, haproxy, portway
from bench.quiet import busy
from bench.stage import Stage
from bench.workload import Figure, Workload

FRONT, SERVER = "10.90.0.1", "10.91.0.2"  # see bench.namespaces
HAPROXY_PORT, PORTWAY_PORT = 8081, 8080  # both run, and take turns


def haproxy_between(stage: Stage, folder: Path) -> Proxy:
    config = f"listen tcp\n mode tcp\n bind {FRONT}:{HAPROXY_PORT} backlog 4096\n server s {SERVER}:80\n"
    inside = stage.network.balancer
    return haproxy(folder, config, HAPROXY_PORT, lambda: f":{HAPROXY_PORT}" in listeners(stage), inside.prefix)


def portway_between(stage: Stage, folder: Path) -> Proxy:
    inside = stage.network.balancer
    config = f'[pools.backend]\nservers = ["{SERVER}:80"]\n\n'
    config += f'[edge.listeners.tcp]\nbind = "{FRONT}:{PORTWAY_PORT}"\npool = "backend"\ndatapath = "kernel"\n'
    told = f"dport {PORTWAY_PORT}"
    return portway(folder, config, PORTWAY_PORT, ready=lambda: told in rules(stage), prefix=inside.prefix)


def listeners(stage: Stage) -> str:
    """The TCP sockets that somebody accepts at in the balancer."""
    return stage.network.balancer.run("ss", "-Hltnp").stdout.decode()


def rules(stage: Stage) -> str:
    return stage.network.balancer.run("nft", "list", "ruleset").stdout.decode()


def load(stage: Stage, url: str, seconds: float, **headers: str) -> Load:
    return wrk(stage.folder, url, [head("GET", "/", **headers)], seconds, prefix=stage.network.client.prefix)


def added(**headers: str) -> Callable[[Stage, Proxy, float], Figure]:
    """CPU microseconds of the machine per request through the balancer, less those of the routed path."""

    def measure(stage: Stage, proxy: Proxy, seconds: float) -> Figure:
        routed, _ = _machine(stage, f"http://{SERVER}:80", seconds, headers)
        through, rate = _machine(stage, f"http://{FRONT}:{proxy.port}", seconds, headers)
        return Figure(max(0.1, through - routed), rate)  # within the noise nothing is added

    return measure


def _machine(stage: Stage, url: str, seconds: float, headers: dict[str, str]) -> tuple[float, float]:
    before = busy()
    done = load(stage, url, seconds, **headers)
    return (busy() - before) * 1e6 / done.operations, done.operations / done.seconds


WORKLOADS = [
    Workload(
        name="kernel",
        title="L4 by the kernel, small messages on open connections",
        unit="machine's CPU µs/message pair added to routing",
        goals={"haproxy": 0.25},
        sides={"haproxy": haproxy_between, "portway": portway_between},
        measure=added(),
        prepare=lambda stage: stage.network,
        whole_machine=True,
    ),
    Workload(
        name="kernel-new",
        title="L4 by the kernel, a new connection for each message",
        unit="machine's CPU µs/connection added to routing",
        goals={"haproxy": 0.15},
        sides={"haproxy": haproxy_between, "portway": portway_between},
        measure=added(Connection="close"),
        prepare=lambda stage: stage.network,
        whole_machine=True,
    ),
]
