"""Bias of the position against the place of a target in its pixel: csist, a centroid, and a Gaussian that is sampled.

    python benchmarks/bench_pixel_phase.py [--draws 200]

One target per window, at noise 1; its x moves through a pixel, its y is anywhere in it. With the blur of the benchmark
most of the light falls into one pixel, so that estimators that ignore the area of the pixel are drawn to its centre.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy.optimize import least_squares

from common import write_result
from csist import ScenePrior, Sensor, Targets, unmix

PHASES = np.round(np.linspace(-0.45, 0.45, 13), 3)
INTENSITY = 235.0
MIDDLE = 5
BOX_PX = 5
"""Side of the box around the brightest pixel whose centroid is taken."""
SENSOR = Sensor(read_noise=1.0)
Estimator = Callable[[np.ndarray], np.ndarray]


def by_csist(mode: str) -> Estimator:
    """The posterior mean of x of the target nearest to the middle."""

    def estimate(images: np.ndarray) -> np.ndarray:
        found = unmix(images, SENSOR, ScenePrior.csist_100k(), mode=mode, noise_std=1.0)
        return np.array([each.x[np.argmax(each.intensity)] for each in found])

    return estimate


def by_centroid(images: np.ndarray) -> np.ndarray:
    """The centroid of a box around the brightest pixel."""
    half = BOX_PX // 2
    found = []
    for image in images:
        row, column = np.unravel_index(np.argmax(image), image.shape)
        columns = np.arange(column - half, column + half + 1)
        light = image[row - half : row + half + 1, columns].sum(axis=0)
        found.append(float((columns * light).sum() / light.sum()))
    return np.array(found)


def by_sampled_gaussian(images: np.ndarray) -> np.ndarray:
    """Least-squares fit of a Gaussian taken at the centres of the pixels instead of integrated over them."""
    rows, columns = np.indices(images.shape[1:])

    def residual(values: np.ndarray, image: np.ndarray) -> np.ndarray:
        x, y, height, sigma = values
        return (height * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2.0 * sigma**2)) - image).ravel()

    found = []
    for image in images:
        row, column = np.unravel_index(np.argmax(image), image.shape)
        found.append(least_squares(residual, (column, row, image.max(), 0.6), args=(image,)).x[0])
    return np.array(found)


ESTIMATORS: dict[str, Estimator] = {
    "csist, accurate": by_csist("accurate"),
    "csist, fast": by_csist("fast"),
    f"centroid of {BOX_PX} x {BOX_PX} px": by_centroid,
    "Gaussian at pixel centres": by_sampled_gaussian,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200, help="windows per phase")
    draws = parser.parse_args().draws
    rng = np.random.default_rng(11)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in ESTIMATORS}
    for phase in PHASES:
        y = MIDDLE + rng.uniform(-0.5, 0.5, draws)
        images = np.stack([SENSOR.observe(Targets(x=[MIDDLE + phase], y=[at], intensity=[INTENSITY]), rng) for at in y])
        for name, estimate in ESTIMATORS.items():
            error = estimate(images) - (MIDDLE + phase)
            rows[name].append({
                "phase_px": float(phase), "bias_px": float(error.mean()),
                "standard_error_px": float(error.std(ddof=1) / np.sqrt(draws)), "scatter_px": float(error.std(ddof=1)),
            })  # fmt: skip
    write_result("pixel_phase", {"draws": draws, "sensor": SENSOR.to_card(), "intensity": INTENSITY, "rows": rows})


if __name__ == "__main__":
    main()
