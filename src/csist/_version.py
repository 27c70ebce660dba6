"""Version of the installed package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    """Return the version of csist, or "unknown" if it is not installed."""
    try:
        return version("csist")
    except PackageNotFoundError:
        return "unknown"
