"""Diagnostic figures: training curves, the fit of a PSF, the physical limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, product
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from csist._types import FloatArray
from csist.checks import InputError
from csist.plots.style import BLUE, GREY, LINE_COLOURS, LINE_STYLES, VERMILION, headed_figure, plain_ticks, styled

if TYPE_CHECKING:
    from csist.physics.psf import PSF

LEAST_LIGHT = 1e-4
"""Fraction of a source's flux at which the axes of the PSF figure end."""


def training_curves(logs: Mapping[str, Mapping[str, FloatArray]], title: str = "") -> Figure:
    """Draw the loss per step and the validation CSO-mAP against samples, with lines for the exact map where known.

    Args:
        logs: logs by name, as returned by `csist.training.logs.read_log`.
        title: heading.

    Raises:
        InputError: if there is no log, or none of them holds a step.
    """
    if not any(len(log["samples"]) for log in logs.values()):
        raise InputError("training curves need the log of at least one step, got none")
    with headed_figure(9.0, 3.6, title) as figure:
        left, right = figure.subplots(1, 2)
        for (name, log), (style, colour) in zip(logs.items(), cycle(product(LINE_STYLES, LINE_COLOURS)), strict=False):
            thousands = log["samples"] / 1000.0
            look: dict[str, Any] = {"color": colour, "linestyle": style, "linewidth": 1.0}
            steps, validations = np.isfinite(log["discrepancy"]), np.isfinite(log["cso_map"])
            left.plot(thousands[steps], log["discrepancy"][steps], label=name, **look)
            right.plot(thousands[validations], log["cso_map"][validations], marker="o", markersize=3, **look)
            for axis, key in ((left, "exact_squared_error"), (right, "exact_cso_map")):
                # One line for each value: networks of one ratio share it.
                for value in np.unique(log[key][np.isfinite(log[key])]) if key in log else ():
                    axis.axhline(value, color=GREY, linestyle=":", linewidth=1.2)
                    axis.annotate(
                        "exact map", (1.0, value), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                        fontsize=8, color=GREY,
                    )  # fmt: skip
        left.set_yscale("log")
        plain_ticks(left.yaxis)
        left.set_ylabel("squared error per cell, counts²")
        right.set_ylim(bottom=0)
        right.set_ylabel("CSO-mAP in percent, validation")
        for axis in (left, right):
            axis.set_xlabel("samples seen, in thousands")
            axis.grid(linewidth=0.4, alpha=0.5)
        figure.legend(loc="outside lower center", ncols=4)
    return figure


def psf_fit(profile: FloatArray, sigma_px: float, sigma_px_std: float | None = None, psf: PSF | None = None) -> Figure:
    """Draw a PSF together with the pixels of the sources on which it was measured, and the residual.

    Args:
        profile: (n, 3) distance of a pixel from its source in columns and rows, px, and its fraction of the
            source's flux, see `csist.frames.psf.measure.PSFEstimate`.
        sigma_px: standard deviation of the Gaussian PSF in px.
        sigma_px_std: standard error of `sigma_px`.
        psf: empirical PSF to draw in place of the Gaussian.

    Raises:
        InputError: if there are no pixels.
    """
    if not len(profile):
        raise InputError("the picture of a PSF needs pixels, got none")
    from csist.physics.psf import GaussianPSF

    name = "Gaussian" if psf is None else "empirical PSF"
    psf = GaussianPSF(sigma_px) if psf is None else psf
    dx, dy, share = np.asarray(profile, dtype=np.float64).T
    model, radius = psf.response(dx, dy), np.hypot(dx, dy)
    order = np.argsort(radius)
    with styled():
        figure = Figure(figsize=(9.0, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(radius, share, ".", color=GREY, markersize=2, label="pixels of the sources")
        left.plot(radius[order], model[order], ".", color=BLUE, markersize=2, label=f"{name} over the pixel")
        left.set_ylabel("fraction of the source's flux")
        left.legend(markerscale=4)
        error = "" if sigma_px_std is None else f" ± {sigma_px_std:.3f}"
        left.set_title(f"sigma {sigma_px:.3f}{error} px")
        right.plot(radius, share - model, ".", color=VERMILION, markersize=2)
        right.axhline(0.0, color=GREY, linewidth=0.8)
        right.set_ylabel(f"pixel minus {name}")
        far = float(radius[model > LEAST_LIGHT].max(initial=1.0))
        for axis in (left, right):
            axis.set_xlim(0.0, far)
            axis.set_xlabel("distance from the source in px")
            axis.grid(linewidth=0.4, alpha=0.5)
    return figure


def limits_by_noise(rows: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """Draw CSO-mAP of methods and the bracket of the physical limit against the read noise.

    Args:
        rows: one dictionary per noise level with noise_std in counts, limit (low, high), and methods, a dictionary from
            name to CSO-mAP in percent.
        title: heading.

    Raises:
        InputError: if there is no row.
    """
    if not rows:
        raise InputError("the picture of limits needs at least one noise level, got none")
    ordered = sorted(rows, key=lambda row: float(row["noise_std"]))
    noise = [float(row["noise_std"]) for row in ordered]
    with styled():
        figure = Figure(figsize=(6.4, 3.7), layout="constrained")
        axis = figure.subplots()
        low, high = zip(*[row["limit"] for row in ordered], strict=True)
        axis.fill_between(
            noise, low, high, color=GREY, alpha=0.35, linewidth=0, label="physical limit, between both sets of chains"
        )
        names = dict.fromkeys(name for row in ordered for name in row["methods"])
        for name, colour in zip(names, cycle(LINE_COLOURS), strict=False):
            values = [row["methods"].get(name, np.nan) for row in ordered]
            axis.plot(noise, values, color=colour, marker="o", markersize=4, label=name)
        axis.set_xlabel("read noise in counts")
        axis.set_ylabel("CSO-mAP in percent")
        axis.grid(linewidth=0.4, alpha=0.5)
        axis.legend()
        if title:
            axis.set_title(title, fontsize=11, fontweight="bold")
    return figure
