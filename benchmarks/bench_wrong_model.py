"""Robustness of `continuous` to a wrong model, and its accuracy on groups denser than those of the benchmark.

    python benchmarks/bench_wrong_model.py [--number 1000] [--dense-number 200]

Benchmark scenes are newly sampled, with a read noise of one count. The PSF is wider or narrower than the method
assumes, or there is a background that is unmodelled, known or fitted. `csist.calibrate` then gets the first 500 windows
and the same wrong assumption, and the method runs again with the calibrated values. Dense groups are 6 to 10 targets in
2 x 2 px. No option was chosen on these scenes.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import csist
from common import write_result
from csist import metrics
from csist.methods.continuous import Continuous
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, draw_separated, sample_scenes
from csist.targets import Flag, Targets

SEED = 20_262
NOISE = 1.0
SIGMA_PX = 0.5
SIGMA_ERRORS = (-0.1, -0.05, 0.0, 0.05, 0.1)
BACKGROUND = 20.0
CALIBRATED_FROM = 500
DENSE_COUNTS, DENSE_SIDE_PX = (6, 7, 8, 9, 10), 2.0

Images = Any


def observe(scenes: list[Targets], sensor: Sensor) -> Images:
    """Simulate measured images (N, H, W)."""
    rng = np.random.default_rng(SEED)
    return np.stack([sensor.observe(scene, rng) for scene in scenes])


def figures(found: list[Targets], truths: list[Targets]) -> dict[str, Any]:
    """Return accuracy, mean score, calibration and the fraction of images flagged as a poor fit."""
    scores = np.concatenate([targets.score for targets in found])
    poor = [bool((targets.flags & int(Flag.POOR_FIT)).any()) for targets in found]
    return {
        "CSO-mAP": list(metrics.bootstrap_interval(found, truths, 0)),
        "count_accuracy": metrics.count_accuracy(found, truths),
        "mean_score": float(scores.mean()) if scores.size else 0.0,
        "score_error": metrics.expected_calibration_error(found, truths),
        "flagged_poor_fit": float(np.mean(poor)),
    }


def row(
    believed: Sensor, prior: ScenePrior, images: Images, truths: list[Targets], calibrated: bool = False, **options: Any
) -> dict[str, Any]:
    """Return the figures with a possibly wrong sensor, and those after self-calibration."""
    found = Continuous(sensor=believed, prior=prior, noise_std=NOISE, **options).predict(images)
    result: dict[str, Any] = {"images": len(images), "as_believed": figures(found, truths)}
    if calibrated:
        fitted = csist.calibrate(images[:CALIBRATED_FROM], believed, prior, noise_std=NOISE)
        found = Continuous(sensor=fitted.sensor, prior=prior, noise_std=NOISE).predict(images)
        result["calibration"] = {
            "windows": min(CALIBRATED_FROM, len(images)),
            "windows_of_one_target": fitted.images_used,
            "sigma_px": fitted.sigma_px,
            "sigma_px_std": fitted.sigma_px_std,
            "background": fitted.background,
        }
        result["calibrated"] = figures(found, truths)
    return result


def dense_scenes(count: int, number: int) -> list[Targets]:
    """Sample groups of `count` targets with the benchmark's intensities and separation in 2 x 2 px inside a window."""
    rng = np.random.default_rng([SEED, count])
    positions = np.empty((number, count, 2))
    separation = ScenePrior.csist_100k().min_separation_px
    if draw_separated(positions, np.full(2, DENSE_SIDE_PX), separation, rng) < 0:
        raise RuntimeError(f"{count} targets do not fit into {DENSE_SIDE_PX} px")
    positions += rng.uniform(2.5, 8.5 - DENSE_SIDE_PX, (number, 1, 2))
    flux = rng.uniform(220.0, 250.0, (number, count))
    return [Targets(x=p[:, 0], y=p[:, 1], intensity=f) for p, f in zip(positions, flux, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=1000, help="images of a row")
    parser.add_argument("--dense-number", type=int, default=200, help="images per row of dense groups")
    arguments = parser.parse_args()
    prior, believed = ScenePrior.csist_100k(), Sensor(GaussianPSF(SIGMA_PX), read_noise=NOISE)
    truths = sample_scenes(prior, believed, arguments.number, SEED)
    sigma = {}
    for error in SIGMA_ERRORS:
        # The assumed width is wrong by this factor; the true one is that of the benchmark.
        belief = Sensor(GaussianPSF(SIGMA_PX * (1.0 + error)), read_noise=NOISE)
        images = observe(truths, believed)
        sigma[f"{error:+.0%}"] = {
            "true_sigma_px": SIGMA_PX,
            **row(belief, prior, images, truths, calibrated=True),
        }
    lit = Sensor(GaussianPSF(SIGMA_PX), read_noise=NOISE, background=BACKGROUND)
    images = observe(truths, lit)
    flat = ScenePrior(count_range=(1, 5), intensity_range=prior.intensity_range, intensity_law="uniform")
    background = {
        "not modelled": row(believed, prior, images, truths, calibrated=True),
        "known": row(lit, prior, images, truths),
        "not modelled, targets anywhere": row(believed, flat, images, truths),
        "fitted in each window, targets anywhere": row(believed, flat, images, truths, background="constant"),
        "known, targets anywhere": row(lit, flat, images, truths),
    }
    known = ScenePrior(
        count_range=(1, 10),
        intensity_range=prior.intensity_range,
        intensity_law="uniform",
        min_separation_px=prior.min_separation_px,
    )
    dense = {}
    for count in DENSE_COUNTS:
        scenes = dense_scenes(count, arguments.dense_number)
        images = observe(scenes, believed)
        dense[str(count)] = {
            "intensities known": row(believed, known, images, scenes)["as_believed"],
            "flat prior": row(believed, ScenePrior.flat(), images, scenes)["as_believed"],
        }
    write_result(
        "wrong_model",
        {
            "seed": SEED,
            "read_noise": NOISE,
            "background": BACKGROUND,
            "dense_side_px": DENSE_SIDE_PX,
            "sigma": sigma,
            "backgrounds": background,
            "dense": dense,
        },
    )


if __name__ == "__main__":
    main()
