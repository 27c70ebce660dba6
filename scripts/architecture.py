"""Draw the figure of docs/architecture.md: the rooms of the package and their imports, read from the code.

The layers are read from the import contract in pyproject.toml, imports and docstrings from the source files.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve

from csist.plots.style import BLUE, GREY

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "csist"

EVERYWHERE = ("checks", "files", "words", "_types", "_version", "_compiled", "_vectors")
"""Rooms that nearly every other room imports; the figure has no arcs to them."""

ROW_IN = 0.24
"""Height of a row of the figure in inches."""


def layers() -> list[list[str]]:
    """Return the rooms by layer, top layer first, from the import contract."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = settings["tool"]["importlinter"]["contracts"][0]
    return [[room.strip() for room in re.split("[:|]", layer)] for layer in contract["layers"]]


def sources(room: str) -> list[Path]:
    """Return the source files of a room."""
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]


def summary(room: str) -> str:
    """Return the first line of the docstring of a room."""
    folder = PACKAGE / room
    text = (folder / "__init__.py" if folder.is_dir() else PACKAGE / f"{room}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0].replace("\n", " ").replace("`", "")


def imports(room: str) -> Counter[str]:
    """Count the import statements of a room, including those inside functions, by imported room."""
    found: Counter[str] = Counter()
    for path in sources(room):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module == "csist":
                modules = [f"csist.{each.name}" for each in node.names]
            found.update(module.split(".")[1] for module in modules if module.startswith("csist."))
    del found[room]
    return found


def architecture() -> Figure:
    """Draw the rooms from top to bottom with size and purpose, and an arc from each room to the rooms it imports.

    All arcs point down, as the import contract requires.
    """
    rows = [room for layer in layers() for room in layer if not room.startswith("__")]
    figure = Figure(figsize=(10.5, ROW_IN * (len(rows) + 2)), layout="constrained")
    axes = figure.subplots()
    place = {room: -float(row) for row, room in enumerate(rows)}
    for room, y in place.items():
        size = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in sources(room))
        axes.text(0.0, y, room, weight="bold", va="center")
        axes.text(2.45, y, f"{size:,}", color=GREY, va="center", ha="right", size=8)
        axes.text(2.65, y, summary(room), va="center", size=8)
        for other, count in imports(room).items():
            if other in place and other not in EVERYWHERE:
                reach = -0.25 - 0.12 * (y - place[other])
                corners = [
                    (-0.15, y - 0.08),
                    (reach, y - 0.08),
                    (reach, place[other] + 0.08),
                    (-0.15, place[other] + 0.08),
                ]
                curve = Curve(corners, [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4])
                axes.add_patch(
                    PathPatch(curve, fill=False, edgecolor=BLUE, alpha=0.35, linewidth=0.5 + 0.25 * count**0.5)
                )
        axes.plot([-0.1], [y], "o", color=BLUE, markersize=3)
    axes.text(2.45, 1.0, "lines", color=GREY, ha="right", va="center", size=8)
    axes.set(xlim=(-3.1, 12.0), ylim=(-len(rows), 1.6))
    axes.axis("off")
    return figure
