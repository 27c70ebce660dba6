"""Speed and accuracy of csist and of other packages, on the same images and threads, one process at a time.

    python benchmarks/bench_methods.py --data out/csist-100k.h5 [--split test] [--limit 2000] [--slow-limit 200]

Every method runs in a fresh process, so that the thread pools of different methods do not interfere. The whole round of
methods is repeated and the median over the rounds is compared, so that a slow phase of the machine does not affect a
single method. Building, compiling and the first call are timed separately. Writes a table,
docs/results/methods_speed.json and a figure of the same name.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from common import RESULTS, machine
from contestants import CONTESTANTS, NO_WEIGHTS, Conditions
from csist.checks import InputError, check_ratio
from csist.cli.output import write_json
from csist.evaluation import SCORE_NAMES, LabelledImages, read_labelled, score_predictions
from csist.files import check_writable
from csist.plots import accuracy_against_speed, save_figure
from csist.targets import Targets

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
PACKAGES = ("numpy", "scipy", "numba", "torch", "photutils", "astropy")
SHOWN_SCORES = (*SCORE_NAMES, "interval", "count_accuracy", "detections")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--data", type=Path, default=Path("out/csist-100k.h5"), help="store written by csist generate")
    result.add_argument("--split", default="test", choices=("train", "val", "test"))
    result.add_argument("--limit", type=int, default=2000, help="number of images to use")
    result.add_argument("--slow-limit", type=int, default=200, help="number of images for slow methods")
    result.add_argument("--rounds", type=int, default=3)
    result.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    result.add_argument("--ratio", type=int, default=3, help="sub-pixel grid ratio")
    result.add_argument("--weights", type=Path, help="weight file of DISTA-Net, for its accuracy")
    result.add_argument("--method", action="append", choices=list(CONTESTANTS), help="run only this method; repeatable")
    result.add_argument("--output", type=Path, default=RESULTS / "methods_speed.json")
    result.add_argument("--worker", choices=list(CONTESTANTS), help=argparse.SUPPRESS)
    result.add_argument("--score", action="store_true", help=argparse.SUPPRESS)
    return result


def check(options: argparse.Namespace) -> None:
    """Check the options that argparse does not check.

    Raises:
        InputError: if a number is below 1 or the output cannot be written.
    """
    for name in ("limit", "slow_limit", "rounds", "threads"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} must be a whole number >= 1, got {getattr(options, name)}")
    check_ratio(options.ratio)
    check_writable(options.output, (".json",))


# --- one method, in its own process -----------------------------------------------------------------------


def measure(name: str, data: LabelledImages, conditions: Conditions, score_first: int) -> dict[str, Any]:
    """Time one pass over the images, and score the detections if `score_first` is above 0.

    Args:
        name: a key of `CONTESTANTS`.
        data: images with their true targets.
        conditions: threads, ratio and weights.
        score_first: number of first images that are scored in addition to all images; 0 for no scores.
    """
    started = time.perf_counter()
    runner = CONTESTANTS[name].prepare(data, conditions)
    runner.run(data.images[: runner.warm_up])
    warm_up = time.perf_counter() - started
    started = time.perf_counter()
    result = runner.run(data.images)
    seconds = time.perf_counter() - started
    row: dict[str, Any] = {"images": len(data), "seconds": seconds, "warm_up_seconds": warm_up}
    if score_first:
        row["facts"] = runner.facts()
        if row["facts"].get("weights") != NO_WEIGHTS:
            found = runner.read_out(result)
            row["figures"] = scores(found, data.truths)
            row["first_images"] = {"images": min(score_first, len(data))} | scores(
                found[:score_first], data.truths[:score_first]
            )
    return row


def scores(found: Sequence[Targets], truths: Sequence[Targets]) -> dict[str, Any]:
    """Return CSO-mAP with its parts and interval, and the count accuracy, in percent."""
    figures = score_predictions(found, truths)
    return {key: figures[key] for key in SHOWN_SCORES}


def run_worker(name: str, options: argparse.Namespace, score: bool) -> dict[str, Any]:
    """Run `measure` in a fresh process; if it fails, return the last line of its error output as `failed`."""
    contestant = CONTESTANTS[name]
    words = [sys.executable, __file__, "--worker", name, *(["--score"] if score else [])]
    limit = min(options.limit, options.slow_limit) if contestant.slow else options.limit
    for key in ("data", "split", "slow_limit", "threads", "ratio"):
        words += [f"--{key.replace('_', '-')}", str(getattr(options, key))]
    words += ["--limit", str(limit)]
    if options.weights is not None:
        words += ["--weights", str(options.weights)]
    threads = "1" if contestant.processes else str(options.threads)
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, threads)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"failed": lines[-1]}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


# --- all methods ------------------------------------------------------------------------------------------


def summarise(name: str, rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one row of the result from the rounds of one method; the first round holds the scores."""
    for each in rounds:
        if "failed" in each:
            return {"name": name, "summary": CONTESTANTS[name].summary, "failed": each["failed"]}
    first = rounds[0]
    speeds = [each["images"] / each["seconds"] for each in rounds]
    return {
        "name": name,
        "summary": CONTESTANTS[name].summary,
        "images": first["images"],
        "images_per_second": {
            "median": statistics.median(speeds),
            "fastest": max(speeds),
            "slowest": min(speeds),
            "rounds": speeds,
        },
        "warm_up_seconds": [each["warm_up_seconds"] for each in rounds],
        **(first.get("figures") or {"CSO-mAP": None, "interval": None, "count_accuracy": None}),
        "first_images": first.get("first_images"),
        "multiply_adds_per_image": None,
        **first["facts"],
    }


def add_ratios(rows: Sequence[dict[str, Any]]) -> str | None:
    """Add to each row its speed relative to the fastest variant of DISTA-Net (median over rounds); return its name."""
    measured = [row for row in rows if "failed" not in row]
    forms = [row for row in measured if CONTESTANTS[row["name"]].dista_net]
    reference = max(forms, key=lambda row: row["images_per_second"]["median"], default=None)
    for row in measured:
        row["ratio_to_dista_net"] = None
        if reference is not None:
            pairs = zip(row["images_per_second"]["rounds"], reference["images_per_second"]["rounds"], strict=True)
            row["ratio_to_dista_net"] = statistics.median(ours / theirs for ours, theirs in pairs)
    return None if reference is None else str(reference["name"])


def versions() -> dict[str, str | None]:
    """Return the versions of the relevant packages, None for those that are not installed."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def published_score(ratio: int) -> float | None:
    """Return the published CSO-mAP of DISTA-Net in percent for a grid ratio; None if there is none."""
    rows = json.loads((RESULTS / "published.json").read_text())["rows"]
    return next((row["CSO-mAP"] for row in rows if (row["name"], row["ratio"]) == ("DISTA-Net", ratio)), None)


def drawn(rows: Sequence[Mapping[str, Any]], published: float | None) -> list[dict[str, Any]]:
    """Return the rows of the figure: an untrained DISTA-Net gets its published accuracy, or is left out without one."""
    result = []
    for row in rows:
        if "failed" in row:
            continue
        untrained = row["CSO-mAP"] is None
        value = published if untrained else row["CSO-mAP"]
        if value is not None:
            result.append({**row, "CSO-mAP": value, "published": untrained})
    return result


def table(rows: Sequence[Mapping[str, Any]], first: int) -> str:
    """Format the figures as text."""
    head = f"{'method':22}{'images/s':>10}{'best':>9}{'x DISTA':>9}{'warm-up s':>11}{'CSO-mAP':>9}"
    lines = [head + f"{'interval':>15}{'count':>7}{f'first {first}':>12}{'M mult-adds':>13}"]
    for row in rows:
        if "failed" in row:
            lines.append(f"{row['name']:22}  failed: {row['failed']}")
            continue
        speed, ratio = row["images_per_second"], row["ratio_to_dista_net"]
        cells = [
            f"{speed['median']:10.1f}{speed['fastest']:9.1f}",
            f"{'-' if ratio is None else f'{ratio:.2f}':>9}{row['warm_up_seconds'][0]:11.1f}",
        ]
        if row["CSO-mAP"] is None:
            cells.append(f"{'-':>9}{'':15}{'-':>7}{'-':>12}")
        else:
            interval = "{:.1f} to {:.1f}".format(*row["interval"])
            cells.append(f"{row['CSO-mAP']:9.2f}{interval:>15}{row['count_accuracy']:7.1f}")
            cells.append(f"{row['first_images']['CSO-mAP']:12.2f}")
        count = row["multiply_adds_per_image"]
        lines.append(f"{row['name']:22}" + "".join(cells) + f"{'-' if count is None else f'{count / 1e6:.1f}':>13}")
    return "\n".join(lines)


def compare(options: argparse.Namespace) -> int:
    """Run all rounds, then print, write and draw the result; return 1 if a method failed."""
    data = read_labelled(options.data, options.split, options.limit)
    names = options.method or list(CONTESTANTS)
    load = os.getloadavg()[0]
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(options.rounds):
        for name in names:
            row = run_worker(name, options, score=number == 0)
            rounds[name].append(row)
            speed = row["failed"] if "failed" in row else f"{row['images'] / row['seconds']:.1f} images/s"
            print(f"round {number + 1} of {options.rounds}: {name}: {speed}", file=sys.stderr, flush=True)
    rows = [summarise(name, rounds[name]) for name in names]
    reference = add_ratios(rows)
    published = published_score(options.ratio)
    write_json(
        {
            "data": data.describe() | {"path": options.data.name},
            "grid_ratio": options.ratio,
            "threads": options.threads,
            "rounds": options.rounds,
            "ratio_reference": reference,
            "dista_net_published_CSO-mAP": published,
            "methods": rows,
            "load_average_before": load,
            "machine": machine() | {"packages": versions()},
        },
        str(options.output),
    )
    print(table(rows, min(options.slow_limit, len(data))))
    shown = drawn(rows, published)
    if shown:
        title = f"{len(data):,} images of the {options.split} split, {options.threads} threads"
        save_figure(accuracy_against_speed(shown, title), options.output.with_suffix(".png"))
    return int(any("failed" in row for row in rows))


def main() -> int:
    options = parser().parse_args()
    try:
        check(options)
        if options.worker is None:
            return compare(options)
        data = read_labelled(options.data, options.split, options.limit)
        conditions = Conditions(options.threads, options.ratio, options.weights)
        print(json.dumps(measure(options.worker, data, conditions, options.slow_limit if options.score else 0)))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
