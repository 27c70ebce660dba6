"""Maps of grid methods read out by YOLO11n, compared with the read-out by threshold on the same images.

    python benchmarks/bench_yolo.py --data out/csist-100k.h5 [--method dista-net] [--weights srfbn=FILE] [--minutes 30]

Needs the extra `yolo` in a separate environment, which `make yolo` creates before it runs this script. For each method,
a detector is trained from random weights on windows of the maps of the train split for the given minutes, and stored
under runs/yolo, where `NAME+yolo` finds it; it reads whole maps of the test split. The last row is the exact map, the
posterior mean, and shows the gain of a detector over the threshold on a map that no network can surpass.
Writes docs/results/yolo.json after each method.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common import write_result
from csist._types import FloatArray
from csist.checks import InputError, check_positive
from csist.create import create_method
from csist.evaluation import EXACT_MAP, SCORE_NAMES, LabelledImages, read_labelled, score_predictions
from csist.methods.base import GridMethod
from csist.methods.exact_map import check_has_exact_map, exact_maps
from csist.physics.sensor import Sensor
from csist.pipelines import boxes, yolo
from csist.scenes import ScenePrior
from csist.targets import Targets

METHODS = ("dista-net", "srfbn", EXACT_MAP)
SHOWN = (*SCORE_NAMES, "interval", "count_accuracy", "detections")
PACKAGES = ("torch", "torchvision", "ultralytics")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--data", type=Path, default=Path("out/csist-100k.h5"), help="store written by csist generate")
    result.add_argument("--method", action="append", help="grid method; repeatable")
    result.add_argument("--weights", action="append", default=[], metavar="METHOD=FILE", help="repeatable")
    result.add_argument(
        "--window", type=int, default=boxes.WINDOW_PX, help="side in px of the training windows; 0 for whole maps"
    )
    result.add_argument("--ratio", type=int, default=3, help="sub-pixel grid ratio")
    result.add_argument("--minutes", type=float, default=30.0, help="training time per detector in minutes")
    result.add_argument("--train-limit", type=int, default=40_000, help="number of training maps")
    result.add_argument(
        "--val-limit", type=int, default=500, help="number of validation maps, which select the best epoch"
    )
    result.add_argument("--limit", type=int, default=2000, help="test images")
    result.add_argument("--device", default="cpu", help="hardware of the training")
    return result


class ExactMap(GridMethod):
    """Exact map as a grid method, for its read-outs.

    Args:
        sensor: sensor of the images.
        ratio: sub-pixel grid ratio.
        prior: prior of the scenes.

    Raises:
        InputError: if the prior has no exact map.
    """

    exportable = False

    def __init__(self, sensor: Sensor, ratio: int, prior: ScenePrior) -> None:
        super().__init__(sensor, ratio)
        check_has_exact_map(prior)
        self.prior = prior

    def predict_maps(self, images: FloatArray) -> FloatArray:
        """Compute the maps (N, cH, cW) in counts of images (N, H, W) in counts."""
        return exact_maps(images, self.grid, self.sensor, self.prior)


def make_method(name: str, data: LabelledImages, ratio: int, weights: str | None) -> GridMethod:
    """Create a method by its name, or the exact map of the data."""
    if name == EXACT_MAP:
        return ExactMap(data.sensor, ratio, data.prior)
    method: GridMethod = create_method(name, data.sensor, ratio, weights)
    return method


def given_weights(words: list[str], methods: list[str]) -> dict[str, str]:
    """Parse METHOD=FILE options into weight files by method.

    Raises:
        InputError: if an option has another form or names no method of this run.
    """
    files = {}
    for word in words:
        name, sign, file = word.partition("=")
        if not sign or name not in methods:
            raise InputError(f"--weights must be METHOD=FILE with a METHOD of {', '.join(methods)}, got {word!r}")
        files[name] = file
    return files


def figures(found: list[Targets], data: LabelledImages, seconds: float) -> dict[str, Any]:
    """Return scores in percent, position errors in px, and images per second of map and read-out together."""
    scores = score_predictions(found, data.truths)
    errors = {key: scores["errors"][key] for key in ("distance_rms", "missed", "spurious")}
    return {key: scores[key] for key in SHOWN} | errors | {"images_per_second": len(data) / seconds}


def measured(method: Any, data: LabelledImages) -> dict[str, Any]:
    """Run a method and return its figures."""
    method.predict(data.images[:2])
    started = time.perf_counter()
    found = method.predict(data.images)
    return figures(found, data, time.perf_counter() - started)


def main() -> int:
    options = parser().parse_args()
    try:
        yolo.check_extra()
        check_positive("minutes", options.minutes)
        names = options.method or list(METHODS)
        files = given_weights(options.weights, names)
        limits = {"train": options.train_limit, "val": options.val_limit, "test": options.limit}
        data = {split: read_labelled(options.data, split, limit) for split, limit in limits.items()}
        methods = {name: make_method(name, data["test"], options.ratio, files.get(name)) for name in names}
        shared = {
            "data": data["test"].describe() | {"path": options.data.name},
            "grid_ratio": options.ratio,
            "detector": yolo.ARCHITECTURE,
            "budget": {
                "window_px": options.window or None,
                **{f"{split}_maps": len(data[split]) for split in boxes.SPLITS},
            },
            "confidence": yolo.CONFIDENCE,
            "packages": {name: version(name) for name in PACKAGES},
        }
        rows = []
        for name, method in methods.items():
            started = time.perf_counter()
            parts = {split: (data[split].images, data[split].truths) for split in boxes.SPLITS}
            yolo.train_detector(method, parts, options.minutes, device=options.device, window_px=options.window or None)
            took = (time.perf_counter() - started) / 60.0
            rows.append(
                {
                    "name": name,
                    "training_minutes": options.minutes,
                    "minutes": took,
                    "threshold": measured(method, data["test"]),
                    "yolo": measured(yolo.YoloReadOut(method), data["test"]),
                }
            )
            write_result("yolo", shared | {"methods": rows})
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
