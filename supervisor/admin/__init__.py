"""The admin process: metrics, status and health over HTTP, read-only, from the plane and the configuration alone."""

from supervisor.admin.server import run_admin

__all__ = ["run_admin"]
