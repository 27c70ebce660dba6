"""Pictures that can be zoomed: image, model and residual with their targets, as data for Plotly in the browser.

The server sends the values, `pictures.js` draws them and links markers with the rows of the table.
"""

from __future__ import annotations

import json
from base64 import b64encode
from html import escape
from typing import Any

import numpy as np

from csist._types import FloatArray
from csist.plots import View
from csist.targets import Targets

MOST_PIXELS = 1_500_000
"""Largest number of pixels sent to the browser; larger images are averaged over blocks."""

RESIDUAL_LIMIT = 5.0
"""End of the colour scale of all residuals in units of the noise."""


def look(view: View, noise: FloatArray | None, key: str, title: str) -> str:
    """Return the HTML of a picture that can be zoomed.

    Args:
        view: image, model, detections in the order of the table's rows, and truth.
        noise: (H, W) or a scalar array, standard deviation of a pixel in counts; None, or 0, for residuals in counts.
        key: key of the picture; target number k has the row `key-k`.
        title: caption.
    """
    step = int(np.ceil(np.sqrt(view.image.size / MOST_PIXELS)))
    residual = view.image - view.model
    in_sigma = False
    if noise is not None and np.nanmin(noise) > 0:
        in_sigma, residual = True, residual / noise
    layers = {"image": view.image, "model": view.model, "residual": residual}
    data = {
        "key": key,
        "shape": [-(-side // step) for side in view.image.shape],
        "step": step,
        "layers": {name: _packed(binned(values, step)) for name, values in layers.items()},
        "residual": {"unit": "sigma" if in_sigma else "counts", "limit": RESIDUAL_LIMIT if in_sigma else None},
        "targets": _points(view.targets),
        "truth": None if view.truth is None else _points(view.truth),
    }
    binning = f" Averages of {step} x {step} px are shown." if step > 1 else ""
    text = json.dumps(data, allow_nan=False)
    return (
        f'<figure class="csist-look" data-key="{escape(key)}" aria-label="{escape(title)}">'
        f"<template>{escape(text, quote=False)}</template>"
        f"<figcaption>{escape(title)}.{binning}</figcaption></figure>"
    )


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
    return {
        name: [float(value) if np.isfinite(value) else None for value in getattr(targets, name)]
        for name in ("x", "y", "intensity")
    }
