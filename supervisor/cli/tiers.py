"""The one place that names the tiers; everything below knows them as values."""

from __future__ import annotations

import edge.tier
import gateway.tier
import pooler.tier
from supervisor.ground.tier import Tier

TIERS: tuple[Tier, ...] = (edge.tier.TIER, gateway.tier.TIER, pooler.tier.TIER)
