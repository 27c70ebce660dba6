"""Collect trainings to compare, such as those of one network with several options, for a table.

    python scripts/short_trainings.py NAME WEIGHTS.safetensors ... [--data STORE.h5] [--limit N]

Writes docs/results/NAME.json from the cards of the files: method, ratio, options, seed, budget, and CSO-mAP and squared
error on the validation images of each training. With --data the weights are also run on the test split, which adds
CSO-mAP by intensity, squared error, and the difference in CSO-mAP to the first file on the same resamples of the
images.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from csist import metrics
from csist.checks import InputError
from csist.cli.output import write_json
from csist.create import create_method
from csist.evaluation import LabelledImages, read_labelled
from csist.targets import Targets
from csist.weights.cards import read_card
from docs_tables import RESULTS

SEED = 0


def row_of(path: Path) -> dict[str, Any]:
    """Return the row of one training, from its card."""
    card = read_card(path)
    training, score = card["training"], card["score"]
    return {
        **{key: card[key] for key in ("method", "ratio", "options")},
        **{key: training[key] for key in ("seed", "samples", "minutes", "machine")},
        "optimiser": training.get("optimiser", "adam"),
        "images": score["images"],
        "CSO-mAP": {"value": score["cso_map"], "interval": score["interval_95"]},
        "squared_error": score.get("squared_error"),
    }


def tested(paths: Sequence[Path], data: LabelledImages, resamples: int = 1000) -> list[dict[str, Any]]:
    """Return the figures of weight files on the same test images, each compared with the first file.

    Args:
        paths: weight files.
        data: test images with their true targets.
        resamples: number of bootstrap resamples.

    Returns:
        images, CSO-mAP by intensity and its difference to the first file (value, low, high), squared_error per cell.
    """
    rows: list[dict[str, Any]] = []
    first: list[Targets] = []
    options: dict[str, Any] = {"resamples": resamples, "rank_by": "intensity"}
    for path in paths:
        card = read_card(path)
        method = create_method(card["method"], data.sensor, card["ratio"], path)
        maps = method.predict_maps(data.images)
        found = method.read(data.images, maps)
        first = first or found
        score = metrics.bootstrap_interval(found, data.truths, SEED, **options)
        difference = metrics.bootstrap_difference(found, first, data.truths, SEED, **options)
        true = np.stack([method.grid.encode(truth) for truth in data.truths])
        rows.append(
            {
                "images": len(data),
                "CSO-mAP": [score.value, score.low, score.high],
                "difference": [difference.value, difference.low, difference.high],
                "squared_error": float(((maps - true) ** 2).mean()),
            }
        )
    return rows


def main() -> int:
    """Collect the trainings; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="name of the file in docs/results")
    parser.add_argument("weights", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, help="store; the weights are run on its test split")
    parser.add_argument("--limit", type=int, help="first test images only")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder")
    options = parser.parse_args()
    try:
        rows = [row_of(path) for path in options.weights]
        if options.data is not None:
            data = read_labelled(options.data, "test", options.limit)
            for row, figures in zip(rows, tested(options.weights, data), strict=True):
                row["test"] = figures
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_json(rows, str(options.output / f"{options.name}.json"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
