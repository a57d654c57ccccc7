"""The one error of checks: a server that answered, but not as it should."""

from __future__ import annotations


class CheckFailed(Exception):
    """The message is the cause, as the log has it."""
