"""Maps of grid methods read out by YOLO11n, beside their own read-out by threshold, on the same images.

    python benchmarks/bench_yolo.py --data out/csist-100k.h5 [--method dista-net] [--weights srfbn=FILE] [--minutes 30]

Needs the extra `yolo` in an environment of its own: `make yolo` makes it and runs this. For each method a detector is
trained from nothing on windows of the method's maps of the train split, for the minutes given, and kept under
runs/yolo, where `NAME+yolo` finds it; whole maps of the test split are read. The last row is of the exact map, the
posterior mean, which says what a detector gains over the threshold with a map that no network can surpass.
Writes docs/results/yolo.json.
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
    result.add_argument("--data", type=Path, default=Path("out/csist-100k.h5"), help="store that csist generate made")
    result.add_argument("--method", action="append", help="grid method; repeatable")
    result.add_argument("--weights", action="append", default=[], metavar="METHOD=FILE", help="repeatable")
    result.add_argument(
        "--window", type=int, default=boxes.WINDOW_PX, help="side in px of what it is trained on; 0: whole"
    )
    result.add_argument("--ratio", type=int, default=3, help="sub-pixel grid ratio")
    result.add_argument("--minutes", type=float, default=30.0, help="training of each detector")
    result.add_argument("--train-limit", type=int, default=40_000, help="maps that it is trained on")
    result.add_argument("--val-limit", type=int, default=500, help="maps that choose its best epoch")
    result.add_argument("--limit", type=int, default=2000, help="test images")
    result.add_argument("--device", default="cpu", help="hardware of the training")
    return result


class ExactMap(GridMethod):
    """The exact map as a grid method, for its read-outs.

    Args:
        sensor: that took the images.
        ratio: sub-pixel grid ratio.
        prior: law of their scenes.

    Raises:
        InputError: if the prior has no exact map.
    """

    exportable = False

    def __init__(self, sensor: Sensor, ratio: int, prior: ScenePrior) -> None:
        super().__init__(sensor, ratio)
        check_has_exact_map(prior)
        self.prior = prior

    def predict_maps(self, images: FloatArray) -> FloatArray:
        """Maps (N, cH, cW) in counts of images (N, H, W) in counts."""
        return exact_maps(images, self.grid, self.sensor, self.prior)


def make_method(name: str, data: LabelledImages, ratio: int, weights: str | None) -> GridMethod:
    """A method by its name, or the exact map of the data."""
    if name == EXACT_MAP:
        return ExactMap(data.sensor, ratio, data.prior)
    method: GridMethod = create_method(name, data.sensor, ratio, weights)
    return method


def given_weights(words: list[str], methods: list[str]) -> dict[str, str]:
    """Weight file by method from METHOD=FILE.

    Raises:
        InputError: if a word has another form or names no method of this run.
    """
    files = {}
    for word in words:
        name, sign, file = word.partition("=")
        if not sign or name not in methods:
            raise InputError(f"--weights must be METHOD=FILE with a METHOD of {', '.join(methods)}, got {word!r}")
        files[name] = file
    return files


def figures(found: list[Targets], data: LabelledImages, seconds: float) -> dict[str, Any]:
    """Scores in percent, errors of position in px, and images a second of map and read-out together."""
    scores = score_predictions(found, data.truths)
    errors = {key: scores["errors"][key] for key in ("distance_rms", "missed", "spurious")}
    return {key: scores[key] for key in SHOWN} | errors | {"images_per_second": len(data) / seconds}


def measured(method: Any, data: LabelledImages) -> dict[str, Any]:
    """Figures of a method that is ready to use."""
    method.predict(data.images[:2])
    begun = time.perf_counter()
    found = method.predict(data.images)
    return figures(found, data, time.perf_counter() - begun)


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
        rows = []
        for name, method in methods.items():
            begun = time.perf_counter()
            parts = {split: (data[split].images, data[split].truths) for split in boxes.SPLITS}
            yolo.train_detector(method, parts, options.minutes, device=options.device, window_px=options.window or None)
            took = (time.perf_counter() - begun) / 60.0
            rows.append(
                {
                    "name": name,
                    "minutes": took,
                    "threshold": measured(method, data["test"]),
                    "yolo": measured(yolo.YoloReadOut(method), data["test"]),
                }
            )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    budget = {
        "minutes": options.minutes,
        "window_px": options.window or None,
        **{f"{split}_maps": len(data[split]) for split in boxes.SPLITS},
    }
    described = data["test"].describe() | {"path": options.data.name}
    packages = {name: version(name) for name in PACKAGES}
    write_result(
        "yolo",
        {
            "data": described,
            "grid_ratio": options.ratio,
            "detector": yolo.ARCHITECTURE,
            "budget": budget,
            "confidence": yolo.CONFIDENCE,
            "methods": rows,
            "packages": packages,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
