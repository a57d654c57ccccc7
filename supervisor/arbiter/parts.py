"""What the roof hands to the supervisor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from supervisor.ground.config import Config, load
from supervisor.ground.service import Resident, Service
from supervisor.ground.tier import Tier


@attrs.frozen
class Parts:
    """The tiers, and what exists once."""

    tiers: Sequence[Tier]
    prober: Service
    admin: Service | Resident

    def load(self, path: Path) -> Config:
        """Raises ConfigError."""
        return load(path, {tier.name: tier.table for tier in self.tiers})
