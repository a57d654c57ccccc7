"""Process trees as /proc shows them: the ones the demo and the benchmark look at."""

from supervisor.cli.demo.tree import TITLE, Process, open_files, resident, running, tree

__all__ = ["TITLE", "Process", "open_files", "resident", "running", "tree"]
