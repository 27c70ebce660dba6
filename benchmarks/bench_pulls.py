"""Are the error bars true? Pulls of single stars in whole frames, for every kind of noise that csist models.

    python benchmarks/bench_pulls.py [--stars 576] [--only pairs]

A pull is (found - true) / stated error. Its root mean square is 1 where the errors are true; the targets are 0.9 to 1.1
in the mode accurate and 0.85 to 1.15 in fast. Its mean is 0 where nothing is biased. The stars stand on a jittered
grid, so that each is alone, with fluxes log-uniform between some 35 and a few hundred standard errors; the faint ones
have 10 to 20, enough that detection does not choose among them. Pairs are half as far apart as can be told apart to
1.6 times as far; those that are found as two count. Their posterior is curved, so that the shares within one and within
1.96 standard errors (0.68 and 0.95) say more than the root mean square, which a few pairs decide.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from common import read_result, write_result
from csist import GaussianPSF, Sensor, Targets, unmix_frame
from csist.physics.psf import RAYLEIGH_PER_SIGMA

SIGMA_PX = 1.3
PITCH_PX = 22
MARGIN_PX = 14
JITTER_PX = 3.0
MATCH_PX = 1.0
NOISE = 3.0
SKY, GAIN = 400.0, 2.0

APART_RAYLEIGH = (0.4, 1.6)
"""Separation of the pairs in Rayleigh units."""

Scene = tuple[np.ndarray, dict[str, Any]]
"""A frame and the options that it is unmixed with."""


def make_stars(rng: np.random.Generator, side: int, flux: tuple[float, float]) -> Targets:
    """Stars on a jittered grid of `side` by `side`."""
    grid = MARGIN_PX + PITCH_PX * np.arange(side, dtype=np.float64)
    x, y = (each.ravel() + rng.uniform(-JITTER_PX, JITTER_PX, side * side) for each in np.meshgrid(grid, grid))
    return Targets(x=x, y=y, intensity=np.exp(rng.uniform(*np.log(flux), side * side)))


def make_pairs(rng: np.random.Generator, side: int, flux: tuple[float, float]) -> Targets:
    """Pairs in the places of the stars, one behind the other; the second has half to all of the first one's flux."""
    middle = make_stars(rng, side, flux)
    number = len(middle)
    apart = rng.uniform(*APART_RAYLEIGH, number) * RAYLEIGH_PER_SIGMA * SIGMA_PX
    angle = rng.uniform(0.0, 2.0 * np.pi, number)
    step = 0.5 * apart * np.array([np.cos(angle), np.sin(angle)])
    fluxes = middle.intensity * np.array([np.ones(number), rng.uniform(0.5, 1.0, number)])
    x, y = (np.stack([at - by, at + by], axis=1) for at, by in zip((middle.x, middle.y), step, strict=True))
    return Targets(x=x.ravel(), y=y.ravel(), intensity=fluxes.T.ravel())


def in_white_noise(stars: Targets, shape: tuple[int, int], rng: np.random.Generator) -> Scene:
    """Noise that is the same everywhere, and measured."""
    sensor = Sensor(GaussianPSF(SIGMA_PX), shape=shape, background=200.0, read_noise=NOISE, quantised=False)
    return sensor.observe(stars, rng), {"psf": SIGMA_PX}


def in_photon_noise(stars: Targets, shape: tuple[int, int], rng: np.random.Generator) -> Scene:
    """Photons of sky and stars and read noise, from a sensor card."""
    card = Sensor(GaussianPSF(SIGMA_PX), shape=shape, background=SKY, read_noise=NOISE, gain=GAIN)
    return card.observe(stars, rng), {"sensor": card}


def with_error_map(stars: Targets, shape: tuple[int, int], rng: np.random.Generator) -> Scene:
    """Noise that rises fourfold from one side to the other, given as a map."""
    error = np.broadcast_to(np.linspace(2.0, 8.0, shape[1]), shape) * rng.uniform(0.7, 1.4, shape)
    sensor = Sensor(GaussianPSF(SIGMA_PX), shape=shape, background=200.0, quantised=False)
    return sensor.render(stars) + rng.normal(0.0, 1.0, shape) * error, {"psf": SIGMA_PX, "error": error}


def with_mask(stars: Targets, shape: tuple[int, int], rng: np.random.Generator) -> Scene:
    """White noise with one pixel in twenty masked, whatever it shows."""
    image, options = in_white_noise(stars, shape, rng)
    masked = rng.uniform(size=shape) < 0.05
    image[masked] += rng.uniform(-500.0, 5000.0, int(masked.sum()))
    return np.where(masked, np.nan, image), options


CONDITIONS: dict[str, tuple[Callable[..., Scene], tuple[float, float]]] = {
    "white noise": (in_white_noise, (500.0, 8e3)),
    "faint stars": (in_white_noise, (142.0, 284.0)),
    "photon noise": (in_photon_noise, (3e3, 1e5)),
    "error map": (with_error_map, (1000.0, 16e3)),
    "mask": (with_mask, (500.0, 8e3)),
    "pairs": (in_white_noise, (400.0, 8e3)),
}


def pulls_of(found: Targets, stars: Targets) -> dict[str, np.ndarray]:
    """Pulls of the stars that have exactly one detection within `MATCH_PX`."""
    distance = np.hypot(found.x[:, None] - stars.x, found.y[:, None] - stars.y)
    near = distance <= MATCH_PX
    own = np.flatnonzero((near.sum(axis=0) == 1) & np.isfinite(found.x_std[near.argmax(axis=0)]))
    at = near[:, own].argmax(axis=0)
    return {
        name: (getattr(found, name)[at] - getattr(stars, name)[own]) / getattr(found, f"{name}_std")[at]
        for name in ("x", "y", "intensity")
    }


def pulls_of_pairs(found: Targets, pairs: Targets) -> dict[str, np.ndarray]:
    """Pulls of the pairs that have exactly two detections nearer than half the pitch, in the closer of both orders."""
    result: dict[str, list[float]] = {"x": [], "y": [], "intensity": []}
    for first in range(0, len(pairs), 2):
        pair = pairs[first : first + 2]
        near = np.hypot(found.x - pair.x.mean(), found.y - pair.y.mean()) < 0.5 * PITCH_PX
        own = found[near]
        if len(own) != 2 or not np.isfinite(own.x_std).all():
            continue
        apart = np.hypot(own.x[:, None] - pair.x, own.y[:, None] - pair.y) ** 2
        pair = pair if np.trace(apart) <= np.trace(apart[:, ::-1]) else pair[::-1]
        for name, values in result.items():
            values += ((getattr(own, name) - getattr(pair, name)) / getattr(own, f"{name}_std")).tolist()
    return {name: np.array(values) for name, values in result.items()}


def measure(name: str, mode: str, side: int, seed: int) -> dict[str, Any]:
    """Root mean square and mean of the pulls under one condition."""
    make, flux = CONDITIONS[name]
    rng = np.random.default_rng(seed)
    paired = name == "pairs"
    stars = (make_pairs if paired else make_stars)(rng, side, flux)
    length = 2 * MARGIN_PX + PITCH_PX * (side - 1) + 1
    image, options = make(stars, (length, length), rng)
    started = time.perf_counter()
    found = unmix_frame(image, mode=mode, detector="matched", **options).targets
    pulls = (pulls_of_pairs if paired else pulls_of)(found, stars)
    return {
        "condition": name,
        "mode": mode,
        "stars": len(stars),
        "single": len(pulls["x"]),
        "rms": {key: round(float(np.sqrt(np.mean(value**2))), 4) for key, value in pulls.items()},
        "within_68": {key: round(float(np.mean(np.abs(value) <= 1.0)), 4) for key, value in pulls.items()},
        "within_95": {key: round(float(np.mean(np.abs(value) <= 1.96)), 4) for key, value in pulls.items()},
        "mean": {key: round(float(np.mean(value)), 4) for key, value in pulls.items()},
        "rms_std": round(1.0 / np.sqrt(2.0 * max(len(pulls["x"]), 1)), 4),
        "seconds": round(time.perf_counter() - started, 2),
    }


def main() -> None:
    """Measure all conditions in both modes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stars", type=int, default=576, help="of each condition, rounded up to a square")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", help="measure only this condition, and leave the other rows of the result as they are"
    )
    given = parser.parse_args()
    if given.only is not None and given.only not in CONDITIONS:
        parser.error(f"--only must be one of {', '.join(CONDITIONS)}, got {given.only!r}")
    side = int(np.ceil(given.stars**0.5))
    rows = (
        [] if given.only is None else [row for row in read_result("pulls")["pulls"] if row["condition"] != given.only]
    )
    for number, name in enumerate(CONDITIONS):
        if given.only not in (None, name):
            continue
        for mode in ("accurate", "fast"):
            rows.append(measure(name, mode, side, given.seed + number))
            print(rows[-1], flush=True)
    write_result("pulls", {"pulls": rows, "seed": given.seed})


if __name__ == "__main__":
    main()
