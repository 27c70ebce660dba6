"""Accuracy under the flat prior, which is not specific to the benchmark, with its own limit and the Cramer-Rao bound.

Scenes are newly sampled; 1 R = 1.9 sigma. Errors of isolated pairs with the correct count are compared with the
Cramer-Rao bound. Groups of the benchmark are scored, and compared with the limit of a method that knows their count
but, like the flat prior, neither their pixel nor their range of intensities.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from common import write_result
from csist import metrics
from csist.methods.continuous import Continuous
from csist.methods.continuous.limit import posterior_limit
from csist.physics.bounds import cramer_rao_bound
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, sample_scenes
from csist.targets import Targets

RAYLEIGH_UNIT = 1.9
"""Separation of 1 R in units of sigma, by the convention of the benchmark's paper."""
SEPARATIONS = (0.75, 1.0, 1.5, 2.0)
NOISES = (0.0, 1.0, 2.0)
SEED = 20_261


def pairs(separation: float, sensor: Sensor, number: int) -> list[Targets]:
    """Sample pairs of 220 to 250 counts with random orientation and centres anywhere in the middle pixel."""
    rng = np.random.default_rng([SEED, round(100 * separation)])
    half = 0.5 * separation * RAYLEIGH_UNIT * 0.5
    scenes = []
    for _ in range(number):
        angle, centre = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(4.5, 5.5, 2)
        offset = half * np.array([-1.0, 1.0])
        scenes.append(
            Targets(
                x=centre[0] + offset * np.cos(angle),
                y=centre[1] + offset * np.sin(angle),
                intensity=rng.uniform(220.0, 250.0, 2),
            )
        )
    return scenes


def observe(scenes: list[Targets], sensor: Sensor) -> Any:
    """Simulate measured images (N, H, W)."""
    rng = np.random.default_rng(SEED)
    return np.stack([sensor.observe(scene, rng) for scene in scenes])


def pair_row(separation: float, number: int) -> dict[str, Any]:
    """Return errors of pairs relative to their bound, as RMS over both axes and all pairs with the correct count."""
    sensor = Sensor(read_noise=1.0)
    scenes = pairs(separation, sensor, number)
    found = Continuous(sensor=sensor, noise_std=1.0).predict(observe(scenes, sensor))
    right = [n for n in range(number) if len(found[n]) == 2]
    errors = metrics.match_errors([found[n] for n in right], [scenes[n] for n in right])
    bounds = [cramer_rao_bound(scenes[n], sensor) for n in right]
    x, y = (
        np.array([getattr(bounds[n], axis)[k] for n, k in zip(errors.image, errors.truth, strict=True)])
        for axis in ("x", "y")
    )
    return {
        "separation_r": separation,
        "pairs": number,
        "count_accuracy": len(right) / number,
        "rms_error_px": float(np.sqrt(np.mean(errors.dx**2 + errors.dy**2))),
        "rms_bound_px": float(np.sqrt(np.mean(x**2 + y**2))),
        "error_over_bound": float(np.sqrt(np.mean(errors.dx**2 + errors.dy**2) / np.mean(x**2 + y**2))),
    }


def group_row(noise: float, number: int, limit_number: int, steps: int) -> dict[str, Any]:
    """Return the figures of benchmark groups under the flat prior."""
    sensor, flat = Sensor(read_noise=noise), ScenePrior.flat()
    scenes = sample_scenes(ScenePrior.csist_100k(), sensor, number, SEED)
    images = observe(scenes, sensor)
    found = Continuous(sensor=sensor, prior=flat, noise_std=noise).predict(images)
    chains = posterior_limit(images[:limit_number], scenes[:limit_number], sensor, flat, steps=steps)
    score = metrics.bootstrap_interval(found, scenes, 0)
    limits = [metrics.bootstrap_interval(each, scenes[:limit_number], 0) for each in chains]
    return {
        "read_noise": noise,
        "images": number,
        "CSO-mAP": list(score),
        "count_accuracy": metrics.count_accuracy(found, scenes),
        "limit_images": limit_number,
        "limit_from_truth": list(limits[0]),
        "limit_from_modes": list(limits[1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=1000, help="images per row")
    parser.add_argument("--limit-number", type=int, default=200, help="images for the limit")
    parser.add_argument("--limit-steps", type=int, default=500_000)
    arguments = parser.parse_args()
    write_result(
        "flat_prior",
        {
            "seed": SEED,
            "pairs": [pair_row(separation, arguments.number) for separation in SEPARATIONS],
            "groups": [
                group_row(noise, arguments.number, arguments.limit_number, arguments.limit_steps) for noise in NOISES
            ],
        },
    )


if __name__ == "__main__":
    main()
