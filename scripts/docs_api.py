"""API reference of the public names of a package: the main entry points first, then in the order of `__all__`."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import csist
from csist.methods.table import METHODS

LEADING = ("unmix", "unmix_frame", "unmix_sequence", "Targets", "Sensor", "ScenePrior")
"""Names that open a page."""


def api(package: str) -> str:
    """Directives for mkdocstrings, one per class and function in `package.__all__`.

    Names that `csist` itself exports are described on its page; the pages of other packages link to them.
    """
    module = import_module(package)
    names = [*(name for name in LEADING if name in module.__all__), *(n for n in module.__all__ if n not in LEADING)]
    values = [getattr(module, name) for name in names]
    shown = [each for each in values if inspect.isclass(each) or inspect.isfunction(each)]
    elsewhere = [each for each in shown if package != "csist" and each.__name__ in csist.__all__]
    links = ", ".join(f"[`{each.__name__}`](index.md#{_path(each)})" for each in elsewhere)
    blocks = [f"Also exported here, described under `csist`: {links}."] if links else []
    return "\n\n".join(blocks + [f"::: {_path(each)}" for each in shown if each not in elsewhere])


def _path(value: Any) -> str:
    return f"{value.__module__}.{value.__name__}"


def grid_methods() -> str:
    """Directives for the classes of all grid methods, in the order of the table."""
    targets = [entry.target.replace(":", ".") for entry in METHODS.values() if entry.grid]
    return "\n\n".join(f"::: csist.methods.{target}" for target in targets)
