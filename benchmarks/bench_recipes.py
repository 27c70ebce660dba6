"""Number of samples that DISTA-Net needs to reach a score from random weights, by training recipe.

    python benchmarks/bench_recipes.py [--only NAME ...] [--samples 25600,51200,...] [--goal 44.0] [--seed 0]

Each training is complete: its learning rate rises, stays constant and falls within the given samples, on windows of
5 px, and its final averaged weights are scored on 1,000 simulated validation images. A recipe is trained with
increasing numbers of samples until it reaches the goal; the number needed is interpolated on a logarithmic scale
between the last failure and the first success. Each recipe differs from `new` as its name says.

Trainings are kept in --folder: interrupted ones are resumed, and finished ones are not repeated. Writes
docs/results/recipes.json after each training and keeps the results of other trainings in it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import RESULTS, machine
from csist.checks import InputError
from csist.files import check_writable, write_text
from csist.training import TrainingConfig, train
from csist.weights.cards import describe_machine

METHOD, RATIO = "dista-net", 3

COMMON: dict[str, Any] = {
    "ratio": RATIO, "window": 5, "window_share": 1.0, "decay": 0.3, "constraint_share": 0.25, "schedule": "stable",
}  # fmt: skip
"""Settings shared by all recipes."""

NEW: dict[str, Any] = {"optimiser": "muon", "learning_rate": 1.5e-3, "gradient_clip": "running"}

RECIPES: dict[str, dict[str, Any]] = {  # "old" is the recipe of the first weights of this project
    "old": {
        "optimiser": "adam", "learning_rate": 2e-3, "gradient_clip": "none", "schedule": "one-cycle",
        "options": {"start": "xavier"},
    },
    "new": NEW,
    "adam": NEW | {"optimiser": "adam"},
    "xavier start": NEW | {"options": {"start": "xavier"}},
    "growing": NEW | {"grow": (2, 4, 6)},
    "posterior targets": NEW | {"targets": "posterior"},
}  # fmt: skip

SAMPLES = (25_600, 38_400, 51_200, 76_800, 115_200, 172_800, 256_000)

Run = dict[str, Any]


def samples_needed(runs: Sequence[Run], goal: float) -> dict[str, Any]:
    """Estimate the number of samples at which trainings of increasing length reach a goal.

    Args:
        runs: samples and cso_map of the trainings of one recipe.
        goal: CSO-mAP in percent.

    Returns:
        samples, and bound: "about" if the goal lies between two trainings, "at most" if the shortest one reaches it,
        "more than" if none does.

    >>> samples_needed([{"samples": 100, "cso_map": 40.0}, {"samples": 400, "cso_map": 48.0}], 44.0)
    {'samples': 200, 'bound': 'about'}
    """
    ordered = sorted(runs, key=lambda run: run["samples"])
    below = None
    for run in ordered:
        if run["cso_map"] >= goal:
            if below is None:
                return {"samples": run["samples"], "bound": "at most"}
            share = (goal - below["cso_map"]) / (run["cso_map"] - below["cso_map"])
            logarithm = (1.0 - share) * math.log(below["samples"]) + share * math.log(run["samples"])
            return {"samples": round(math.exp(logarithm)), "bound": "about"}
        below = run
    return {"samples": ordered[-1]["samples"], "bound": "more than"}


def measure(name: str, samples: int, seed: int, folder: Path, **changes: Any) -> Run:
    """Run or resume one training of a recipe in its own folder below `folder`."""
    settings = {**COMMON, **RECIPES[name], "seed": seed, "max_samples": samples, "validate_every": samples, **changes}
    place = folder / f"{name.replace(' ', '-')}-{samples}-seed-{seed}"
    result = train(METHOD, TrainingConfig(output=place, resume=True, **settings), progress_bar=True)
    score = result.card["score"]
    return {
        "recipe": name,
        "samples": samples,
        "seed": seed,
        "cso_map": score["cso_map"],
        "interval": score["interval_95"],
        "squared_error": score["squared_error"],
        "minutes": round(result.minutes, 2),
        "images": score["images"],
    }


def merged(result: dict[str, Any], runs: Sequence[Run]) -> dict[str, Any]:
    """Return the result with further runs added, and the samples that each recipe needs for the goal."""
    every = {(run["recipe"], run["samples"], run["seed"]): run for run in [*result.get("runs", []), *runs]}
    ordered = sorted(every.values(), key=lambda run: (list(RECIPES).index(run["recipe"]), run["seed"], run["samples"]))
    needed = {}
    for name in RECIPES:
        seeds = sorted({run["seed"] for run in ordered if run["recipe"] == name})
        for seed in seeds:
            mine = [run for run in ordered if (run["recipe"], run["seed"]) == (name, seed)]
            needed.setdefault(name, {})[str(seed)] = samples_needed(mine, result["goal"])
    return result | {"runs": ordered, "needed": needed}


def read_earlier(path: Path, goal: float) -> dict[str, Any]:
    """Read the earlier runs for this goal from the file."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    described = {"method": METHOD, "ratio": RATIO, "common": COMMON, "recipes": RECIPES}
    return known | json.loads(json.dumps(described)) | {"goal": goal}


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--only", action="append", choices=list(RECIPES), metavar="NAME", help="recipe; repeatable")
    result.add_argument(
        "--samples", default=",".join(map(str, SAMPLES)), help="numbers of samples of the trainings, increasing"
    )
    result.add_argument("--goal", type=float, default=44.0, help="CSO-mAP in percent")
    result.add_argument("--seed", type=int, default=0)
    result.add_argument("--compile", action="store_true", help="compile the network: faster for long trainings")
    result.add_argument("--folder", type=Path, default=Path("out/recipes"), help="of the trainings")
    result.add_argument("--output", type=Path, default=RESULTS / "recipes.json")
    return result


def main() -> int:
    options = parser().parse_args()
    try:
        lengths = [int(each) for each in options.samples.split(",")]
        if min(lengths) < 1 or lengths != sorted(set(lengths)):
            raise InputError(f"--samples must be increasing whole numbers such as 25600,51200, got {options.samples}")
        check_writable(options.output, (".json",))
        result = read_earlier(options.output, options.goal)
        for name in options.only or RECIPES:
            for samples in lengths:
                run = measure(name, samples, options.seed, options.folder, compiled=options.compile)
                result = merged(result, [run]) | {"machine": machine() | describe_machine()}
                write_text(json.dumps(result, indent=2) + "\n", options.output)
                print(f"{name:20}{samples:9,} samples: CSO-mAP {run['cso_map']:.2f}, error {run['squared_error']:.1f}")
                if run["cso_map"] >= options.goal:
                    break
    except ValueError as error:  # includes InputError
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
