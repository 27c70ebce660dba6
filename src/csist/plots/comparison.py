"""Figures that compare the performance of methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from csist.checks import InputError, check_positive
from csist.metrics.errors import ReliabilityCurve
from csist.metrics.functional import CSO_DISTANCES_PX, PrecisionRecallCurve, average_precision_name
from csist.plots.style import BLACK, BLUE, GREY, LINE_COLOURS, LINE_STYLES, headed_figure, styled

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
"""One more than there are colours, so that colour and marker do not repeat together."""


def method_comparison(rows: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """Draw CSO-mAP of each method with its interval, best on top and reference rows in grey.

    Args:
        rows: as `csist.evaluation.Evaluation.rows`: name, CSO-mAP, interval (low, high) or None, reference.
        title: heading.

    Raises:
        InputError: if there is no row.
    """
    if not rows:
        raise InputError("a comparison needs at least one method, got none")
    with headed_figure(6.4, 0.34 * len(rows) + 1.5, title) as figure:
        draw_comparison(figure.subplots(), rows)
    return figure


def draw_comparison(axis: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the content of `method_comparison` on given axes."""
    ordered = sorted(rows, key=lambda row: -_finite(row["CSO-mAP"]))
    for place, row in enumerate(ordered):
        value = _finite(row["CSO-mAP"])
        colour = GREY if row.get("reference") else BLUE
        axis.plot([0, value], [place, place], color=colour, linewidth=1.0, alpha=0.35, zorder=1)
        interval = row.get("interval")
        end = value
        if interval is not None and None not in interval:
            axis.plot(list(interval), [place, place], color=colour, linewidth=3.0, alpha=0.5, solid_capstyle="butt")
            end = max(end, float(interval[1]))
        axis.plot(value, place, marker="D" if row.get("reference") else "o", color=colour, markersize=6)
        axis.annotate(f"{value:.1f}", (end, place), xytext=(8, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_yticks(range(len(ordered)), [str(row["name"]) for row in ordered])
    axis.set_ylim(len(ordered) - 0.4, -0.6)
    axis.set_xlim(0, 108)
    axis.set_xticks(range(0, 101, 20))
    axis.set_xlabel("CSO-mAP in percent (bar: 95 % interval)")
    axis.grid(axis="x", linewidth=0.4, alpha=0.5)
    axis.tick_params(axis="y", length=0)


def accuracy_against_speed(rows: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """Draw CSO-mAP of each method against its images per second; up and to the right is better.

    Args:
        rows: name, CSO-mAP, interval (low, high) or None, images_per_second with the values median, slowest and
            fastest, and published, true if the accuracy is taken from the literature (drawn with hollow markers).
        title: heading.

    Raises:
        InputError: if there is no row or a speed is not positive.
    """
    if not rows:
        raise InputError("a comparison needs at least one method, got none")
    for row in rows:
        check_positive(f"images_per_second of {row['name']}", row["images_per_second"]["slowest"])
    looks = _line_looks([str(row["name"]) for row in rows])
    with styled():
        figure = Figure(figsize=(7.6, 4.2), layout="constrained")
        axis = figure.subplots()
        for row, marker in zip(rows, cycle(MARKERS), strict=False):
            speed = row["images_per_second"]
            colour = looks[str(row["name"])]["color"]
            axis.errorbar(
                speed["median"], _finite(row["CSO-mAP"]), color=colour, marker=marker, markersize=7, elinewidth=1.2,
                linestyle="",
                xerr=[[speed["median"] - speed["slowest"]], [speed["fastest"] - speed["median"]]],
                yerr=_bars(row),
                markerfacecolor="white" if row.get("published") else colour,
                label=f"{row['name']}{', accuracy as published' if row.get('published') else ''}",
            )  # fmt: skip
        axis.set_xscale("log")
        axis.set_ylim(0, 102)
        axis.set_xlabel("images per second (bar: slowest to fastest run)")
        axis.set_ylabel("CSO-mAP in percent (bar: 95 % interval)")
        axis.grid(which="both", linewidth=0.4, alpha=0.5)
        axis.set_title(title, fontsize=11, fontweight="bold")  # over the axes only, the legend is beside them
        figure.legend(loc="outside right upper")
    return figure


def accuracy_against_multiply_adds(rows: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """Draw CSO-mAP of each method against its multiply-adds per image; rows without a count are horizontal lines.

    Args:
        rows: name, CSO-mAP, interval (low, high) or None, reference, and multiply_adds_per_image if known. Rows
            without it are drawn only if they are references or methods without a map, whose cost is not comparable.
        title: heading.

    Raises:
        InputError: if no row has multiply-adds.
    """
    points = [row for row in rows if row.get("multiply_adds_per_image")]
    if not points:
        raise InputError("the picture needs multiply_adds_per_image of at least one method, got none")
    lines = [
        row for row in rows if not row.get("multiply_adds_per_image") and "psnr" not in row and "+" not in row["name"]
    ]
    with styled():
        figure = Figure(figsize=(9.0, 5.4), layout="constrained")
        axis = figure.subplots()
        methods = dict.fromkeys(_method_and_read_out(row)[0] for row in points)
        looks = dict(zip(methods, zip(cycle(LINE_COLOURS), cycle(MARKERS), strict=False), strict=False))
        read_outs = dict.fromkeys(_method_and_read_out(row)[1] for row in points)
        fills = dict(zip(read_outs, ("full", "none", "left", "top"), strict=False))
        for row in points:
            method, read_out = _method_and_read_out(row)
            colour, marker = looks[method]
            axis.errorbar(
                row["multiply_adds_per_image"], _finite(row["CSO-mAP"]), yerr=_bars(row), color=colour, marker=marker,
                markersize=7, elinewidth=1.0, linestyle="", fillstyle=fills[read_out],
            )  # fmt: skip
        for method, (colour, marker) in looks.items():
            axis.plot([], [], color=colour, marker=marker, linestyle="", label=method)
        for read_out, fill in fills.items():
            axis.plot([], [], color=GREY, marker="o", linestyle="", fillstyle=fill, label=f"read out by {read_out}")
        # No two references may look the same, so their colour changes once all styles are used.
        references, others = cycle(product((GREY, BLACK), LINE_STYLES)), cycle(product((BLUE,), LINE_STYLES))
        for row in lines:
            colour, style = next(references if row.get("reference") else others)
            axis.axhline(_finite(row["CSO-mAP"]), color=colour, linestyle=style, linewidth=1.2, label=str(row["name"]))
        axis.set_xscale("log")
        axis.set_ylim(0, 102)
        axis.set_xlabel("multiply-adds per image")
        axis.set_ylabel("CSO-mAP in percent (bar: 95 % interval)")
        axis.grid(which="both", linewidth=0.4, alpha=0.5)
        axis.set_title(title, fontsize=11, fontweight="bold")
        figure.legend(loc="outside right upper")
    return figure


def _method_and_read_out(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return the method and its read-out from the name of a row."""
    method, _, read_out = str(row["name"]).partition("+")
    return method, read_out or "cells"


def _bars(row: Mapping[str, Any]) -> list[list[float]]:
    """Return the lengths of the error bar below and above CSO-mAP."""
    value = _finite(row["CSO-mAP"])
    low, high = row.get("interval") or (value, value)
    return [[max(value - low, 0.0)], [max(high - value, 0.0)]]


def _finite(value: Any) -> float:
    return 0.0 if value is None or not np.isfinite(value) else float(value)


def _line_looks(names: Sequence[str], references: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Return the colour and line style of each method, the same in every part of a figure."""
    looks: dict[str, dict[str, Any]] = {}
    pairs = ((colour, style) for style in cycle(LINE_STYLES) for colour in LINE_COLOURS)
    greys = cycle(LINE_STYLES[1:])
    for name in names:
        colour, style = (GREY, next(greys)) if name in references else next(pairs)
        looks[name] = {"color": colour, "linestyle": style, "linewidth": 1.2 if name in references else 1.8}
    return looks


def precision_recall(curves: Mapping[str, PrecisionRecallCurve], distance_px: float, title: str = "") -> Figure:
    """Draw the monotone envelope of precision against recall for each method; AP is the area under it.

    Args:
        curves: curves by name of the method, see `csist.metrics.precision_recall_curve`.
        distance_px: matching distance of the curves in px, for the title of the axes.
        title: heading.

    Raises:
        InputError: if there is no curve.
    """
    if not curves:
        raise InputError("a picture of precision and recall needs at least one curve, got none")
    with headed_figure(5.2, 4.4, title) as figure:
        axis = figure.subplots()
        draw_precision_recall(axis, curves, distance_px, _line_looks(list(curves)))
        axis.legend(loc="lower left")
    return figure


def draw_precision_recall(
    axis: Axes,
    curves: Mapping[str, PrecisionRecallCurve],
    distance_px: float,
    looks: Mapping[str, Mapping[str, Any]],
) -> None:
    """Draw the content of `precision_recall` on given axes."""
    for name, curve in curves.items():
        recall = np.concatenate([[0.0], curve.recall])
        envelope = np.concatenate([curve.envelope[:1], curve.envelope])
        if not recall.size or np.isnan(recall).any() or not envelope.size:
            continue
        # Drop to 0 at the last detection, where the area ends.
        axis.step(np.append(recall, recall[-1]), np.append(envelope, 0.0), where="pre", label=name, **looks[name])
    axis.set_xlim(0, 1.02)
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("recall")
    axis.set_ylabel("precision")
    axis.set_title(f"within {distance_px:g} px")
    axis.grid(linewidth=0.4, alpha=0.5)


def calibration(curves: Mapping[str, ReliabilityCurve], distance_px: float = 0.25, title: str = "") -> Figure:
    """Draw the observed fraction of correct detections against the stated probability; the diagonal is calibrated.

    Args:
        curves: curves by name of the method, see `csist.metrics.reliability_curve`.
        distance_px: matching distance of the curves in px, for the label of the axis.
        title: heading.

    Raises:
        InputError: if there is no curve.
    """
    if not curves:
        raise InputError("a picture of the calibration needs at least one curve, got none")
    with headed_figure(4.6, 4.4, title) as figure:
        axis = figure.subplots()
        draw_calibration(axis, curves, distance_px, _line_looks(list(curves)))
        axis.legend(loc="upper left")
    return figure


def draw_calibration(
    axis: Axes,
    curves: Mapping[str, ReliabilityCurve],
    distance_px: float,
    looks: Mapping[str, Mapping[str, Any]],
) -> None:
    """Draw the content of `calibration` on given axes."""
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, zorder=1)
    for name, curve in curves.items():
        # Error bars of one binomial standard error: bins with few detections scatter around the diagonal.
        error = np.sqrt(np.clip(curve.right * (1 - curve.right), 0, None) / np.maximum(curve.detections, 1))
        look = looks[name]
        axis.errorbar(
            curve.score, curve.right, yerr=error, color=look["color"], linestyle=look["linestyle"],
            linewidth=1.2, elinewidth=0.8, marker="o", markersize=4, label=name,
        )  # fmt: skip
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(-0.02, 1.02)
    axis.set_aspect("equal")
    axis.set_xlabel("stated probability")
    axis.set_ylabel(f"fraction with a true target within {distance_px:g} px")
    axis.grid(linewidth=0.4, alpha=0.5)


def evaluation_panel(
    rows: Sequence[Mapping[str, Any]],
    curves: Mapping[str, PrecisionRecallCurve],
    distance_px: float,
    reliability: Mapping[str, ReliabilityCurve],
    title: str = "",
) -> Figure:
    """Draw the figure of `csist evaluate`: comparison, AP by distance, precision and recall, calibration.

    Args:
        rows: as for `method_comparison`, with the five average precisions.
        curves: precision-recall curves by name, of some of the rows.
        distance_px: matching distance of the curves in px.
        reliability: reliability curves by name, empty if no method states probabilities.
        title: heading.

    Raises:
        InputError: if there is no row.
    """
    if not rows:
        raise InputError("a comparison needs at least one method, got none")
    names = [str(row["name"]) for row in rows]
    looks = _line_looks(names, [str(row["name"]) for row in rows if row.get("reference")])
    with headed_figure(10.4, 8.4, title) as figure:
        axes = figure.subplots(2, 2)
        draw_comparison(axes[0, 0], rows)
        for row, name in zip(rows, names, strict=True):
            values = [_finite(row[average_precision_name(distance)]) for distance in CSO_DISTANCES_PX]
            axes[0, 1].plot(CSO_DISTANCES_PX, values, marker="o", markersize=4, label=name, **looks[name])
        axes[0, 1].set_xticks(CSO_DISTANCES_PX)
        axes[0, 1].set_ylim(0, 102)
        axes[0, 1].set_xlabel("matching distance in px")
        axes[0, 1].set_ylabel("average precision in percent")
        axes[0, 1].grid(linewidth=0.4, alpha=0.5)
        draw_precision_recall(axes[1, 0], curves, distance_px, looks)
        if reliability:
            draw_calibration(axes[1, 1], reliability, 0.25, looks)
            axes[1, 1].set_title("calibration of the scores")
        else:
            axes[1, 1].set_axis_off()
            axes[1, 1].text(0.5, 0.5, "no method states probabilities", ha="center", color=GREY)
        handles, labels = axes[0, 1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4))
    return figure
