"""The admin process: metrics, status and health over HTTP, read-only, from the plane and the configuration alone."""

from supervisor.admin.server import Admin

__all__ = ["Admin"]
