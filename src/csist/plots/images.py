"""Views of an image with its detections, and functions that draw them on axes.

Axes are in pixels: x to the right, y downwards, pixel centres at integers, as everywhere in this package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from csist._types import BoolArray, FloatArray
from csist.checks import InputError, check_stack
from csist.plots.style import DETECTION, ERROR, TRUTH
from csist.targets import Targets

OUTLINE_PT = 0.9
"""Width of the dark rim around markers, which keeps them visible on bright pixels."""
LARGEST_CIRCLE_PT = 15.0
SMALLEST_CIRCLE_PT = 5.0
MANY_TARGETS = 100
MASK_COLOURS = ("tab:orange", "tab:red", "tab:purple", "tab:olive", "tab:brown", "tab:pink", "tab:cyan")
MOST_MARKED = 60
"""Pixels of a kind that get a marker each; more are seen without."""


@dataclass(frozen=True, eq=False)
class View:
    """Image, or part of an image, with its detections: one row of a figure.

    Args:
        image: measured values in counts, (H, W); NaN is drawn as a gap.
        model: model of detections and background in counts, (H, W).
        targets: detections in coordinates of the whole image.
        truth: true targets, if known.
        title: heading of the row.
        origin: (row, column) of the first pixel in the whole image.
        cloud: (n, 2) x, y of posterior samples of the targets, in coordinates of the whole image; None without samples.
        masks: (H, W) pixels that are not ordinary, by kind.
    """

    image: FloatArray = field(repr=False)
    model: FloatArray = field(repr=False)
    targets: Targets
    truth: Targets | None = None
    title: str = ""
    origin: tuple[int, int] = (0, 0)
    cloud: FloatArray | None = field(default=None, repr=False)
    masks: Mapping[str, BoolArray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in ("image", "model"):
            object.__setattr__(self, name, check_stack(getattr(self, name), name)[0])
        if self.image.shape != self.model.shape:
            raise InputError(f"image and model must have the same shape, got {self.image.shape} and {self.model.shape}")

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Extent (left, right, bottom, top) in px for imshow with row 0 on top."""
        (row, column), (rows, columns) = self.origin, self.image.shape
        return column - 0.5, column + columns - 0.5, row + rows - 0.5, row - 0.5

    @property
    def residual(self) -> FloatArray:
        """Image minus model in counts."""
        return self.image - self.model


def cut_out(view: View, x: float, y: float, side: int, title: str = "") -> View:
    """Cut out `side` x `side` px around a point, shifted to lie inside the image."""
    rows, columns = view.image.shape
    row = int(np.clip(round(y) - side // 2, 0, max(rows - side, 0)))
    column = int(np.clip(round(x) - side // 2, 0, max(columns - side, 0)))
    part = slice(row, row + side), slice(column, column + side)

    def inside(x: FloatArray, y: FloatArray) -> NDArray[np.bool_]:
        return (x > column - 0.5) & (x < column + side - 0.5) & (y > row - 0.5) & (y < row + side - 0.5)

    targets, truth, cloud = view.targets, view.truth, view.cloud
    return View(
        view.image[part],
        view.model[part],
        targets[inside(targets.x, targets.y)],
        None if truth is None else truth[inside(truth.x, truth.y)],
        title,
        (row, column),
        None if cloud is None else cloud[inside(*cloud.T)],
    )


def outline(linewidth: float) -> list[Any]:
    """Return path effects that add a dark rim to a line of `linewidth` pt."""
    return [withStroke(linewidth=linewidth + OUTLINE_PT, foreground="#202020")]


def largest_flux(batches: Iterable[Targets]) -> float:
    """Return the largest finite flux of all targets in counts, or 1 if there is none."""
    flux = np.concatenate([np.zeros(0), *[targets.intensity for targets in batches]])
    return float(flux[np.isfinite(flux)].max(initial=0.0)) or 1.0


def levels_of(view: View) -> Normalize:
    """Return a common grey scale for image and model, so that they can be compared."""
    values = np.concatenate([view.image[np.isfinite(view.image)], view.model[np.isfinite(view.model)]])
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    return Normalize(low, high if high > low else low + 1.0)


def frame_levels(frame: FloatArray) -> Normalize:
    """Return a grey scale between percentiles, so that a few extreme pixels do not flatten the rest."""
    values = frame[np.isfinite(frame)]
    low, high = np.percentile(values, [0.5, 99.6]) if values.size else (0.0, 1.0)
    return Normalize(float(low), float(high) if high > low else float(low) + 1.0)


def show(figure: Figure | SubFigure, axis: Axes, view: View, values: FloatArray, levels: Normalize, title: str) -> None:
    """Draw `values` (H, W) in counts in grey, at the position of the view's image."""
    drawn = axis.imshow(values, cmap="gray", norm=levels, extent=view.extent, interpolation="nearest")
    _finish(figure, axis, drawn, title)


def show_masks(axis: Axes, view: View) -> None:
    """Colour the pixels that are not ordinary by their kind, and name the kinds; single pixels get a marker."""
    for place, (kind, mask) in enumerate(view.masks.items()):
        colour = MASK_COLOURS[place % len(MASK_COLOURS)]
        shade = np.zeros((*mask.shape, 4))
        shade[mask] = to_rgba(colour, 0.55)
        axis.imshow(shade, extent=view.extent, interpolation="nearest")
        rows, columns = np.nonzero(mask)
        few = np.s_[:MOST_MARKED] if len(rows) <= MOST_MARKED else np.s_[:1]
        size = 9.0 if len(rows) <= MOST_MARKED else 0.0
        x, y = columns[few] + view.origin[1], rows[few] + view.origin[0]
        axis.scatter(x, y, size, color=colour, marker="s", linewidths=0.0)
        axis.scatter([], [], 16.0, color=colour, marker="s", label=f"{len(rows)} {kind}", linewidths=0.0)
    if view.masks:
        axis.legend(loc="lower left", fontsize=7, title="pixels", title_fontsize=7, frameon=True, framealpha=0.8)


def show_residual(figure: Figure | SubFigure, axis: Axes, view: View, title: str) -> None:
    """Draw image minus model on a scale that is symmetric about 0."""
    residual = view.residual
    largest = float(np.nanmax(np.abs(residual), initial=0.0)) or 1.0
    drawn = axis.imshow(
        residual, cmap="PuOr_r", vmin=-largest, vmax=largest, extent=view.extent, interpolation="nearest"
    )
    _finish(figure, axis, drawn, title)


def _finish(figure: Figure | SubFigure, axis: Axes, drawn: Any, title: str) -> None:
    axis.set_facecolor("#D3E2EC")  # colour of pixels without a value
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


def mark(axis: Axes, view: View, largest: float, errors: bool) -> PathCollection:
    """Draw detections as circles with area proportional to flux, errors as ellipses, true targets as crosses."""
    targets, truth = view.targets, view.truth
    limits = axis.get_xlim(), axis.get_ylim()
    if truth is not None and len(truth):
        axis.scatter(truth.x, truth.y, s=38, marker="x", c=TRUTH, linewidths=1.4, zorder=4, path_effects=outline(1.4))
    flux = np.nan_to_num(np.clip(targets.intensity, 0.0, None))
    # Thinner and smaller circles, so that many of them do not hide the image.
    thin = 0.6 if len(targets) > MANY_TARGETS else 1.0
    diameter = thin * np.clip(LARGEST_CIRCLE_PT * np.sqrt(flux / largest), SMALLEST_CIRCLE_PT, LARGEST_CIRCLE_PT)
    drawn = axis.scatter(
        targets.x, targets.y, s=diameter**2, facecolors="none", edgecolors=DETECTION, linewidths=1.2 * thin, zorder=5,
        path_effects=outline(1.2 * thin),
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
