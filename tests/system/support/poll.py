"""Waiting for a condition, bounded: the one the demo waits with."""

from supervisor.cli.demo.waiting import Late, until

__all__ = ["Late", "until"]
