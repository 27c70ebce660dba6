"""Reference of a package's public names, in the order of its `__all__`."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import csist
from csist.methods.table import METHODS


def api(package: str) -> str:
    """Return mkdocstrings directives, one for each class and function of `package.__all__`.

    Names that `csist` itself exports are described there and only linked from the pages of other packages.
    """
    module = import_module(package)
    values = [getattr(module, name) for name in module.__all__]
    shown = [each for each in values if inspect.isclass(each) or inspect.isfunction(each)]
    elsewhere = [each for each in shown if package != "csist" and each.__name__ in csist.__all__]
    links = ", ".join(f"[`{each.__name__}`](index.md#{_path(each)})" for each in elsewhere)
    blocks = [f"Also here, and described with `csist`: {links}."] if links else []
    return "\n\n".join(blocks + [f"::: {_path(each)}" for each in shown if each not in elsewhere])


def _path(value: Any) -> str:
    return f"{value.__module__}.{value.__name__}"


def grid_methods() -> str:
    """Return directives for the classes of all grid methods, in the order of the registry."""
    targets = [entry.target.replace(":", ".") for entry in METHODS.values() if entry.grid]
    return "\n\n".join(f"::: csist.methods.{target}" for target in targets)
