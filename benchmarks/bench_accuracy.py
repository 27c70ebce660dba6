"""Accuracy of `continuous` compared with the physical limit: rounding only, three noise levels, clipped 8-bit images.

For each dataset: CSO-mAP and count accuracy of both modes on the whole split, calibration of scores, counts
and credible intervals, and the posterior limit on the first images with the paired difference to it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from common import RESULTS, write_result
from csist import metrics
from csist.datasets import generate
from csist.evaluation import LabelledImages, read_labelled
from csist.methods.continuous import Continuous, Group
from csist.methods.continuous.limit import posterior_limit
from csist.targets import Targets

DATASETS: dict[str, dict[str, Any]] = {
    "rounding only": {},
    "sigma 1": {"noise_std": 1.0},
    "sigma 2": {"noise_std": 2.0},
    "sigma 5": {"noise_std": 5.0},
    "8 bit, clipped": {"bits": 8, "clip": True},
}
LIMIT_STEPS = {"rounding only": 2_000_000}
"""Sampling steps for datasets on which the two sets of chains need more than `LIMIT_STEPS_ELSEWHERE` to agree."""
LIMIT_STEPS_ELSEWHERE = 700_000
SIDES = ("from_truth", "annealed")
LEVELS = (0.68, 0.95)
RESAMPLES = 1000


def open_dataset(folder: Path, name: str, split: str, limit: int | None) -> LabelledImages:
    """Open one of `DATASETS`, and generate it in `folder` if it is missing."""
    path = folder / f"csist-{name.replace(' ', '-').replace(',', '')}.h5"
    if not path.exists():
        generate(path, **DATASETS[name])
    return read_labelled(path, split, limit)


def calibration(found: list[Targets], groups: list[Group], truths: list[Targets]) -> dict[str, Any]:
    """Return the calibration of scores, counts and intervals, overall and by number of targets."""
    stated = np.array([group.count_probability[group.count] for group in groups])
    right = np.array([group.count == len(true) for group, true in zip(groups, truths, strict=True)])
    result: dict[str, Any] = {
        "score_error": metrics.expected_calibration_error(found, truths),
        "count_error": metrics.mean_deviation(metrics.binned_reliability(stated, right)),
    }
    for level in LEVELS:
        intervals = [group.interval(level) for group in groups]
        result[f"inside_{level:.0%}"] = metrics.interval_coverage(found, intervals, truths)
        for count in sorted({len(true) for true in truths}):
            chosen = [n for n, true in enumerate(truths) if len(true) == count]
            result[f"inside_{level:.0%}_{count}_targets"] = metrics.interval_coverage(
                [found[n] for n in chosen], [intervals[n] for n in chosen], [truths[n] for n in chosen]
            )
    return result


def measure(data: LabelledImages, mode: str) -> tuple[dict[str, Any], list[Targets]]:
    """Return the figures of one mode, and its detections."""
    method = Continuous(sensor=data.sensor, prior=data.prior, mode=mode, noise_std=data.sensor.read_noise)
    method.predict(data.images[:2])
    began = time.perf_counter()
    found = method.predict(data.images)
    seconds = time.perf_counter() - began
    kept = min(len(data), 3000)
    _, groups = method.solve(data.images[:kept], keep_samples=True)
    scores = metrics.bootstrap_scores(found, data.truths, 0, resamples=RESAMPLES)
    return {
        "images": len(data),
        "scores": {name: list(interval) for name, interval in scores.items()},
        "count_accuracy": metrics.count_accuracy(found, data.truths),
        "images_per_second": len(data) / seconds,
        "calibration_images": kept,
        "calibration": calibration(found[:kept], groups, data.truths[:kept]),
    }, found


def sampled_limit(data: LabelledImages, part: int, steps: int, accurate: list[Targets]) -> dict[str, Any]:
    """Return CSO-mAP of the posterior on the first images for both sets of chains, and the method's distance to it."""
    truths = data.truths[:part]
    chains = posterior_limit(data.images[:part], truths, data.sensor, data.prior, steps=steps)
    limit: dict[str, Any] = {"images": part, "steps": steps}
    for label, found in zip(SIDES, chains, strict=True):
        score = metrics.bootstrap_interval(found, truths, 0, resamples=RESAMPLES)
        behind = metrics.bootstrap_difference(accurate[:part], found, truths, 0, resamples=RESAMPLES)
        limit[label] = {"CSO-mAP": list(score), "accurate_minus_limit": list(behind)}
    return limit


def kept_limit(limit: dict[str, Any], accurate: list[Targets], data: LabelledImages) -> dict[str, Any]:
    """Return the limit of an earlier result, with the current figures of the method on the same images."""
    part = limit["images"]
    value = metrics.cso_map(accurate[:part], data.truths[:part])["CSO-mAP"]
    sides = {
        label: {**limit[label], "accurate_minus_limit": [value - limit[label]["CSO-mAP"][0], None, None]}
        for label in SIDES
    }
    return {**limit, **sides}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("out/data"), help="folder of the datasets")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=None, help="images of each dataset")
    parser.add_argument("--limit-images", type=int, default=3000, help="images for the posterior limit")
    parser.add_argument("--limit-steps", type=int, default=None, help="default: enough for each dataset")
    parser.add_argument("--dataset", action="append", choices=list(DATASETS), help="run only this dataset; repeatable")
    parser.add_argument(
        "--keep-limit",
        action="store_true",
        help="reuse the limit of the earlier result: saves hours, gives no paired interval",
    )
    parser.add_argument("--name", default="accuracy", help="of the result file")
    arguments = parser.parse_args()
    arguments.data.mkdir(parents=True, exist_ok=True)
    result = RESULTS / f"{arguments.name}.json"
    earlier = json.loads(result.read_text())["rows"] if result.exists() else {}
    missing = set(arguments.dataset or DATASETS) - earlier.keys()
    if arguments.keep_limit and missing:
        parser.error(f"{result} has no limit of {', '.join(sorted(missing))}: leave out --keep-limit")
    rows: dict[str, Any] = dict(earlier) if arguments.dataset else {}  # datasets that are not requested are kept
    for name in arguments.dataset or DATASETS:
        data = open_dataset(arguments.data, name, arguments.split, arguments.limit)
        row: dict[str, Any] = {"sensor": data.sensor.to_card()}
        accurate: list[Targets] = []
        for mode in ("fast", "accurate"):
            row[mode], accurate = measure(data, mode)
        part = min(len(data), arguments.limit_images)
        if arguments.keep_limit:
            row["limit"] = kept_limit(earlier[name]["limit"], accurate, data)
        else:
            steps = arguments.limit_steps or LIMIT_STEPS.get(name, LIMIT_STEPS_ELSEWHERE)
            row["limit"] = sampled_limit(data, part, steps, accurate)
        rows[name] = row
        write_result(arguments.name, {"split": arguments.split, "rows": rows})


if __name__ == "__main__":
    main()
