"""TOML to frozen attrs tables, with every error of a file at once: line, key path, suggestion.

A tier writes its table as `@attrs.frozen(kw_only=True)` classes with the types named in shapes.py. Checks across
tables are a method `problems(self, config)` that yields Problem(path relative to this table, message).
"""

from .certificates import CertificateTable, unbelievable, unusable
from .load import Config, load, load_bytes
from .pool_tls import PoolTlsTable
from .problems import ConfigError, Located, Path, Problem, not_one_of, show, show_path, suggestion, unknown_name
from .secrets import File, Secret
from .shapes import Between
from .tables import (
    HealthTable,
    LogTable,
    OutlierTable,
    PoolTable,
    ServerTable,
    SupervisorTable,
    Workers,
    worker_count,
)
from .values import Address, Bind, Duration, Network, Percent, Place, Rate, Size

__all__ = [
    "Address",
    "Between",
    "Bind",
    "CertificateTable",
    "Config",
    "ConfigError",
    "Duration",
    "File",
    "HealthTable",
    "Located",
    "LogTable",
    "Network",
    "OutlierTable",
    "Path",
    "Percent",
    "Place",
    "PoolTable",
    "PoolTlsTable",
    "Problem",
    "Rate",
    "Secret",
    "ServerTable",
    "Size",
    "SupervisorTable",
    "Workers",
    "load",
    "load_bytes",
    "not_one_of",
    "show",
    "show_path",
    "suggestion",
    "unbelievable",
    "unknown_name",
    "unusable",
    "worker_count",
]
