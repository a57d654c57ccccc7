"""Which processes a configuration asks for: a pure list of roles, and the titles people read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from supervisor.ground.config import Config
from supervisor.ground.config.tables import MAX_WORKERS
from supervisor.ground.tier import Tier

PROBER = "prober"
ADMIN = "admin"


@attrs.frozen
class Role:
    """A place to be filled by one process at a time: `gateway 2`, `prober`."""

    name: str  # a tier's, or what exists once
    number: int = 0  # 1.. for workers, 0 for what exists once

    def title(self, count: int) -> str:
        return f"{self.name} {self.number}/{count}" if self.number else self.name


def service_name(tier: str, service: str) -> str:
    """The name of a tier's service."""
    return f"{tier}-{service}"


def wanted_workers(config: Config, tier: str, adjustment: int) -> int:
    """The configured count, as TTIN and TTOU have changed it since."""
    return min(MAX_WORKERS, max(1, config.workers(tier) + adjustment))


def wanted(config: Config, tiers: Sequence[Tier], adjustments: Mapping[str, int]) -> list[Role]:
    """Every process that should run. A tier without listeners runs none."""
    roles = []
    for tier in tiers:
        if tier.listeners(config):
            count = wanted_workers(config, tier.name, adjustments.get(tier.name, 0))
            roles += [Role(tier.name, number) for number in range(1, count + 1)]
            services = [name for name, service in tier.services.items() if service.wanted(config)]
            roles += [Role(service_name(tier.name, name)) for name in services]
    if config.pools:  # without checks too: it tells of ejections, and of pools with no server left
        roles.append(Role(PROBER))
    if config.supervisor.admin is not None:
        roles.append(Role(ADMIN))
    return roles


def count(roles: Iterable[Role], name: str) -> int:
    """How many processes of a name there should be."""
    return sum(role.name == name for role in roles)
