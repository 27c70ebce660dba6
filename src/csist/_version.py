"""The version of csist, looked up once."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    """Version of csist, or "unknown" where it is not installed."""
    try:
        return version("csist")
    except PackageNotFoundError:
        return "unknown"
