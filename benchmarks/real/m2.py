"""Crowded star field with truth from a sharper telescope: the globular cluster M2 from SDSS, with truth from HST.

The image is 100 x 100 px of an SDSS r-band frame with stars much closer than its FWHM of 2.2 px; positions and fluxes
of 6,048 stars come from the Hubble Space Telescope (Sarajedini et al., AJ 133, 1658, 2007). The image and the 5-fold
oversampled PSF are those of Portillo et al. (AJ 154, 132, 2017) and Feder et al. (AJ 159, 163, 2020).

A detection is correct if there is a true star within 0.75 px, with a flux within a factor of 2, that no detection of a
higher score has taken; true stars below the brightness limit count here too. A border of 5 px is left out. The options
of both csist and photutils (DAOStarFinder with IterativePSFPhotometry, the same PSF) are chosen on the left half of the
image; the right half is reported.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from csist.checks import check_packages
from csist.files import reading
from csist.frames import unmix_frame
from csist.io import read_image
from csist.io.store import Progress
from csist.physics.psf import SampledPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets
from real.common import folder_of, match, share, with_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

FOLDERS = ("m2_sdss_hst",)

BIAS, GAIN = 1044.0, 4.62
"""Bias in counts, and gain in electrons per count."""
PSF_CENTRE, OVERSAMPLING = 60, 5
"""Index of the centre of the sampled PSF along both axes."""
FWHM_PX = 2.2

RADIUS_PX, FLUX_FACTOR, BORDER_PX = 0.75, 2.0, 5
FAINTEST, BRIGHT = 250.0, 500.0
"""Smallest flux in counts of scored detections, and of the stars to be found."""
EDGES = (250.0, 500.0, 1000.0, 2000.0, 4000.0, np.inf)
"""Edges in counts of the bins by brightness."""

CSIST_GRID = tuple(
    {"psf_error": error, "false_alarm_rate": rate} for error, rate in product((0.01, 0.02), (2e-4, 2e-3, 1e-2))
)
PHOTUTILS_GRID = tuple(
    {"threshold": threshold, "group_px": group, "fit_px": fit}
    for threshold, group, fit in product((8.0, 16.0), (3.0, 4.0, 5.0), (3, 5))
)
"""Detection thresholds in units of the sky noise."""


@dataclass(frozen=True)
class Field:
    """Image and true stars.

    Args:
        image: (100, 100) counts without the bias.
        psf: point spread function.
        truth: (n, 3) x, y in px and flux in counts.
    """

    image: FloatArray
    psf: SampledPSF
    truth: FloatArray

    @property
    def sky_noise(self) -> float:
        """Photon noise in counts of the darkest pixels, the only ones without a star."""
        return float(np.sqrt(np.quantile(self.image, 0.05) / GAIN))

    def inside(self, x: FloatArray, y: FloatArray, left: bool) -> BoolArray:
        """Return which positions lie in one half, without the border."""
        rows, columns = self.image.shape
        low, high = BORDER_PX - 0.5, BORDER_PX + 0.5
        within = (x >= low) & (x < columns - high) & (y >= low) & (y < rows - high)
        return np.asarray(within & ((x < 0.5 * (columns - 1)) == left))


def load(folder: Path) -> Field:
    """Read the image, its PSF and the registered true stars."""
    with reading(folder / "truth_hst.csv"):
        truth = pd.read_csv(folder / "truth_hst.csv")[["x_r_reg", "y_r_reg", "flux_r_counts"]].to_numpy(np.float64)
    with reading(folder / "psf_r_5x_125.npy"):
        array = np.load(folder / "psf_r_5x_125.npy")
    side = 2 * PSF_CENTRE + 1
    image = read_image(folder / "m2_r_counts_u16.png")[0] - BIAS
    return Field(image, SampledPSF(array[:side, :side], OVERSAMPLING), truth)


def csist_finder(field: Field, psf_error: float, false_alarm_rate: float) -> Targets:
    """Return the detections of `unmix_frame` with a joint fit of the whole frame."""
    sensor = Sensor(psf=field.psf, shape=(field.image.shape[0], field.image.shape[1]), gain=GAIN)
    return unmix_frame(
        field.image, sensor, noise_std=field.sky_noise, detector="crowded", psf_error=psf_error,
        false_alarm_rate=false_alarm_rate,
    ).targets  # fmt: skip


def photutils_finder(field: Field, threshold: float, group_px: float, fit_px: int) -> Targets:
    """Return the detections of photutils: DAOStarFinder and joint fits of groups, repeated three times on the residual.

    There is no selection by shape, because blends are not round, and no minimum separation of stars. Detections are
    ranked by flux over its standard error.
    """
    from photutils.detection import DAOStarFinder
    from photutils.psf import ImagePSF, IterativePSFPhotometry, SourceGrouper

    side = 2 * int(np.ceil(field.psf.reach_px)) + 1
    photometry = IterativePSFPhotometry(
        ImagePSF(field.psf.array, oversampling=field.psf.oversampling),
        (fit_px, fit_px),
        DAOStarFinder(
            threshold * field.sky_noise,
            FWHM_PX,
            min_separation=0.0,
            sharpness_range=(-10.0, 10.0),
            roundness_range=(-10.0, 10.0),
        ),
        grouper=SourceGrouper(group_px),
        aperture_radius=FWHM_PX,
        xy_bounds=1.0,
        maxiters=3,
        sub_shape=(side, side),
    )
    with warnings.catch_warnings():
        # photutils warns about every fit that ends at a bound.
        warnings.simplefilter("ignore")
        table = photometry(
            field.image - np.quantile(field.image, 0.05), error=np.sqrt(np.maximum(field.image, 1.0) / GAIN)
        )
    if table is None:
        return Targets.empty()
    x, y, flux, error = (
        np.asarray(table[name], dtype=np.float64) for name in ("x_fit", "y_fit", "flux_fit", "flux_err")
    )
    good = np.isfinite(x) & np.isfinite(y) & (flux > 0.0)
    score = np.where(np.isfinite(error) & (error > 0.0), flux / np.maximum(error, 1e-300), 0.0)
    return Targets(x=x[good], y=y[good], intensity=flux[good], score=score[good])


@dataclass(frozen=True)
class Judgement:
    """Detections of one half, best score first, and their matched stars.

    Args:
        found: (n, 3) x, y, flux of the detections.
        star: (n,) index of the matched star, -1 for a false alarm.
        truth: (m, 3) all true stars.
        asked: (m,) whether a star is to be found in this half.
    """

    found: FloatArray
    star: NDArray[np.int64]
    truth: FloatArray
    asked: BoolArray

    @property
    def purity(self) -> FloatArray:
        """Fraction (n,) of correct ones among the first detections."""
        return np.cumsum(self.star >= 0) / np.arange(1, len(self.star) + 1)

    @property
    def completeness(self) -> FloatArray:
        """Fraction (n,) of the bright stars of this half found by the first detections."""
        wanted = self.asked & (self.truth[:, 2] >= BRIGHT)
        return np.cumsum((self.star >= 0) & wanted[self.star]) / max(int(wanted.sum()), 1)

    def best(self) -> tuple[float, int]:
        """Return the best harmonic mean of purity and completeness, and its number of detections."""
        purity, completeness = self.purity, self.completeness
        if not len(purity):
            return 0.0, 0
        f1 = 2.0 * purity * completeness / np.maximum(purity + completeness, 1e-9)
        return float(f1.max()), int(f1.argmax()) + 1

    def at_purity(self, least: float) -> int:
        """Return the largest number of first detections with at least this purity."""
        places = np.flatnonzero(self.purity >= least)
        return int(places[-1]) + 1 if places.size else 0


def judge(field: Field, found: Targets, left: bool) -> Judgement:
    """Match the detections of one half with the true stars."""
    kept = found[np.flatnonzero(field.inside(found.x, found.y, left) & (found.intensity >= FAINTEST))]
    kept = kept[np.argsort(-kept.score, kind="stable")]
    places = np.stack([kept.x, kept.y, kept.intensity], axis=1)
    star = match(places, field.truth, kept.score, RADIUS_PX, FLUX_FACTOR)
    return Judgement(places, star, field.truth, field.inside(field.truth[:, 0], field.truth[:, 1], left))


def report(judged: Judgement, number: int, seconds: float) -> dict[str, Any]:
    """Return the figures of the first `number` detections."""
    found, star = judged.found[:number], judged.star[:number]
    right = star >= 0
    seen = np.zeros(len(judged.truth), dtype=bool)
    seen[star[right]] = True
    wanted = judged.asked & (judged.truth[:, 2] >= BRIGHT)
    bins = []
    for low, high in pairwise(EDGES):
        stars = judged.asked & (judged.truth[:, 2] >= low) & (judged.truth[:, 2] < high)
        ours = (found[:, 2] >= low) & (found[:, 2] < high)
        bins.append({"counts": [low, high], "completeness": share(seen[stars]), "purity": share(right[ours])})
    true = judged.truth[star[right]]
    above = true[:, 2] >= FAINTEST
    distance = np.hypot(*(found[right, :2] - true[:, :2]).T)[above]
    ratio = (found[right, 2] / true[:, 2])[above]
    error = with_interval(distance, np.median, resamples=400)
    return {
        "detections": number,
        "purity": share(right),
        "completeness": share(seen[wanted]),
        "by_counts": bins,
        "position_error_px": {"median": error["value"], "interval": error["interval"]},
        "flux_ratio": dict(
            zip(("low", "median", "high"), np.quantile(ratio, [0.16, 0.5, 0.84]).tolist(), strict=True)
        ) if len(ratio) else {},
        "curve": {"purity": judged.purity.tolist(), "completeness": judged.completeness.tolist()},
        "seconds": seconds,
    }  # fmt: skip


def choose(
    field: Field, finder: Callable[..., Targets], grid: Iterable[dict[str, Any]]
) -> tuple[dict[str, Any], Targets, float]:
    """Return the options with the best F1 on the left half, their detections and the seconds they take."""
    tried: list[tuple[float, dict[str, Any], Targets, float]] = []
    for options in grid:
        start = time.process_time()
        found = finder(field, **options)
        seconds = time.process_time() - start
        f1 = judge(field, found, left=True).best()[0]
        tried.append((f1, options, found, seconds))
    _, options, found, seconds = max(tried, key=lambda each: each[0])
    return options, found, seconds


def run(data: Path, progress: Progress) -> dict[str, Any]:
    """Compute the figures of csist and photutils on the right half.

    Args:
        data: folder with the sub-folder m2_sdss_hst.
        progress: called for every step.

    Raises:
        InputError: if the data or photutils are missing.
    """
    check_packages("the part m2", ["photutils"], "astro")
    field = load(folder_of(data, FOLDERS[0]))
    progress("M2: photutils", 0, 2)
    theirs = choose(field, photutils_finder, PHOTUTILS_GRID)
    progress("M2: csist", 1, 2)
    ours = choose(field, csist_finder, CSIST_GRID)
    peer = judge(field, theirs[1], left=False)
    _, number = peer.best()
    purity = float(peer.purity[number - 1]) if number else 1.0
    own = judge(field, ours[1], left=False)
    rows = {
        "csist": report(own, own.at_purity(purity), ours[2]),
        "photutils": report(peer, number, theirs[2]),
    }
    return {
        "radius_px": RADIUS_PX,
        "flux_factor": FLUX_FACTOR,
        "border_px": BORDER_PX,
        "options_chosen_on": "left half",
        "reported_on": "right half",
        "options": {"csist": ours[0], "photutils": theirs[0]},
        "stars": int((own.asked & (own.truth[:, 2] >= BRIGHT)).sum()),
        "best_f1": {"csist": own.best()[0], "photutils": peer.best()[0]},
        "purity": purity,
        "rows": rows,
        "targets": targets_met(rows),
    }


def targets_met(rows: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the target figures of this part and whether they are met."""
    missed = {name: 1.0 - row["completeness"]["value"] for name, row in rows.items()}
    ratio = missed["csist"] / max(missed["photutils"], 1e-9)
    error = {name: row["position_error_px"]["median"] for name, row in rows.items()}
    return [
        {
            "aim": "bright stars missed at photutils' best-F1 purity: at most 0.6 times as many as photutils",
            "value": ratio,
            "met": ratio <= 0.6,
        },
        {
            "aim": "median position error below photutils'",
            "value": error["csist"] / error["photutils"],
            "met": error["csist"] < error["photutils"],
        },
    ]


def draw(result: dict[str, Any]) -> Figure:
    """Draw completeness against purity, and completeness by brightness."""
    from matplotlib.figure import Figure

    from csist.plots.style import LINE_COLOURS, styled

    with styled():
        figure = Figure(figsize=(8.4, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for place, (name, row) in enumerate(result["rows"].items()):
            colour = LINE_COLOURS[place]
            left.plot(row["curve"]["completeness"], row["curve"]["purity"], color=colour, label=name)
            value = [each["completeness"]["value"] for each in row["by_counts"]]
            ends = np.array([each["completeness"]["interval"] for each in row["by_counts"]])
            at = np.arange(len(value)) + 0.1 * place
            right.errorbar(at, value, np.abs(ends.T - np.array(value)), fmt="o-", color=colour, label=name, capsize=2)
        left.axhline(result["purity"], color="#8C8C8C", linewidth=0.8)
        left.set_xlabel(f"completeness, stars above {BRIGHT:g} counts")
        left.set_ylabel("purity")
        left.set_xlim(0.0, 1.02)
        left.set_ylim(0.0, 1.02)
        left.legend(loc="lower left")
        names = [f"{low:g}-{high:g}" if np.isfinite(high) else f"> {low:g}" for low, high in pairwise(EDGES)]
        right.set_xticks(range(len(names)), names)
        right.set_xlabel("flux in counts")
        right.set_ylabel("completeness at the same purity")
        right.set_ylim(0.0, 1.02)
        figure.suptitle("Crowded stars (M2, SDSS image, HST truth)", fontsize=11)
    return figure
