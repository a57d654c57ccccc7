"""The tables that every tier shares: [supervisor], [log] and [pools.NAME]. Each tier owns its own table.

The defaults are those of the peers named beside them; `docs/configuration.md` lists them for people.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import Annotated, Any, ClassVar, Literal

import attrs

from supervisor.ground.cpus import usable_cpus

from .pool_tls import PoolTlsTable
from .problems import Problem, show
from .secrets import Secret
from .shapes import Between
from .values import Address, Bind, Duration, Percent

# The plane has 64 columns: the supervisor's, the retired one, the prober's and the admin's; the rest is for workers of
# three tiers, half of it kept free for successors that live beside the draining.
MAX_WORKERS = 10
MAX_SOCKET_PATH = 107  # bytes: sun_path has 108 with its NUL (unix(7))

Workers = Literal["auto"] | Annotated[int, Between(1, MAX_WORKERS)]
"""How many processes: "auto" (usable CPUs) or a number."""


def worker_count(workers: str | int) -> int:
    """The number that "auto" means on this machine."""
    return workers if isinstance(workers, int) else min(usable_cpus(), MAX_WORKERS)


@attrs.frozen(kw_only=True)
class SupervisorTable:
    """[supervisor]: the process tree."""

    workers: Workers = "auto"
    admin: Bind | None = None
    control: FilePath = FilePath("portway.sock")
    drain_timeout: Duration = Duration(60)
    drain_delay: Duration = Duration(0)
    pin_workers: bool = False
    pid_file: FilePath | None = None
    pop: str = ""
    zone: str = ""
    nameservers: tuple[Bind, ...] = ()
    user: str | None = None
    group: str | None = None

    def problems(self, config: Any) -> Iterable[Problem]:
        if len(os.fsencode(self.control)) > MAX_SOCKET_PATH:
            yield Problem(("control",), f"{self.control} is longer than the {MAX_SOCKET_PATH} bytes of a socket's path")
        if self.user is not None and not _exists(pwd.getpwnam, self.user):
            yield Problem(("user",), f"there is no user {self.user}")
        if self.group is not None and not _exists(grp.getgrnam, self.group):
            yield Problem(("group",), f"there is no group {self.group}")


def _exists(lookup: Any, name: str) -> bool:
    try:
        lookup(name)
    except (KeyError, ValueError):
        return False
    return True


@attrs.frozen(kw_only=True)
class LogTable:
    """[log]: the daemon's log on stderr, and the access log."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"
    access: Literal["stdout", "off"] | FilePath = "off"


@attrs.frozen(kw_only=True)
class ServerTable:
    """One server of a pool; a bare string is its address."""

    SHORTHAND: ClassVar[str] = "address"

    address: Address
    addresses: Annotated[int, Between(1, 64)] = 1  # of a name: servers that it stands for
    weight: Annotated[int, Between(1, 256)] = 1
    max_connections: Annotated[int, Between(1, 1_000_000)] = 1024
    backup: bool = False
    zone: str = ""

    def problems(self, config: Any) -> Iterable[Problem]:
        if self.address.port == 0 and not self.address.is_service:
            yield Problem(("address",), "port 0 can't be connected to")
        if self.addresses > 1 and not self.address.is_name:
            yield Problem(("addresses",), "an address is one server; a name may stand for several")


@attrs.frozen(kw_only=True)
class HealthTable:
    """[pools.NAME] health: the active check. Keys of one type are refused in the others."""

    type: Literal["tcp", "tls", "http", "grpc", "postgres", "redis", "udp"]
    interval: Duration = Duration(3)
    fast_interval: Duration | None = None  # while a server is changing its state; None: the interval
    timeout: Duration = Duration(2)
    fall: Annotated[int, Between(1, 100)] = 3
    rise: Annotated[int, Between(1, 100)] = 2
    port: Annotated[int, Between(1, 65535)] | None = None
    initial: Literal["up", "down"] = "up"
    path: str | None = None
    host: str | None = None
    status: tuple[Annotated[int, Between(100, 599)], ...] | None = None
    body: str | None = None  # what the response must contain
    user: str | None = None
    password: Secret | None = None
    database: str | None = None
    service: str | None = None
    send: str | None = None
    expect: str | None = None

    ONLY: ClassVar[dict[str, tuple[str, ...]]] = {
        "path": ("http",),
        "host": ("http", "tls", "grpc"),
        "status": ("http",),
        "body": ("http",),
        "user": ("postgres", "redis"),
        "password": ("postgres", "redis"),
        "database": ("postgres",),
        "service": ("grpc",),
        "send": ("udp",),
        "expect": ("udp",),
    }

    def problems(self, config: Any) -> Iterable[Problem]:
        for key, kinds in self.ONLY.items():
            if self.type not in kinds and getattr(self, key) is not None:
                yield Problem((key,), f"only a check of type {' or '.join(map(show, kinds))} has this key")
        for key in ("interval", "fast_interval", "timeout"):
            value = getattr(self, key)
            if value is not None and value < MIN_INTERVAL:
                yield Problem((key,), f"must be at least {MIN_INTERVAL}")
        if self.path is not None and not self.path.startswith("/"):
            yield Problem(("path",), 'must begin with "/"')


MIN_INTERVAL = Duration(0.01)  # below, the prober would do nothing but check


@attrs.frozen(kw_only=True)
class OutlierTable:
    """[pools.NAME] outlier: ejection after failures seen in real traffic (Envoy's outlier detection)."""

    consecutive_failures: Annotated[int, Between(1, 1_000_000)] = 5
    eject: Duration = Duration(30)  # times the ejections so far
    max_eject: Duration = Duration(300)
    max_ejected: Percent = Percent(0.5)  # of the pool's servers

    def problems(self, config: Any) -> Iterable[Problem]:
        if self.max_eject < self.eject:
            yield Problem(("max_eject",), f"must be at least eject, {self.eject}")


def _expanded(servers: Iterable[ServerTable]) -> tuple[ServerTable, ...]:
    """A name that stands for several servers as so many, each with its number."""
    expanded: list[ServerTable] = []
    for server in servers:
        if server.addresses == 1 or not server.address.is_name:
            expanded.append(server)
            continue
        numbered = (attrs.evolve(server.address, number=number) for number in range(1, server.addresses + 1))
        expanded += [attrs.evolve(server, address=address, addresses=1) for address in numbered]
    return tuple(expanded)


@attrs.frozen(kw_only=True)
class PoolTable:
    """[pools.NAME]: where connections can go."""

    balance: Literal["round_robin", "least_connections", "source_hash", "maglev", "random_two"] = "round_robin"
    servers: tuple[ServerTable, ...] = attrs.field(converter=_expanded)
    health: HealthTable | None = None
    outlier: OutlierTable = OutlierTable()
    on_all_down: Literal["try_all", "refuse"] = "try_all"
    tls: PoolTlsTable | None = None
    protocol: Literal["auto", "http1", "h2", "h2c"] = "auto"  # of HTTP; auto: by ALPN where there is TLS, else http1
    min_zone_up: Percent = Percent(0.5)  # of the own zone's servers; with fewer, other zones take part
    slow_start: Duration = Duration(0)  # HAProxy's `slowstart`, Envoy's slow start mode
    max_queued: Annotated[int, Between(0, 1_000_000)] = 0  # over all workers, as all limits of a pool
    queue_timeout: Duration = Duration(5)  # HAProxy: `timeout connect` where `timeout queue` is not set

    @property
    def speaks_plainly(self) -> bool:
        """Whether nothing is said about how its servers are spoken to: a tier that only passes bytes can use it."""
        return self.tls is None and self.protocol == "auto"

    def problems(self, config: Any) -> Iterable[Problem]:
        if not self.servers:
            yield Problem(("servers",), "a pool needs at least one server")
        first: dict[Bind, int] = {}
        for number, server in enumerate(self.servers):
            earlier = first.setdefault(server.address, number)
            if earlier != number:
                yield Problem(("servers", number), f"{server.address} is already server {earlier} of this pool")
        check = self.health
        if self.protocol in ("h2", "h2c") and check is not None and check.type == "http" and check.port is None:
            yield Problem(
                ("health", "type"), 'these servers don\'t speak the HTTP/1.1 of this check: take "grpc" or "tcp"'
            )
        if self.protocol == "h2" and self.tls is None:
            yield Problem(("protocol",), '"h2" is HTTP/2 over TLS: set tls, or did you mean "h2c"?')
        if self.protocol == "h2c" and self.tls is not None:
            yield Problem(("protocol",), '"h2c" is HTTP/2 without TLS: take tls away, or did you mean "h2"?')
