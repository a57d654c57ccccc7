"""The prober: the process that checks servers, and the only writer of active health."""

from supervisor.prober.rounds import run_prober

__all__ = ["run_prober"]
