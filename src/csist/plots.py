"""Pictures in one style: what was measured, what was found, what is left, and how well methods do.

Colours are those of Okabe and Ito ("Color Universal Design", 2008), which people with any colour vision can
tell apart. Figures are made without pyplot, so nothing global is touched and no display is needed. Axes are
in pixels: x to the right, y downwards, pixel centres at integers, as everywhere in this package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from csist.checks import InputError, check_stack
from csist.io import atomic_path, check_writable
from csist.metrics.errors import ReliabilityCurve
from csist.metrics.functional import CSO_DISTANCES_PX, PrecisionRecallCurve, average_precision_name
from csist.targets import Targets

FloatArray = NDArray[np.float64]

PICTURE_SUFFIXES = (".png", ".svg", ".pdf")

ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE, BLACK = "#0072B2", "#D55E00", "#CC79A7", "#000000"
GREY = "#8C8C8C"
LINE_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
LINE_STYLES = ("-", "--", ":")

DETECTION, ERROR, TRUTH = ORANGE, ORANGE, SKY

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "svg.hashsalt": "csist",
}

_STYLE: Any = STYLE  # matplotlib's stubs want each key spelled out as a type

DPI = 150
OUTLINE_PT = 0.9
"""Dark rim of what is drawn over images, which may be as bright as the mark."""
LARGEST_CIRCLE_PT = 15.0
SMALLEST_CIRCLE_PT = 5.0
MANY_TARGETS = 100
ROW_INCHES, TITLE_INCHES = 2.85, 0.25
CLOSE_UP_SHARE = 0.6
"""Targets spread over more of the window than this need no close-up."""
CLOSE_UP_MARGIN_PX = 0.55


def check_picture(path: str | Path) -> Path:
    """Return the path if a picture can be written there.

    Raises:
        InputError: if its name does not end in .png, .svg or .pdf or it cannot be written.
    """
    return check_writable(path, PICTURE_SUFFIXES)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, SVG or PDF, by the suffix; complete or not at all, the same bytes every time.

    Raises:
        InputError: if the suffix is another one or the path cannot be written.
    """
    path = check_picture(path)
    kind = path.suffix.lower()[1:]
    # Without these two, the file would hold the time at which it was made.
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with rc_context(_STYLE), atomic_path(path) as partial:
        figure.savefig(partial, format=kind, dpi=DPI, metadata=metadata)


@dataclass(frozen=True, eq=False)
class View:
    """An image, or a part of one, with what was found in it: one row of a picture.

    Args:
        image: measured values in counts, (H, W); NaN is drawn as a gap.
        model: what the detections (and the background) explain, in counts, (H, W).
        targets: detections in coordinates of the whole image.
        truth: true targets, if they are known.
        title: what to write over the row.
        origin: (row, column) of the first pixel in the whole image.
    """

    image: FloatArray = field(repr=False)
    model: FloatArray = field(repr=False)
    targets: Targets
    truth: Targets | None = None
    title: str = ""
    origin: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        for name in ("image", "model"):
            object.__setattr__(self, name, check_stack(getattr(self, name), name)[0])
        if self.image.shape != self.model.shape:
            raise InputError(f"image and model must have the same shape, got {self.image.shape} and {self.model.shape}")

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """(left, right, bottom, top) in px for imshow with row 0 on top."""
        (row, column), (rows, columns) = self.origin, self.image.shape
        return column - 0.5, column + columns - 0.5, row + rows - 0.5, row - 0.5

    @property
    def residual(self) -> FloatArray:
        """Image minus model in counts."""
        return self.image - self.model


def cut_out(view: View, x: float, y: float, side: int, title: str = "") -> View:
    """The part of `side` x `side` px around a point, moved so that it lies inside the image."""
    rows, columns = view.image.shape
    row = int(np.clip(round(y) - side // 2, 0, max(rows - side, 0)))
    column = int(np.clip(round(x) - side // 2, 0, max(columns - side, 0)))
    part = slice(row, row + side), slice(column, column + side)

    def inside(targets: Targets) -> Targets:
        return targets[
            (targets.x > column - 0.5)
            & (targets.x < column + side - 0.5)
            & (targets.y > row - 0.5)
            & (targets.y < row + side - 0.5)
        ]

    truth = None if view.truth is None else inside(view.truth)
    return View(view.image[part], view.model[part], inside(view.targets), truth, title, (row, column))


def unmixing_panel(
    image: FloatArray,
    targets: Targets,
    model: FloatArray,
    truth: Targets | None = None,
    title: str = "",
) -> Figure:
    """The image with its detections, the same from close, the model and the residual.

    Circles grow with the flux, ellipses are the stated standard errors, crosses the true targets.

    Args:
        image: measured values in counts, (H, W).
        targets: detections.
        model: what they explain, in counts, (H, W).
        truth: true targets, if they are known.
        title: heading of the picture.

    Raises:
        InputError: if image and model differ in shape.
    """
    return window_gallery([View(image, model, targets, truth, title)])


def window_gallery(views: Sequence[View]) -> Figure:
    """One row a window: image with detections, close-up, model, residual.

    Raises:
        InputError: if there is no view.
    """
    if not views:
        raise InputError("a picture needs at least one image, got none")
    boxes = [_close_up(view) for view in views]
    closer = any(box is not None for box in boxes)
    columns = 4 if closer else 3
    with rc_context(_STYLE):
        heights = [ROW_INCHES + (TITLE_INCHES if number == 0 else 0.0) for number in range(len(views))]
        figure = Figure(figsize=(2.75 * columns + 0.3, sum(heights) + 0.4), layout="constrained")
        rows = np.ravel(np.asarray(figure.subfigures(len(views), 1, height_ratios=heights), dtype=object))
        largest = _largest_flux(view.targets for view in views)
        for number, (row, view, box) in enumerate(zip(rows, views, boxes, strict=True)):
            if view.title:
                row.suptitle(view.title, fontsize=10, x=0.012, ha="left", fontweight="bold")
            axes = list(row.subplots(1, columns))
            levels = _levels(view)
            titled = number == 0
            _show(row, axes[0], view, view.image, levels, "image and detections" if titled else "")
            _mark(axes[0], view, largest, errors=not closer)
            if closer:
                _show(row, axes[1], view, view.image, levels, "close-up" if titled else "")
                _mark(axes[1], view, largest, errors=True)
                _zoom(axes[1], axes[0], box or view.extent)
            _show(row, axes[-2], view, view.model, levels, "model" if titled else "")
            _show_residual(row, axes[-1], view, "residual" if titled else "")
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
    zooms: int = 3,
    zoom_side_px: int = 21,
) -> Figure:
    """A whole frame with its detections, and its brightest groups from close with model and residual.

    Args:
        frame: measured values in counts, (H, W).
        targets: detections; `group` says which belong together.
        model: background and detections in counts, (H, W).
        truth: true targets, if they are known.
        title: heading of the picture.
        zooms: most groups to be shown from close.
        zoom_side_px: side of what is shown of each.

    Raises:
        InputError: if frame and model differ in shape.
    """
    whole = View(frame, model, targets, truth)
    side = min(zoom_side_px, *whole.image.shape)
    parts = [
        cut_out(whole, x, y, side, "ABCDEFGHIJ"[i % 10])
        for i, (x, y) in enumerate(_brightest_groups(targets, zooms, side))
    ]
    with rc_context(_STYLE):
        if not parts:
            figure = Figure(figsize=(8.0, 6.4), layout="constrained")
            if title:
                figure.suptitle(title, fontsize=11, fontweight="bold")
            axis = figure.subplots()
            _show(figure, axis, whole, whole.image, _frame_levels(whole.image), "no target found")
            return figure
        height = max(2.1 * len(parts) + 0.9, 4.4)
        aspect = whole.image.shape[1] / whole.image.shape[0]
        width = float(np.clip((height - 1.0) * aspect + 1.2, 4.5, 9.0))
        figure = Figure(figsize=(width + 7.7, height), layout="constrained")
        if title:
            figure.suptitle(title, fontsize=11, fontweight="bold")
        halves: Any = figure.subfigures(1, 2, width_ratios=(width, 7.7))
        left, right = halves
        axis = left.subplots()
        _show(left, axis, whole, whole.image, _frame_levels(whole.image), "frame and detections")
        largest = _largest_flux([targets])
        _mark(axis, whole, largest, errors=False)
        for part in parts:
            _frame_box(axis, part)
        grid = np.atleast_2d(right.subplots(len(parts), 3))
        for number, (axes, part) in enumerate(zip(grid, parts, strict=True)):
            levels = _levels(part)
            titled = number == 0
            _show(right, axes[0], part, part.image, levels, "image and detections" if titled else "")
            _mark(axes[0], part, largest, errors=True)
            _show(right, axes[1], part, part.model, levels, "model" if titled else "")
            _show_residual(right, axes[2], part, "residual" if titled else "")
            axes[0].text(
                0.04, 0.96, part.title, transform=axes[0].transAxes, va="top", color=YELLOW, fontweight="bold",
                path_effects=_outline(1.2),
            )  # fmt: skip
            for axis in axes[1:]:
                axis.set_ylabel("")
            if number + 1 < len(parts):
                for axis in axes:
                    axis.set_xlabel("")
        _legend(figure, [whole])
    return figure


# --- parts of the image pictures -----------------------------------------------------------------------


def _outline(linewidth: float) -> list[Any]:
    return [withStroke(linewidth=linewidth + OUTLINE_PT, foreground="#202020")]


def _largest_flux(batches: Any) -> float:
    flux = np.concatenate([np.zeros(0), *[targets.intensity for targets in batches]])
    return float(flux[np.isfinite(flux)].max(initial=0.0)) or 1.0


def _levels(view: View) -> Normalize:
    """One grey scale for image and model: they are there to be compared."""
    values = np.concatenate([view.image[np.isfinite(view.image)], view.model[np.isfinite(view.model)]])
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    return Normalize(low, high if high > low else low + 1.0)


def _frame_levels(frame: FloatArray) -> Normalize:
    """Without the few brightest and darkest pixels, which would leave the rest flat."""
    values = frame[np.isfinite(frame)]
    low, high = np.percentile(values, [0.5, 99.6]) if values.size else (0.0, 1.0)
    return Normalize(float(low), float(high) if high > low else float(low) + 1.0)


def _show(
    figure: Figure | SubFigure, axis: Axes, view: View, values: FloatArray, levels: Normalize, title: str
) -> None:
    drawn = axis.imshow(values, cmap="gray", norm=levels, extent=view.extent, interpolation="nearest")
    _finish(figure, axis, drawn, title)


def _show_residual(figure: Figure | SubFigure, axis: Axes, view: View, title: str) -> None:
    residual = view.residual
    largest = float(np.nanmax(np.abs(residual), initial=0.0)) or 1.0
    drawn = axis.imshow(
        residual, cmap="PuOr_r", vmin=-largest, vmax=largest, extent=view.extent, interpolation="nearest"
    )
    _finish(figure, axis, drawn, title)


def _finish(figure: Figure | SubFigure, axis: Axes, drawn: Any, title: str) -> None:
    axis.set_facecolor("#D3E2EC")  # where the image has no value
    axis.set_xlabel("x in px")
    axis.set_ylabel("y in px")
    for line in (axis.xaxis, axis.yaxis):
        line.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True, min_n_ticks=2))
    for spine in axis.spines.values():
        spine.set_visible(True)
    if title:
        axis.set_title(title)
    bar = figure.colorbar(drawn, ax=axis, fraction=0.046, pad=0.03, shrink=0.85)
    bar.ax.tick_params(labelsize=7)
    bar.locator = MaxNLocator(nbins=5)
    bar.update_ticks()
    bar.outline.set_linewidth(0.5)
    bar.ax.set_title("counts", fontsize=7, pad=5, loc="left")


def _mark(axis: Axes, view: View, largest: float, errors: bool) -> PathCollection:
    """Detections as circles whose area follows the flux, errors as ellipses, true targets as crosses."""
    targets, truth = view.targets, view.truth
    limits = axis.get_xlim(), axis.get_ylim()
    if truth is not None and len(truth):
        axis.scatter(truth.x, truth.y, s=38, marker="x", c=TRUTH, linewidths=1.4, zorder=4, path_effects=_outline(1.4))
    flux = np.nan_to_num(np.clip(targets.intensity, 0.0, None))
    # A picture full of rings shows no image any more.
    thin = 0.6 if len(targets) > MANY_TARGETS else 1.0
    diameter = thin * np.clip(LARGEST_CIRCLE_PT * np.sqrt(flux / largest), SMALLEST_CIRCLE_PT, LARGEST_CIRCLE_PT)
    drawn = axis.scatter(
        targets.x, targets.y, s=diameter**2, facecolors="none", edgecolors=DETECTION, linewidths=1.2 * thin, zorder=5,
        path_effects=_outline(1.2 * thin),
    )  # fmt: skip
    if errors:
        for target in targets:
            x_std, y_std = float(target.x_std[0]), float(target.y_std[0])
            if np.isfinite(x_std) and np.isfinite(y_std):
                centre = float(target.x[0]), float(target.y[0])
                axis.add_patch(
                    Ellipse(centre, 2 * x_std, 2 * y_std, facecolor=ERROR, alpha=0.55, linewidth=0, zorder=3)
                )
    axis.set_xlim(limits[0])
    axis.set_ylim(limits[1])
    return drawn


def _close_up(view: View) -> tuple[float, float, float, float] | None:
    """(left, right, bottom, top) of a square around all targets; None where it is no closer."""
    shown = [view.targets, *([] if view.truth is None else [view.truth])]
    x, y = (np.concatenate([getattr(targets, name) for targets in shown]) for name in ("x", "y"))
    if not x.size:
        return None
    side = max(float(np.ptp(x)), float(np.ptp(y))) + 2 * CLOSE_UP_MARGIN_PX
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
            path_effects=_outline(0.8),
        )
    )


def _brightest_groups(targets: Targets, most: int, side: int) -> list[tuple[float, float]]:
    """Flux-weighted centres (x, y) of the brightest groups, none inside the view of a brighter one."""
    lone = -1 - np.arange(len(targets))  # targets of no group are groups of one
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
            path_effects=_outline(1.0),
        )
    )
    high, low = axis.get_ylim()
    # Under the box where there is no room above it.
    above = top - low > 0.06 * abs(high - low)
    axis.text(
        left, top if above else bottom, part.title, color=YELLOW, fontweight="bold", ha="left",
        va="bottom" if above else "top", clip_on=True, path_effects=_outline(1.2),
    )  # fmt: skip


def _legend(figure: Figure, views: Sequence[View]) -> None:
    handles = [
        Line2D([], [], linestyle="", marker="o", markerfacecolor="none", markeredgecolor=DETECTION,
               markersize=9, label="detection, area as flux"),
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
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=True)
    # The symbols are bright because images are dark: the same ground here.
    legend.get_frame().set(facecolor="#3A3A3A", edgecolor="none")
    for text in legend.get_texts():
        text.set_color("white")


# --- comparisons ---------------------------------------------------------------------------------------


def method_comparison(rows: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """CSO-mAP of each method with its interval, best on top; reference rows in grey.

    Args:
        rows: as `csist.evaluation.Evaluation.rows`: name, CSO-mAP, interval (low, high) or None, reference.
        title: heading.

    Raises:
        InputError: if there is no row.
    """
    if not rows:
        raise InputError("a comparison needs at least one method, got none")
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 0.34 * len(rows) + 1.5), layout="constrained")
        draw_comparison(figure.subplots(), rows)
        if title:
            figure.suptitle(title, fontsize=11, fontweight="bold")
    return figure


def draw_comparison(axis: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """The content of `method_comparison` on given axes."""
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


def _finite(value: Any) -> float:
    return 0.0 if value is None or not np.isfinite(value) else float(value)


def _line_looks(names: Sequence[str], references: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Colour and style of each method, the same in every part of a picture."""
    looks: dict[str, dict[str, Any]] = {}
    pairs = ((colour, style) for style in cycle(LINE_STYLES) for colour in LINE_COLOURS)
    greys = cycle(LINE_STYLES[1:])
    for name in names:
        colour, style = (GREY, next(greys)) if name in references else next(pairs)
        looks[name] = {"color": colour, "linestyle": style, "linewidth": 1.2 if name in references else 1.8}
    return looks


def precision_recall(curves: Mapping[str, PrecisionRecallCurve], distance_px: float, title: str = "") -> Figure:
    """Precision against recall of each method, with the monotone envelope that the area is taken under.

    Args:
        curves: by the method's name, see `csist.metrics.precision_recall_curve`.
        distance_px: the distance that they were made for, for the axis.
        title: heading.

    Raises:
        InputError: if there is no curve.
    """
    if not curves:
        raise InputError("a picture of precision and recall needs at least one curve, got none")
    with rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 4.4), layout="constrained")
        axis = figure.subplots()
        draw_precision_recall(axis, curves, distance_px, _line_looks(list(curves)))
        axis.legend(loc="lower left")
        if title:
            figure.suptitle(title, fontsize=11, fontweight="bold")
    return figure


def draw_precision_recall(
    axis: Axes,
    curves: Mapping[str, PrecisionRecallCurve],
    distance_px: float,
    looks: Mapping[str, Mapping[str, Any]],
) -> None:
    """The content of `precision_recall` on given axes."""
    for name, curve in curves.items():
        recall = np.concatenate([[0.0], curve.recall])
        envelope = np.concatenate([curve.envelope[:1], curve.envelope])
        if not recall.size or np.isnan(recall).any() or not envelope.size:
            continue
        # The curve ends where the detections do: drop to 0 there, as the area does.
        axis.step(np.append(recall, recall[-1]), np.append(envelope, 0.0), where="pre", label=name, **looks[name])
    axis.set_xlim(0, 1.02)
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("recall")
    axis.set_ylabel("precision")
    axis.set_title(f"within {distance_px:g} px")
    axis.grid(linewidth=0.4, alpha=0.5)


def calibration(curves: Mapping[str, ReliabilityCurve], distance_px: float = 0.25, title: str = "") -> Figure:
    """Observed share of right detections against the stated probability; honest scores lie on the diagonal.

    Args:
        curves: by the method's name, see `csist.metrics.reliability_curve`.
        distance_px: how near a true target makes a detection right, for the axis.
        title: heading.

    Raises:
        InputError: if there is no curve.
    """
    if not curves:
        raise InputError("a picture of the calibration needs at least one curve, got none")
    with rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 4.4), layout="constrained")
        axis = figure.subplots()
        draw_calibration(axis, curves, distance_px, _line_looks(list(curves)))
        axis.legend(loc="upper left")
        if title:
            figure.suptitle(title, fontsize=11, fontweight="bold")
    return figure


def draw_calibration(
    axis: Axes,
    curves: Mapping[str, ReliabilityCurve],
    distance_px: float,
    looks: Mapping[str, Mapping[str, Any]],
) -> None:
    """The content of `calibration` on given axes."""
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, zorder=1)
    for name, curve in curves.items():
        # Bars of one binomial standard error: with few detections a bin strays from the diagonal by chance.
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
    axis.set_ylabel(f"share with a true target within {distance_px:g} px")
    axis.grid(linewidth=0.4, alpha=0.5)


def evaluation_panel(
    rows: Sequence[Mapping[str, Any]],
    curves: Mapping[str, PrecisionRecallCurve],
    distance_px: float,
    reliability: Mapping[str, ReliabilityCurve],
    title: str = "",
) -> Figure:
    """Everything that `csist evaluate` can draw: comparison, AP by distance, precision and recall, calibration.

    Args:
        rows: as for `method_comparison`, with the five average precisions.
        curves: precision and recall by name, of some of the rows.
        distance_px: the distance that they were made for.
        reliability: reliability curves by name, empty where no method states probabilities.
        title: heading.

    Raises:
        InputError: if there is no row.
    """
    if not rows:
        raise InputError("a comparison needs at least one method, got none")
    names = [str(row["name"]) for row in rows]
    looks = _line_looks(names, [str(row["name"]) for row in rows if row.get("reference")])
    with rc_context(_STYLE):
        figure = Figure(figsize=(10.4, 8.4), layout="constrained")
        axes = figure.subplots(2, 2)
        draw_comparison(axes[0, 0], rows)
        for row, name in zip(rows, names, strict=True):
            values = [_finite(row[average_precision_name(distance)]) for distance in CSO_DISTANCES_PX]
            axes[0, 1].plot(CSO_DISTANCES_PX, values, marker="o", markersize=4, label=name, **looks[name])
        axes[0, 1].set_xticks(CSO_DISTANCES_PX)
        axes[0, 1].set_ylim(0, 102)
        axes[0, 1].set_xlabel("distance in px within which a detection counts")
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
        if title:
            figure.suptitle(title, fontsize=11, fontweight="bold")
    return figure
