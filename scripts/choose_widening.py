"""Choose the factor by which `continuous` widens the sampled posterior, so that its intervals are calibrated.

    python scripts/choose_widening.py accurate|fast [SCENES]

Benchmark scenes of each count are sampled, without and with noise, and unmixed without widening. For each count the
script prints the factor that minimises the largest coverage error of the central 68 % and 95 % intervals of x, y and
intensity over the noise levels, in units of 4 and 2 points. The factors go into `csist.methods.continuous.solvers`.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np

from csist import ScenePrior, Sensor, sample_scenes
from csist.methods.continuous import Continuous
from csist.metrics import interval_coverage

NOISES = (0.0, 1.0, 2.0, 5.0)
SEED = 20_000
ALLOWED = {0.68: 0.04, 0.95: 0.02}
FACTORS = np.linspace(1.0, 4.0, 151)


def coverages(mode: str, noise: float, count: int, scenes: int) -> np.ndarray:
    """Return coverage minus level in units of `ALLOWED`, (factors, levels, 3)."""
    prior, sensor = ScenePrior.csist_100k(), Sensor(read_noise=noise)
    truths = sample_scenes(replace(prior, count_range=(count, count)), sensor, scenes, SEED + count)
    images = np.stack([sensor.observe(truth, seed) for seed, truth in enumerate(truths)])
    method = Continuous(sensor=sensor, prior=prior, mode=mode, noise_std=noise)
    method.effort = replace(method.effort, widening=(1.0,))
    found, groups = method.solve(images, keep_samples=True)
    means = [group.samples.mean(axis=0) for group in groups]
    result = np.empty((len(FACTORS), len(ALLOWED), 3))
    for place, (level, allowed) in enumerate(ALLOWED.items()):
        raw = [group.interval(level) for group in groups]
        for at, factor in enumerate(FACTORS):
            wide = [mean + factor * (ends - mean) for mean, ends in zip(means, raw, strict=True)]
            share = interval_coverage(found, wide, truths)
            result[at, place] = [(share[name] - level) / allowed for name in ("x", "y", "intensity")]
    return result


def main(mode: str, scenes: int) -> None:
    """Print the coverage of the errors by count and noise.

    Args:
        mode: of the continuous method.
        scenes: number of scenes for each.
    """
    for count in range(1, ScenePrior.csist_100k().count_range[1] + 1):
        each = np.stack([coverages(mode, noise, count, scenes) for noise in NOISES])
        worst = np.abs(each).max(axis=(0, 2, 3))
        best = int(worst.argmin())
        per_noise = [f"{FACTORS[np.abs(one).max(axis=(1, 2)).argmin()]:.2f}" for one in each]
        print(
            f"{count} targets: factor {FACTORS[best]:.2f}, worst {worst[0]:.2f} -> {worst[best]:.2f} of the allowed; "
            f"by noise {' '.join(per_noise)}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 600)
