"""`csist methods`: list the available methods."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from csist.cli.options import JsonOption
from csist.cli.output import check_outputs, make_console, write_json


def methods(json_target: JsonOption = None) -> None:
    """List the methods and the grid ratios with trained weights."""
    from csist.methods.table import METHODS
    from csist.weights.pretrained import list_pretrained

    check_outputs([], json_target)
    trained: dict[str, list[int]] = {}
    for _, card in list_pretrained():
        ratios = trained.setdefault(card["method"], [])
        if card["ratio"] not in ratios:
            ratios.append(card["ratio"])
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "summary": entry.summary,
            "source": entry.source,
            "needs_training": entry.trained,
            "trained_ratios": sorted(trained.get(name, [])),
        }
        for name, entry in METHODS.items()
    ]
    if json_target is not None:
        write_json({"methods": rows}, json_target)
    if json_target == "-":
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("method", "what it is", "source", "trained weights"):
        table.add_column(heading)
    for row in rows:
        found = ", ".join(map(str, row["trained_ratios"]))
        weights = f"ratio {found}" if found else ("none" if row["needs_training"] else "needs none")
        table.add_row(row["name"], row["summary"], row["source"], weights)
    make_console().print(table)
