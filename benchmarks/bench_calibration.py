"""Are the scores probabilities? Stated against observed shares of right positions, by noise and mode.

    python benchmarks/bench_calibration.py [--images 1500]

Windows are drawn from the distribution of the benchmark. A detection is right if a true target lies within 0.25 px.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from common import write_result
from csist import ScenePrior, Sensor, sample_scenes, unmix
from csist.metrics import mean_deviation, reliability_curve

NOISES = (1.0, 5.0)
MODES = ("accurate", "fast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1500, help="windows for each noise")
    number = parser.parse_args().images
    prior, rows = ScenePrior.csist_100k(), []
    for noise in NOISES:
        sensor = Sensor(read_noise=noise)
        rng = np.random.default_rng(23)
        truths = sample_scenes(prior, sensor, number, rng)
        images = np.stack([sensor.observe(scene, rng) for scene in truths])
        for mode in MODES:
            curve = reliability_curve(unmix(images, sensor, prior, mode=mode, noise_std=noise), truths)
            row: dict[str, Any] = {"noise_std": noise, "mode": mode, "score_error": mean_deviation(curve)}
            rows.append(row | {name: values.tolist() for name, values in curve._asdict().items()})
    write_result("calibration", {"images": number, "rows": rows})


if __name__ == "__main__":
    main()
