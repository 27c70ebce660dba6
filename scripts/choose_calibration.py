"""Choose the numbers by which `continuous` corrects its sampled posterior, to calibrate its errors and scores.

    python scripts/choose_calibration.py accurate|fast [SCENES]

Benchmark scenes of each count are sampled, without and with noise, and unmixed without corrections. For each count the
script prints

- the factor on the spread that minimises the largest coverage error of the central 68 % and 95 % intervals of x, y and
  intensity over the noise levels, in units of 4 and 2 points,
- the power of the odds of the scores, of groups in which so many were found, that makes the right positions most
  likely.

The numbers go into `csist.methods.continuous.solvers`.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np

from csist import ScenePrior, Sensor, Targets, sample_scenes
from csist.methods.continuous import Continuous, Group
from csist.methods.continuous.solvers import less_sure
from csist.metrics import interval_coverage, match_detections

NOISES = (0.0, 1.0, 2.0, 5.0)
SEED = 20_000
ALLOWED = {0.68: 0.04, 0.95: 0.02}
FACTORS = np.linspace(1.0, 4.0, 151)
POWERS = np.linspace(0.3, 1.2, 91)
RIGHT_PX = 0.25


def coverages(found: list[Targets], groups: list[Group], truths: list[Targets]) -> np.ndarray:
    """Return coverage minus level in units of `ALLOWED`, (factors, levels, 3)."""
    means = [group.samples.mean(axis=0) for group in groups]
    result = np.empty((len(FACTORS), len(ALLOWED), 3))
    for place, (level, allowed) in enumerate(ALLOWED.items()):
        raw = [group.interval(level) for group in groups]
        for at, factor in enumerate(FACTORS):
            wide = [mean + factor * (ends - mean) for mean, ends in zip(means, raw, strict=True)]
            share = interval_coverage(found, wide, truths)
            result[at, place] = [(share[name] - level) / allowed for name in ("x", "y", "intensity")]
    return result


def surprise(score: np.ndarray, right: np.ndarray) -> float:
    """Return the mean negative log likelihood of what is right by its scores."""
    chance = np.clip(np.where(right, score, 1.0 - score), 1e-6, 1.0)
    return float(-np.log(chance).mean())


def main(mode: str, scenes: int) -> None:
    """Print factor and power of each count.

    Args:
        mode: of the continuous method.
        scenes: number of scenes for each count and noise.
    """
    prior, results = ScenePrior.csist_100k(), []
    counts = range(1, prior.count_range[1] + 1)
    for count in counts:
        each = []
        for noise in NOISES:
            sensor = Sensor(read_noise=noise)
            truths = sample_scenes(replace(prior, count_range=(count, count)), sensor, scenes, SEED + count)
            images = np.stack([sensor.observe(truth, seed) for seed, truth in enumerate(truths)])
            method = Continuous(sensor=sensor, prior=prior, mode=mode, noise_std=noise)
            method.effort = replace(method.effort, widening=(1.0,), sureness=(1.0,))
            found, groups = method.solve(images, keep_samples=True)
            each.append(coverages(found, groups, truths))
            matches = match_detections(found, truths)
            found_counts = np.array([len(targets) for targets in found])[matches.image]
            results.append((found_counts, matches.key, matches.distance_px <= RIGHT_PX))
        worst = np.abs(np.stack(each)).max(axis=(0, 2, 3))
        best = int(worst.argmin())
        per_noise = [f"{FACTORS[np.abs(one).max(axis=(1, 2)).argmin()]:.2f}" for one in each]
        print(
            f"{count} targets: factor {FACTORS[best]:.2f}, worst {worst[0]:.2f} -> {worst[best]:.2f} of the allowed; "
            f"by noise {' '.join(per_noise)}",
            flush=True,
        )
    number, score, right = (np.concatenate(column) for column in zip(*results, strict=True))
    samples = method.effort.kept_samples
    for count in counts:
        own = number == count
        before, *after = (surprise(less_sure(score[own], samples, power), right[own]) for power in (1.0, *POWERS))
        best = int(np.argmin(after))
        print(f"{count} found: power {POWERS[best]:.2f}, surprise {before:.4f} -> {after[best]:.4f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 600)
