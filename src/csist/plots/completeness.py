"""Completeness and purity of injected groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from csist.plots.style import BLUE, VERMILION, sparse_ticks, styled


def completeness_curve(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw completeness and purity against the flux, with their 95 % intervals.

    Args:
        rows: of `csist.injection.InjectionResult.rows`, of which those by flux are drawn.
    """
    shown = [row for row in rows if row["by"] == "flux"]
    middle = np.array([np.sqrt(row["flux_low"] * row["flux_high"]) for row in shown])
    with styled():
        figure = Figure(figsize=(5.6, 3.6), layout="constrained")
        axis = figure.subplots()
        for name, colour, marker, shift in (("completeness", BLUE, "o", 0.985), ("purity", VERMILION, "s", 1.015)):
            value, low, high = (
                100.0 * np.array([row[f"{name}{end}"] for row in shown]) for end in ("", "_low", "_high")
            )
            reach = np.maximum([value - low, high - value], 0.0)
            axis.errorbar(
                middle * shift, value, reach, color=colour, marker=marker, ms=4, lw=1.2, capsize=2, label=name
            )
        axis.set(xscale="log", ylim=(-2.0, 104.0), xlabel="flux of each target in counts", ylabel="share in %")
        sparse_ticks(axis.xaxis)
        axis.legend(loc="lower right")
    return figure
