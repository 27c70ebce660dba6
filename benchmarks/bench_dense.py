"""Dense fields of point sources: a simulated localisation stack and a star field, against photutils.

    python benchmarks/bench_dense.py [--frames 100] [--stars 2000] [--ceiling]

csist gets the frames and nothing else. photutils' IterativePSFPhotometry gets the true width of the PSF and the true
noise; its threshold and grouping distance are chosen on other frames. A detection is right within `RADIUS_PX` of a
source, one to one; the Jaccard index is the number of right ones over that of right, false and missed ones. The
ceiling is the index of a detector that knows the number of sources, the background and the PSF, and whose positions
reach the Cramer-Rao bound of all sources together. Writes docs/results/dense.json; with --ceiling only the ceilings
in it.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from common import RESULTS, write_result
from csist.frames import unmix_frame
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets
from peers import FWHM_PER_SIGMA
from real.common import match

FloatArray = NDArray[np.float64]
Finder = Callable[[FloatArray], Targets]

RADIUS_PX = 0.25
AIM = 1.4
"""Least ratio of the Jaccard indices."""
CHOICE_FRAMES = 6
CEILING_STARS = 500
"""Stars of the star field, of the same density, on which the ceiling is computed."""
CEILING_DRAWS = 400
"""Draws of a source's error of position."""
REACH_PX = 7
"""Distance in px along rows and columns up to which a source has light there."""


@dataclass(frozen=True)
class Kind:
    """A kind of field.

    Args:
        side_px: of a frame.
        sources: in a frame.
        sigma_px: of the PSF.
        background: photons in a pixel.
        photons: least and largest number of photons of a source.
        slope: of the power law of the number of sources above a flux.
    """

    side_px: int
    sources: int
    sigma_px: float
    background: float
    photons: tuple[float, float]
    slope: float

    def frame(self, seed: int) -> tuple[FloatArray, Targets]:
        """Photons (H, W) of a frame, and its sources."""
        rng = np.random.default_rng(seed)
        low, high = (bound**-self.slope for bound in self.photons)
        truth = Targets(
            x=rng.uniform(0.0, self.side_px - 1.0, self.sources),
            y=rng.uniform(0.0, self.side_px - 1.0, self.sources),
            intensity=rng.uniform(high, low, self.sources) ** (-1.0 / self.slope),
        )
        sensor = Sensor(GaussianPSF(self.sigma_px), shape=(self.side_px, self.side_px), quantised=False)
        return rng.poisson(sensor.render(truth) + self.background).astype(np.float64), truth


def kinds(stars: int) -> dict[str, Kind]:
    """The fields that are measured."""
    return {
        "localisation stack": Kind(64, 16, 1.3, 20.0, (500.0, 5000.0), 1.0),
        "star field": Kind(round((stars / 2000.0) ** 0.5 * 320), stars, 1.3, 50.0, (500.0, 50000.0), 1.0),
    }


def photutils_finder(kind: Kind, threshold: float, group_fwhm: float) -> Finder:
    """The finder of photutils with a threshold in standard deviations and a grouping distance in widths."""
    from photutils.detection import DAOStarFinder
    from photutils.psf import CircularGaussianPRF, IterativePSFPhotometry, SourceGrouper

    fwhm, noise = FWHM_PER_SIGMA * kind.sigma_px, kind.background**0.5

    def find(frame: FloatArray) -> Targets:
        photometry = IterativePSFPhotometry(
            CircularGaussianPRF(fwhm=fwhm),
            (5, 5),
            DAOStarFinder(threshold * noise, fwhm),
            grouper=SourceGrouper(group_fwhm * fwhm),
            aperture_radius=fwhm,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of every fit that ends at a bound
            table = photometry(frame - kind.background, error=np.sqrt(np.maximum(frame, 1.0)))
        if table is None:
            return Targets.empty()
        x, y, flux = (np.asarray(table[name], dtype=np.float64) for name in ("x_fit", "y_fit", "flux_fit"))
        good = np.isfinite(x) & np.isfinite(y) & (flux > 0.0)
        return Targets(x=x[good], y=y[good], intensity=flux[good])

    return find


def csist_finder(frame: FloatArray) -> Targets:
    """Targets of csist by default options."""
    return unmix_frame(frame, workers=1).targets


def measure(finder: Finder, kind: Kind, seeds: range) -> dict[str, Any]:
    """Jaccard index and position error over some frames."""
    right, found_all, asked, errors, seconds = 0, 0, 0, [], 0.0
    for seed in seeds:
        frame, truth = kind.frame(seed)
        started = time.process_time()
        found = finder(frame)
        seconds += time.process_time() - started
        places = np.stack([found.x, found.y], axis=1)
        asked_places = np.stack([truth.x, truth.y], axis=1)
        taken = match(places, asked_places, found.intensity, RADIUS_PX)
        hit = taken >= 0
        right, found_all, asked = right + int(hit.sum()), found_all + len(found), asked + len(truth)
        errors.append(np.hypot(*(places[hit] - asked_places[taken[hit]]).T))
    return {
        "jaccard": right / (found_all + asked - right),
        "recall": right / asked,
        "precision": right / max(found_all, 1),
        "median_error_px": float(np.median(np.concatenate(errors))) if right else float("nan"),
        "cpu_seconds_a_frame": seconds / len(seeds),
    }


def ceiling(kind: Kind, seeds: range) -> dict[str, float]:
    """Jaccard index of a perfect detector, see the head of this file, and its largest ratio to photutils' index."""
    within = np.concatenate([share_within(kind, seed) for seed in seeds])
    recall = float(within.mean())
    return {"recall": recall, "jaccard": recall / (2.0 - recall)}


def share_within(kind: Kind, seed: int) -> FloatArray:
    """Probability (n,) that the position of each source of a frame is right, by the joint Fisher information."""
    _, truth = kind.frame(seed)
    psf, count, side = GaussianPSF(kind.sigma_px), len(truth), kind.side_px
    around = np.arange(-REACH_PX, REACH_PX + 1)
    rows = (np.rint(truth.y).astype(int)[:, None, None] + around[:, None]) + 0 * around
    columns = (np.rint(truth.x).astype(int)[:, None, None] + around) + 0 * around[:, None]
    dx, dy = columns - truth.x[:, None, None], rows - truth.y[:, None, None]
    light, (along_x, along_y) = psf.response(dx, dy), psf.gradient(dx, dy)
    flux = truth.intensity[:, None, None]
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    pixel = (rows * side + columns)[inside]
    source = np.broadcast_to(np.arange(count)[:, None, None], rows.shape)[inside]
    mean = kind.background + np.bincount(pixel, (flux * light)[inside], side * side)
    slopes = sparse.hstack(
        [
            sparse.csr_matrix((values[inside] / np.sqrt(mean[pixel]), (pixel, source)), shape=(side * side, count))
            for values in (flux * along_x, flux * along_y, light)
        ]
    )
    covariance = np.linalg.inv((slopes.T @ slopes).toarray())
    k = np.arange(count)
    own = np.array(
        [[covariance[k, k], covariance[k, count + k]], [covariance[count + k, k], covariance[count + k, count + k]]]
    )
    draws = np.random.default_rng(seed).normal(size=(CEILING_DRAWS, 2))
    errors = np.einsum("kij,dj->kdi", np.linalg.cholesky(np.moveaxis(own, 2, 0)), draws)
    return np.asarray((np.hypot(errors[..., 0], errors[..., 1]) <= RADIUS_PX).mean(axis=1))


def with_ceiling(fields: dict[str, Any], name: str, frames: int) -> dict[str, Any]:
    """The row of a field with its ceiling and whether the aimed ratio is below it."""
    kind = kinds(CEILING_STARS)[name]
    limit = ceiling(kind, range(frames if name == "localisation stack" else 4))
    row: dict[str, Any] = fields[name]
    largest = limit["jaccard"] / row["photutils"]["jaccard"]
    return row | {"ceiling": limit | {"ratio": largest}, "can_be_met": largest >= AIM}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100, help="frames of the stack")
    parser.add_argument("--stars", type=int, default=2000, help="stars of the star field")
    parser.add_argument("--ceiling", action="store_true", help="only compute the ceilings of the last results")
    options = parser.parse_args()
    if options.ceiling:
        last = json.loads((RESULTS / "dense.json").read_text(encoding="utf-8"))
        fields = {name: with_ceiling(last["fields"], name, options.frames) for name in last["fields"]}
        write_result("dense", {"radius_px": last["radius_px"], "fields": fields})
        return
    grid = [{"threshold": t, "group_fwhm": g} for t, g in product((3.0, 5.0), (1.0, 2.0))]
    result: dict[str, Any] = {"radius_px": RADIUS_PX, "fields": {}}
    for name, kind in kinds(options.stars).items():
        is_stack = name == "localisation stack"
        small = kind if is_stack else kinds(max(options.stars // 10, 1))[name]
        choice = range(1000, 1000 + (CHOICE_FRAMES if is_stack else 1))
        best = max(grid, key=lambda each: measure(photutils_finder(small, **each), small, choice)["jaccard"])
        seeds = range(options.frames if is_stack else 1)
        rows = {
            "csist": measure(csist_finder, kind, seeds),
            "photutils": measure(photutils_finder(kind, **best), kind, seeds) | {"options": best},
        }
        ratio = rows["csist"]["jaccard"] / max(rows["photutils"]["jaccard"], 1e-9)
        result["fields"][name] = rows | {"ratio": ratio, "met": ratio >= AIM, "frames": len(seeds)}
        result["fields"][name] = with_ceiling(result["fields"], name, options.frames)
    write_result("dense", result)


if __name__ == "__main__":
    main()
