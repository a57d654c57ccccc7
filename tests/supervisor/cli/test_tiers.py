"""The tiers, named once, and their tables, named once more."""

from __future__ import annotations

from supervisor.cli.tables import TABLES
from supervisor.cli.tiers import TIERS


def test_the_tables_that_check_reads_are_those_that_run_runs() -> None:
    assert {tier.name: tier.table for tier in TIERS} == dict(TABLES)
