"""Whether annotations belong to their images, and how their coordinates are meant.

The files do not say whether coordinates count from 0 or 1, nor whether xc is the column or the row (the
published code reads them one way for images and the other way for labels). So the annotations are rendered
in all four ways and compared with the images: the way that explains them is the right one. Then every image is
compared with its own annotation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csist._types import FloatArray
from csist.checks import InputError
from csist.io.store import SplitArrays
from csist.physics.sensor import ROUNDING_VARIANCE, Sensor
from csist.scenes import ScenePrior
from csist.targets import Targets

PROBE = 64
"""Images, spread over a split, on which the convention of the coordinates is decided."""

BATCH = 4096
"""Images whose annotations are compared with them at a time."""

FAR_OFF = 4.0
"""An annotation that leaves so many times what is typical does not belong to its image."""

MOST_UNEXPLAINED = 0.01
"""Share of images that their annotations may leave unexplained; they are reported."""

LEAST_EXPLAINED = 0.5
"""Share of the images' variance that the annotations must explain. The right convention explains over 0.9
even with read noise of 5 counts; a wrong one puts the light elsewhere and is worse than an empty image."""


@dataclass(frozen=True)
class Convention:
    """How the coordinates of a dataset are meant.

    Args:
        x_is_column: whether xc is the column (else the row).
        first: number of the first pixel, 0 or 1.
        explained: share of the images' variance that the annotations, so read, explain; NaN without targets.
    """

    x_is_column: bool
    first: int
    explained: float

    def __str__(self) -> str:
        axis = "column" if self.x_is_column else "row"
        return f"xc is the {axis}, pixels count from {self.first} ({100 * self.explained:.2f} % explained)"


@dataclass(frozen=True)
class Annotation:
    """What an XML file says: the image's shape (rows, columns), sigma, and (xc, yc, brightness) of every target."""

    shape: tuple[int, int]
    sigma_px: float
    points: tuple[tuple[float, float, float], ...]


def targets_of(truth: Annotation, convention: Convention) -> Targets:
    """The targets of an annotation in our coordinates."""
    points = np.array(truth.points, dtype=np.float64).reshape(-1, 3)
    x, y = (0, 1) if convention.x_is_column else (1, 0)
    return Targets(x=points[:, x] - convention.first, y=points[:, y] - convention.first, intensity=points[:, 2])


def _render(sensor: Sensor, truths: list[Annotation], convention: Convention) -> FloatArray:
    arrays = SplitArrays.from_targets(np.empty(len(truths)), [targets_of(truth, convention) for truth in truths])
    x, y, intensity = np.nan_to_num(arrays.targets, nan=0.0).transpose(2, 0, 1)
    return sensor.render_stack(x, y, intensity)


def find_convention(
    root: Path, images: NDArray[Any], truths: list[Annotation], sensor: Sensor
) -> tuple[Convention, Sensor]:
    """The convention that explains the images best, and the sensor with the background found on the way.

    Args:
        root: the dataset, for the message.
        images: (N, H, W) as stored.
        truths: of each image.
        sensor: with the PSF that the annotations state.

    Raises:
        InputError: if none explains half of the images' variance.
    """
    seen = _spread([i for i, truth in enumerate(truths) if truth.points], PROBE)
    candidates = [Convention(column, first, np.nan) for first in (0, 1) for column in (True, False)]
    if not seen:
        return candidates[0], sensor
    limits = np.iinfo(images.dtype) if images.dtype.kind in "ui" else np.finfo(np.float64)
    observed = images[seen].astype(np.float64)
    spread = ((observed - np.median(observed)) ** 2).sum(axis=(1, 2))
    best, best_background = candidates[0], 0.0
    for candidate in candidates:
        clean = _render(sensor, [truths[i] for i in seen], candidate)
        # Most pixels are dark, so the median difference is the background; below half a count it is rounding.
        background = float(np.median(observed - clean))
        background = background if abs(background) > 0.5 else 0.0
        # A file cannot hold more than its type: saturated images are compared as such.
        model = np.clip(np.rint(clean + background), float(limits.min), float(limits.max))
        left = ((observed - model) ** 2).sum(axis=(1, 2))
        # Of all together, or of the median image: labels of other images, reported later, do not hide the convention.
        explained = -np.inf
        if spread.sum() > 0:
            each = 1.0 - left / np.maximum(spread, np.finfo(float).tiny)
            explained = max(float(1.0 - left.sum() / spread.sum()), float(np.median(each)))
        if np.isnan(best.explained) or explained > best.explained + 1e-12:
            best, best_background = replace(candidate, explained=explained), background
    if best.explained < LEAST_EXPLAINED:
        raise InputError(
            f"{root}: the annotations do not explain the images with sigma {truths[0].sigma_px}, neither "
            "with xc as column nor as row, counted from 0 or 1 (at best "
            f"{100 * best.explained:.0f} % of the variance): do they belong together?"
        )
    return best, replace(sensor, background=best_background)


def _spread(places: list[int], most: int) -> list[int]:
    """At most so many of the places, spread evenly."""
    chosen = np.unique(np.linspace(0, len(places) - 1, most).astype(int)) if len(places) > most else range(len(places))
    return [places[k] for k in chosen]


def misfit(
    images: NDArray[Any], truths: list[Annotation], convention: Convention, sensor: Sensor
) -> tuple[list[int], FloatArray, FloatArray]:
    """Places of the images with targets, and of each the squares that its annotation leaves, and those of its light.

    Args:
        images: (N, H, W) as stored.
        truths: of each image.
        convention: how the coordinates are meant.
        sensor: that made the images.
    """
    seen = [i for i, truth in enumerate(truths) if truth.points]
    limits = np.iinfo(images.dtype) if images.dtype.kind in "ui" else np.finfo(np.float64)
    left, spread = np.empty(len(seen)), np.empty(len(seen))
    for start in range(0, len(seen), BATCH):
        part = seen[start : start + BATCH]
        observed = images[part].astype(np.float64)
        model = np.clip(np.rint(_render(sensor, [truths[i] for i in part], convention)), limits.min, limits.max)
        dark = np.median(observed, axis=(1, 2), keepdims=True)
        left[start : start + BATCH] = ((observed - model) ** 2).sum(axis=(1, 2))
        spread[start : start + BATCH] = ((observed - dark) ** 2).sum(axis=(1, 2))
    return seen, left, spread


def check_labels(paths: list[Path], found: tuple[list[int], FloatArray, FloatArray], typical: float) -> list[str]:
    """Check every image of a split against its own annotation; returns a note where few do not belong together.

    An image counts as unexplained if its annotation leaves more than half of its variance, and several times what an
    annotation leaves typically: noise leaves the same everywhere, labels of other images do not.

    Args:
        paths: of the images.
        found: by `misfit`.
        typical: squares that an annotation leaves in the median.

    Raises:
        InputError: if more than `MOST_UNEXPLAINED` of the images are unexplained.
    """
    seen, left, spread = found
    wrong = np.flatnonzero((left > (1.0 - LEAST_EXPLAINED) * spread) & (left > FAR_OFF * typical))
    if not len(wrong):
        return []
    first = paths[seen[int(wrong[0])]]
    said = f"{len(wrong)} of {len(seen)} annotations do not explain their images, first that of {first}"
    if len(wrong) > MOST_UNEXPLAINED * len(seen):
        raise InputError(f"{said}: are they numbered alike?")
    return [said]


def measure_sensor(images: NDArray[Any], truths: list[Annotation], convention: Convention, sensor: Sensor) -> Sensor:
    """The sensor with clipping and read noise as images spread over the split show them."""
    seen = _spread([i for i, truth in enumerate(truths) if truth.points], 8 * PROBE)
    if not seen or images.dtype.kind != "u":
        return sensor
    depth, top = 8 * images.dtype.itemsize, float(np.iinfo(images.dtype).max)
    observed, clean = images[seen].astype(np.float64), _render(sensor, [truths[i] for i in seen], convention)
    clipped = bool(((observed == top) & (clean > top + 1.0)).any())
    # Bright but unsaturated pixels only: dark ones may have been clipped at 0.
    lit = (clean > 10.0) & (clean < 0.9 * top) & (observed < top)
    variance = float(np.mean((observed - clean)[lit] ** 2)) if lit.any() else 0.0
    # Printed coordinates are rounded too, which costs a few hundredths of a count^2.
    noise = float(np.sqrt(variance - ROUNDING_VARIANCE)) if variance > ROUNDING_VARIANCE + 0.05 else 0.0
    return replace(sensor, read_noise=noise, bits=depth if clipped or noise > 0 else None)


def follows(prior: ScenePrior, splits: dict[str, SplitArrays]) -> bool:
    """Whether all scenes obey the law of the benchmark (to the precision of printed coordinates)."""
    low, high = prior.intensity_range or (0.0, np.inf)
    for arrays in splits.values():
        held = np.isfinite(arrays.targets[..., 2])
        flux = arrays.targets[..., 2][held]
        if arrays.count.min(initial=1) < prior.count_range[0] or arrays.count.max(initial=1) > prior.count_range[1]:
            return False
        if flux.size and (flux.min() < low - 0.5 or flux.max() > high + 0.5):
            return False
        x, y = arrays.targets[..., 0], arrays.targets[..., 1]
        distance = np.hypot(x[:, :, None] - x[:, None, :], y[:, :, None] - y[:, None, :])
        pairs = distance[:, *np.triu_indices(x.shape[1], 1)]
        if (pairs < prior.min_separation_px - 0.02).any():
            return False
        if prior.single_pixel:
            spans = [v[held.any(axis=1)] for v in (x, y)]
            if any((np.nanmax(v, axis=1) - np.nanmin(v, axis=1) > 1.02).any() for v in spans if v.size):
                return False
    return True
