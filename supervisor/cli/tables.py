"""The tables of the tiers, for the commands that read a configuration and run nothing."""

from __future__ import annotations

from collections.abc import Mapping

from edge.config import EdgeTable
from gateway.config import GatewayTable
from pooler.config import PoolerTable

TABLES: Mapping[str, type] = {"edge": EdgeTable, "gateway": GatewayTable, "pooler": PoolerTable}
