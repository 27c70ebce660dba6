"""Positions and fluxes of catalogued stars in an undersampled infrared frame from space: Spitzer IRAC at 4.5 um.

The frame is part of the mosaic of the GLIMPSE survey, and the PSF is measured on it. The truth is the 224 stars of at
least 50 mJy in the catalogue of the survey (Churchwell et al., PASP 121, 213, 2009; Benjamin et al., PASP 115, 953,
2003; NASA/JPL-Caltech), whose positions are registered to the frame by a constant offset. The catalogue is far from
complete, so that it tests the number of stars found and their errors, but not false alarms.

Fluxes are compared with the catalogue; an aperture of 4 px without aperture correction gives 0.95 of its flux.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from csist.files import reading
from csist.frames import unmix_frame
from csist.io import read_image
from csist.io.store import Progress
from csist.metrics.errors import MAD_TO_STD
from real.common import folder_of, match, share, with_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

FOLDERS = ("spitzer_glimpse",)

MILLIJANSKY_PER_COUNT = 0.03385
"""Flux of 1 MJy/sr in one pixel."""
RADIUS_PX = 0.5
APERTURE_RATIO = 0.95
PSFS = ("auto", "empirical")
"""PSF options, both measured on the frame; the target figures refer to the last one."""
OPTIONS: dict[str, Any] = {"false_alarm_rate": 1e-6, "mode": "fast"}


def scatter(values: FloatArray) -> float:
    """Robust standard deviation: 1.48 times the median distance from the median."""
    return float(MAD_TO_STD * np.median(np.abs(values - np.median(values)))) if values.size else float("nan")


def run(data: Path, progress: Progress) -> dict[str, Any]:
    """Compute the figures of the catalogued stars for each PSF option.

    Args:
        data: folder with the sub-folder spitzer_glimpse.
        progress: called for every step.

    Raises:
        InputError: if the data are missing or cannot be read.
    """
    folder = folder_of(data, FOLDERS[0])
    with reading(folder / "truth_glimpse.csv"):
        truth = pd.read_csv(folder / "truth_glimpse.csv")[["x_reg", "y_reg", "flux4.5_mJy"]].to_numpy(np.float64)
    image = read_image(folder / "spitzer_example_image.fits")[0]
    rows = {}
    for done, psf in enumerate(PSFS):
        progress("Spitzer", done, len(PSFS))
        start = time.process_time()
        found = unmix_frame(image, psf=psf, **OPTIONS).targets
        seconds = time.process_time() - start
        rows[psf] = {"seconds": seconds, **judge(np.stack([found.x, found.y, found.intensity], 1), truth)}
    return {
        "stars": len(truth),
        "radius_px": RADIUS_PX,
        "options": OPTIONS,
        "rows": rows,
        "targets": targets_met(rows[PSFS[-1]]),
    }


def judge(found: FloatArray, truth: FloatArray) -> dict[str, Any]:
    """Return the fraction of stars found, the scatter of their positions and the ratio of their fluxes.

    Args:
        found: (n, 3) x, y in px and flux in counts.
        truth: (m, 3) x, y in px and flux in mJy.
    """
    star = match(found, truth, found[:, 2], RADIUS_PX)
    right = star >= 0
    own, true = found[right], truth[star[right]]
    offset = own[:, :2] - true[:, :2]
    ratio = own[:, 2] * MILLIJANSKY_PER_COUNT / true[:, 2]
    seen = np.zeros(len(truth), dtype=bool)
    seen[star[right]] = True
    return {
        "detections": len(found),
        "found": share(seen),
        "offset_px": [float(np.median(each)) if each.size else float("nan") for each in offset.T],
        "scatter_px": {axis: with_interval(offset[:, k], scatter) for k, axis in enumerate(("x", "y"))},
        "flux_ratio": with_interval(ratio, np.median),
        "flux_ratio_spread": np.quantile(ratio, [0.16, 0.84]).tolist() if ratio.size else [float("nan")] * 2,
        "matches": {"dx": offset[:, 0].tolist(), "dy": offset[:, 1].tolist(), "flux_ratio": ratio.tolist(),
                    "flux_mJy": true[:, 2].tolist()},
    }  # fmt: skip


def targets_met(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the target figures of this part and whether they are met."""
    found, ratio = row["found"]["value"], row["flux_ratio"]["value"]
    worst = max(each["value"] for each in row["scatter_px"].values())
    return [
        {"aim": "at least 92 % of the stars found within 0.5 px", "value": found, "met": found >= 0.92},
        {"aim": "robust scatter of a position at most 0.08 px per axis", "value": worst, "met": worst <= 0.08},
        {
            "aim": f"median flux over the catalogue's within 5 % of the aperture's {APERTURE_RATIO}",
            "value": ratio,
            "met": abs(ratio / APERTURE_RATIO - 1.0) <= 0.05,
        },
    ]


def draw(result: dict[str, Any]) -> Figure:
    """Draw the position errors of the stars, and flux ratios against brightness, for the empirical PSF."""
    from matplotlib.figure import Figure

    from csist.plots.style import BLUE, GREY, sparse_ticks, styled

    row = result["rows"][PSFS[-1]]
    matches = row["matches"]
    with styled():
        figure = Figure(figsize=(8.0, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(matches["dx"], matches["dy"], ".", color=BLUE, markersize=4, alpha=0.7)
        left.set_aspect("equal")
        left.set_xlim(-RADIUS_PX, RADIUS_PX)
        left.set_ylim(-RADIUS_PX, RADIUS_PX)
        left.axhline(0.0, color=GREY, linewidth=0.7)
        left.axvline(0.0, color=GREY, linewidth=0.7)
        left.set_xlabel("x - catalogue in px")
        left.set_ylabel("y - catalogue in px")
        right.plot(matches["flux_mJy"], matches["flux_ratio"], ".", color=BLUE, markersize=4, alpha=0.7)
        right.axhline(APERTURE_RATIO, color=GREY, linewidth=0.8)
        right.set_xscale("log")
        sparse_ticks(right.xaxis)
        right.set_xlabel("catalogued flux in mJy")
        right.set_ylabel("flux over the catalogue's (line: aperture)")
        right.set_ylim(0.5, 1.5)
        found = row["found"]["value"]
        figure.suptitle(f"Catalogued stars at 4.5 um (Spitzer GLIMPSE): {100 * found:.0f} % found", fontsize=11)
    return figure
