"""Figures of unmixed images: image, close-up, model and residual."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from csist._types import BoolArray, FloatArray
from csist.checks import InputError
from csist.plots.images import (
    View,
    cut_out,
    frame_levels,
    largest_flux,
    levels_of,
    mark,
    outline,
    show,
    show_masks,
    show_residual,
)
from csist.plots.style import DETECTION, ERROR, SAMPLES, TRUTH, YELLOW, headed_figure, styled
from csist.targets import Targets

ROW_INCHES, TITLE_INCHES = 2.85, 0.25
CLOSE_UP_SHARE = 0.6
"""Fraction of the window side above which a spread of targets needs no close-up."""
CLOSE_UP_MARGIN_PX, GROUP_MARGIN_PX = 0.55, 0.8
"""Margins around the targets in a close-up, as one of many panels and as one of four."""
PANEL_INCHES = 5.4
"""Width of figures that are shown side by side or stacked."""
FRAME_SHARE = 0.8
"""Fraction of that width used by a frame without its scales."""
LEGEND_ENTRY_INCHES = 1.75


def unmixing_panel(
    image: FloatArray,
    targets: Targets,
    model: FloatArray,
    truth: Targets | None = None,
    title: str = "",
) -> Figure:
    """Draw an image with its detections, a close-up, the model and the residual.

    The area of circles is proportional to the flux, ellipses are the stated standard errors, crosses the true targets.

    Args:
        image: measured values in counts, (H, W).
        targets: detections.
        model: model of the detections in counts, (H, W).
        truth: true targets, if known.
        title: heading of the figure.

    Raises:
        InputError: if image and model differ in shape.
    """
    return window_gallery([View(image, model, targets, truth, title)])


def window_gallery(views: Sequence[View]) -> Figure:
    """Draw one row per window: image with detections, close-up, model, residual.

    Raises:
        InputError: if there is no view.
    """
    if not views:
        raise InputError("a picture needs at least one image, got none")
    boxes = [_close_up(view) for view in views]
    closer = any(box is not None for box in boxes)
    columns = 4 if closer else 3
    with styled():
        heights = [ROW_INCHES + (TITLE_INCHES if number == 0 else 0.0) for number in range(len(views))]
        figure = Figure(figsize=(2.75 * columns + 0.3, sum(heights) + 0.4), layout="constrained")
        rows = np.ravel(np.asarray(figure.subfigures(len(views), 1, height_ratios=heights), dtype=object))
        largest = largest_flux(view.targets for view in views)
        for number, (row, view, box) in enumerate(zip(rows, views, boxes, strict=True)):
            if view.title:
                row.suptitle(view.title, fontsize=10, x=0.012, ha="left", fontweight="bold")
            axes = list(row.subplots(1, columns))
            levels = levels_of(view)
            titled = number == 0
            show(row, axes[0], view, view.image, levels, "image and detections" if titled else "")
            mark(axes[0], view, largest, errors=not closer)
            if closer:
                show(row, axes[1], view, view.image, levels, "close-up" if titled else "")
                mark(axes[1], view, largest, errors=True)
                _zoom(axes[1], axes[0], box or view.extent)
            show(row, axes[-2], view, view.model, levels, "model" if titled else "")
            show_residual(row, axes[-1], view, "residual" if titled else "")
            for axis in axes[1:]:
                axis.set_ylabel("")
        _legend(figure, views)
    return figure


def frame_panel(
    frame: FloatArray,
    targets: Targets,
    model: FloatArray,
    truth: Targets | None = None,
    title: str = "",
    *,
    zooms: int = 3,
    zoom_side_px: int = 21,
    masks: Mapping[str, BoolArray] | None = None,
) -> Figure:
    """Draw a whole frame with its detections, and close-ups of its brightest groups with model and residual.

    Args:
        frame: measured values in counts, (H, W).
        targets: detections; `group` assigns them to groups.
        model: background and detections in counts, (H, W).
        truth: true targets, if known.
        title: heading of the figure.
        zooms: largest number of close-ups.
        zoom_side_px: side of a close-up in px.
        masks: (H, W) pixels that are not ordinary, by kind; they are coloured.

    Raises:
        InputError: if frame and model differ in shape.
    """
    whole = View(frame, model, targets, truth, masks=masks or {})
    parts = group_views(whole, zooms, zoom_side_px)
    if not parts:
        with headed_figure(8.0, 6.4, title) as figure:
            axis = figure.subplots()
            show(figure, axis, whole, whole.image, frame_levels(whole.image), "no target found")
            show_masks(axis, whole)
        return figure
    height = max(2.1 * len(parts) + 0.9, 4.4)
    aspect = whole.image.shape[1] / whole.image.shape[0]
    width = float(np.clip((height - 1.0) * aspect + 1.2, 4.5, 9.0))
    with headed_figure(width + 7.7, height, title) as figure:
        halves: Any = figure.subfigures(1, 2, width_ratios=(width, 7.7))
        left, right = halves
        largest = largest_flux([targets])
        _draw_whole(left, whole, parts, largest)
        grid = np.atleast_2d(right.subplots(len(parts), 3))
        for number, (axes, part) in enumerate(zip(grid, parts, strict=True)):
            levels = levels_of(part)
            titled = number == 0
            show(right, axes[0], part, part.image, levels, "image and detections" if titled else "")
            mark(axes[0], part, largest, errors=True)
            show(right, axes[1], part, part.model, levels, "model" if titled else "")
            show_residual(right, axes[2], part, "residual" if titled else "")
            axes[0].text(
                0.04, 0.96, part.title, transform=axes[0].transAxes, va="top", color=YELLOW, fontweight="bold",
                path_effects=outline(1.2),
            )  # fmt: skip
            for axis in axes[1:]:
                axis.set_ylabel("")
            if number + 1 < len(parts):
                for axis in axes:
                    axis.set_xlabel("")
        _legend(figure, [whole])
    return figure


def group_views(whole: View, most: int = 3, side_px: int = 21) -> list[View]:
    """Return close-ups of the brightest groups of a frame, titled A, B, C and so on, without overlap of their centres.

    A group inside the view of a brighter one is skipped.
    """
    side = min(side_px, *whole.image.shape)
    return [
        cut_out(whole, x, y, side, "ABCDEFGHIJ"[i % 10])
        for i, (x, y) in enumerate(_brightest_groups(whole.targets, most, side))
    ]


def frame_overview(whole: View, parts: Sequence[View] = ()) -> Figure:
    """Draw a whole frame with its detections and errors, and the outlines of its parts."""
    rows, columns = whole.image.shape
    height = float(np.clip(FRAME_SHARE * PANEL_INCHES * rows / columns, 1.6, 7.0))
    with styled():
        figure = Figure(figsize=(PANEL_INCHES, height + 1.2), layout="constrained")
        _draw_whole(figure, whole, parts, largest_flux([whole.targets]))
        _legend(figure, [whole])
    return figure


def group_panel(view: View) -> Figure:
    """Draw one group in four panels: image, close-up, model, residual.

    Args:
        view: window, or part of a frame, that contains the group.
    """
    sampled = view.cloud is not None and view.cloud.size > 0
    with styled():
        figure = Figure(figsize=(PANEL_INCHES, PANEL_INCHES - 0.3), layout="constrained")
        axes = np.ravel(figure.subplots(2, 2))
        levels, largest = levels_of(view), largest_flux([view.targets])
        show(figure, axes[0], view, view.image, levels, "image and detections")
        mark(axes[0], view, largest, errors=False)
        show(figure, axes[1], view, view.image, levels, "close-up")
        if view.cloud is not None and sampled:
            axes[1].autoscale(False)
            axes[1].scatter(*view.cloud.T, s=2.0, c=SAMPLES, alpha=0.25, linewidths=0, zorder=2)
        mark(axes[1], view, largest, errors=True)
        box = _close_up(view, GROUP_MARGIN_PX)
        if box is not None:
            _zoom(axes[1], axes[0], box)
        show(figure, axes[2], view, view.model, levels, "model")
        show_residual(figure, axes[3], view, "residual")
        for axis in axes[1::2]:
            axis.set_ylabel("")
        for axis in axes[:2]:
            axis.set_xlabel("")
        _legend(figure, [view], sampled)
    return figure


def _draw_whole(figure: Figure | SubFigure, whole: View, parts: Sequence[View], largest: float) -> None:
    axis = figure.subplots()
    show(figure, axis, whole, whole.image, frame_levels(whole.image), "frame and detections")
    show_masks(axis, whole)
    mark(axis, whole, largest, errors=True)
    for part in parts:
        _frame_box(axis, part)


def _close_up(view: View, margin_px: float = CLOSE_UP_MARGIN_PX) -> tuple[float, float, float, float] | None:
    """Return (left, right, bottom, top) of a square around all targets; None if it would not magnify."""
    shown = [view.targets, *([] if view.truth is None else [view.truth])]
    x, y = (np.concatenate([getattr(targets, name) for targets in shown]) for name in ("x", "y"))
    if not x.size:
        return None
    side = max(float(np.ptp(x)), float(np.ptp(y))) + 2 * margin_px
    if side > CLOSE_UP_SHARE * min(view.image.shape):
        return None
    middle_x, middle_y = 0.5 * float(x.min() + x.max()), 0.5 * float(y.min() + y.max())
    return middle_x - side / 2, middle_x + side / 2, middle_y + side / 2, middle_y - side / 2


def _zoom(axis: Axes, whole: Axes, box: tuple[float, float, float, float]) -> None:
    left, right, bottom, top = box
    axis.set_xlim(left, right)
    axis.set_ylim(bottom, top)
    for line in (axis.xaxis, axis.yaxis):
        line.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], min_n_ticks=2))
    whole.add_patch(
        Rectangle(
            (left, top),
            right - left,
            bottom - top,
            fill=False,
            edgecolor=YELLOW,
            linewidth=0.8,
            path_effects=outline(0.8),
        )
    )


def _brightest_groups(targets: Targets, most: int, side: int) -> list[tuple[float, float]]:
    """Return the flux-weighted centres (x, y) of the brightest groups, none inside the view of a brighter one."""
    lone = -1 - np.arange(len(targets))  # a target without a group is a group of its own
    label = np.where(targets.group >= 0, targets.group, lone)
    flux = np.nan_to_num(np.clip(targets.intensity, 0.0, None)) + 1e-12
    names, member = np.unique(label, return_inverse=True)
    total = np.bincount(member, weights=flux, minlength=len(names))
    centres = [
        np.bincount(member, weights=flux * each, minlength=len(names)) / np.maximum(total, 1e-300)
        for each in (targets.x, targets.y)
    ]
    chosen: list[tuple[float, float]] = []
    for index in np.argsort(-total, kind="stable"):
        x, y = float(centres[0][index]), float(centres[1][index])
        if all(max(abs(x - other[0]), abs(y - other[1])) > 0.6 * side for other in chosen):
            chosen.append((x, y))
        if len(chosen) == most:
            break
    return chosen


def _frame_box(axis: Axes, part: View) -> None:
    left, right, bottom, top = part.extent
    axis.add_patch(
        Rectangle(
            (left, top),
            right - left,
            bottom - top,
            fill=False,
            edgecolor=YELLOW,
            linewidth=1.0,
            path_effects=outline(1.0),
        )
    )
    high, low = axis.get_ylim()
    # Below the box if there is no room above it.
    above = top - low > 0.06 * abs(high - low)
    axis.text(
        left, top if above else bottom, part.title, color=YELLOW, fontweight="bold", ha="left",
        va="bottom" if above else "top", clip_on=True, path_effects=outline(1.2),
    )  # fmt: skip


def _legend(figure: Figure, views: Sequence[View], sampled: bool = False) -> None:
    handles = [
        Line2D([], [], linestyle="", marker="o", markerfacecolor="none", markeredgecolor=DETECTION,
               markersize=9, label="detection, area ∝ flux"),
    ]  # fmt: skip
    if any(np.isfinite(view.targets.x_std).any() for view in views):
        handles.append(
            Line2D([], [], linestyle="", marker="o", markerfacecolor=ERROR, alpha=0.55, markeredgewidth=0,
                   markersize=7, label="standard error")
        )  # fmt: skip
    if any(view.truth is not None for view in views):
        handles.append(
            Line2D(
                [],
                [],
                linestyle="",
                marker="x",
                color=TRUTH,
                markersize=7,
                markeredgewidth=1.4,
                label="true target",
            )
        )
    if sampled:
        handles.append(
            Line2D([], [], linestyle="", marker="o", markerfacecolor=SAMPLES, markeredgewidth=0,
                   markersize=4, label="posterior samples")
        )  # fmt: skip
    rows = math.ceil(len(handles) * LEGEND_ENTRY_INCHES / figure.get_figwidth())
    columns = math.ceil(len(handles) / rows)
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=True)
    # The symbols are bright, made for dark images: use a dark background here too.
    legend.get_frame().set(facecolor="#3A3A3A", edgecolor="none")
    for text in legend.get_texts():
        text.set_color("white")
