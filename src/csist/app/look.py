"""Pictures that can be zoomed: image, model and residual with their targets, as data for Plotly in the browser.

The server sends the values, `pictures.js` draws them and links markers with the rows of the table. A picture holds one
image and the results of all methods on it, side by side.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from csist._types import FloatArray
from csist.plots import RESIDUAL_SIGMAS, View, group_letter
from csist.targets import Targets

MOST_PIXELS = 1_500_000
"""Largest number of pixels sent to the browser; larger images are averaged over blocks."""

MOST_LETTERS = 60
"""Largest number of groups whose letters are drawn."""


@dataclass(frozen=True, eq=False)
class Panel:
    """Result of one method in a picture.

    Args:
        key: key of the panel; target number k has the row `key-k`.
        name: name of the method.
        view: image, model and detections in the order of the table's rows.
        tracks: (n, 2) x, y of the targets of each track, in the order of the images, by its number.
        letters: whether the letters of the groups are drawn.
    """

    key: str
    name: str
    view: View
    tracks: dict[int, FloatArray] = field(default_factory=dict)
    letters: bool = True


def look(image: FloatArray, panels: Sequence[Panel], title: str, truth: Targets | None = None) -> str:
    """Return the HTML of a picture that can be zoomed.

    Args:
        image: (H, W) in counts.
        panels: results of the methods; empty for the image alone.
        title: caption.
        truth: true targets, if known.
    """
    step = int(np.ceil(np.sqrt(image.size / MOST_PIXELS)))
    data = {
        "shape": [-(-side // step) for side in image.shape],
        "step": step,
        "image": _packed(binned(image, step)),
        "panels": [_panel(panel, step) for panel in panels] or [{"key": "preview", "name": "", "layers": {}}],
        "truth": None if truth is None else _points(truth),
    }
    binning = f" Averages of {step} x {step} px are shown." if step > 1 else ""
    text = json.dumps(data, allow_nan=False)
    return (
        f'<figure class="csist-look" style="--panels: {max(len(panels), 1)}" aria-label="{escape(title)}">'
        f"<template>{escape(text, quote=False)}</template>"
        f"<figcaption>{escape(title)}.{binning}</figcaption></figure>"
    )


def _panel(panel: Panel, step: int) -> dict[str, Any]:
    view = panel.view
    residual, in_sigma = view.residual, view.noise is not None and bool(np.nanmin(view.noise) > 0)
    if view.noise is not None and in_sigma:
        residual = residual / view.noise
    return {
        "key": panel.key,
        "name": panel.name,
        "layers": {"model": _packed(binned(view.model, step)), "residual": _packed(binned(residual, step))},
        "residual": {"unit": "σ" if in_sigma else "counts", "limit": RESIDUAL_SIGMAS if in_sigma else None},
        "targets": _points(view.targets),
        "groups": _letters(view.targets if panel.letters else view.targets[:0]),
        "tracks": [
            {"name": f"Track {number}", "x": places[:, 0].tolist(), "y": places[:, 1].tolist()}
            for number, places in panel.tracks.items()
        ],
    }


def binned(image: FloatArray, step: int) -> FloatArray:
    """Average an image (H, W) over blocks of `step` px per side; NaN pixels are left out, border blocks are smaller.

    >>> binned(np.array([[1.0, 3.0, 5.0], [np.nan, 2.0, 7.0]]), 2).tolist()
    [[2.0, 6.0]]
    """
    if step == 1:
        return image
    starts = [np.arange(0, side, step) for side in image.shape]
    known = np.isfinite(image)

    def sums(values: FloatArray) -> FloatArray:
        return np.asarray(np.add.reduceat(np.add.reduceat(values, starts[0], axis=0), starts[1], axis=1))

    with np.errstate(invalid="ignore"):
        return sums(np.where(known, image, 0.0)) / sums(known.astype(np.float64))


def _packed(values: FloatArray) -> str:
    """Encode values as little-endian single precision in base64, half the size of text."""
    return b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode()


def _points(targets: Targets) -> dict[str, Any]:
    points: dict[str, Any] = {
        name: [float(value) if np.isfinite(value) else None for value in getattr(targets, name)]
        for name in ("x", "y", "intensity")
    }
    return points | {"group": [group_letter(int(number)) if number >= 0 else "" for number in targets.group]}


def _letters(targets: Targets) -> dict[str, list[Any]]:
    """Return the letters of the groups and where they stand: at the brightest target."""
    numbers, first = np.unique(targets.group, return_index=True)
    shown = [int(place) for number, place in zip(numbers, first, strict=True) if number >= 0][:MOST_LETTERS]
    return {
        "x": [float(targets.x[place]) for place in shown],
        "y": [float(targets.y[place]) for place in shown],
        "text": [group_letter(int(targets.group[place])) for place in shown],
    }
