"""One map with three read-outs, and the continuous method.

The cells of FISTA as read out in the benchmark, the same cells merged by centroid, the same cells as the start of a
fit in continuous coordinates, and the continuous method, which has no cells. Grey: an oracle that knows every target
and reports cells. The number of images is small, so the intervals are wide.
"""

import sys
from pathlib import Path

import numpy as np

import csist
from csist.evaluation import grid_oracles
from csist.metrics import bootstrap_interval
from csist.plots import method_comparison, save_figure

IMAGES = 80
METHODS = {"fista": {}, "fista+centroid": {}, "fista+refine": {}, "continuous": {"mode": "fast"}}


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    sensor, prior = csist.Sensor(), csist.ScenePrior.csist_100k()
    truths = csist.sample_scenes(prior, sensor, IMAGES, seed=4)
    images = np.stack([sensor.observe(truth, seed) for seed, truth in enumerate(truths)])
    found = {}
    for name, options in METHODS.items():
        known = prior if name in ("continuous", "fista+refine") else None
        found[name] = csist.unmix(images, sensor, known, name, **options)
    oracle = grid_oracles(truths, csist.SubPixelGrid(sensor.shape, 3))["closeness"]
    rows = []
    for name, predictions in {**found, "oracle on cells": oracle}.items():
        value, low, high = bootstrap_interval(predictions, truths, seed=0, resamples=200)
        rows.append({"name": name, "CSO-mAP": value, "interval": (low, high), "reference": name.startswith("oracle")})
        print(f"{name}: CSO-mAP {value:.1f} ({low:.1f} to {high:.1f})")
    save_figure(method_comparison(rows, f"{IMAGES} benchmark windows, ratio 3"), out / "06_grid_or_not.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples"))
