"""Time of a training step of DISTA-Net: in the trainer, on windows, and in a plain loop.

    python benchmarks/bench_training.py [--rounds 7] [--steps 3] [--batch 64]

All rows train the same network with the same loss and optimiser on the same batches, held in memory as tensors. `plain`
is an eager loop with tensors in torch's default layout; `trainer` does what `csist train` does: channels last, with an
average of the weights; `compiled` is `trainer` with `--compile`, without the compile time; `window` is `trainer` on
windows of 5 px (`--window 5`). The rows alternate, a few steps at a time, so that a slow phase of the machine does not
affect a single row; the median over the rounds is compared.
Writes docs/results/training_speed.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common import RESULTS, machine
from csist.checks import InputError, check_ratio
from csist.cli.output import write_json
from csist.create import create_method
from csist.files import check_writable
from csist.grid import encode_arrays
from csist.methods.crop import Cropper
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, simulate
from csist.training.average import AveragedWeights
from csist.training.compiled import compile_for_training
from csist.training.optimisers import make_optimiser
from csist.weights.cards import describe_machine

WINDOW_PX = 5
EMA_DECAY = 0.999

Step = Callable[[Tensor, Tensor], float]


def make_step(
    ratio: int,
    memory_format: torch.memory_format,
    averaged: bool,
    window: int | None = None,
    compiled: bool = False,
    **options: Any,
) -> Step:
    """Return a function of images and true maps that does one training step of a new DISTA-Net and returns the loss.

    Args:
        ratio: sub-pixel grid ratio.
        memory_format: layout of the network's tensors.
        averaged: whether the average of the weights is kept, as the trainer does.
        window: side in px of the training windows; None for whole images.
        compiled: whether the network is compiled.
        **options: options of the network.
    """
    torch.manual_seed(0)
    method = create_method("dista-net", Sensor(), ratio, pretrained=False, **options)
    method.to(memory_format=memory_format)
    if compiled:
        compile_for_training(method)
    optimizer = make_optimiser(method.optimiser, method.parameters(), method.learning_rate)
    average = AveragedWeights(method, EMA_DECAY) if averaged else None
    cropper = None if window is None else Cropper(method.sensor, ratio, window)

    def step(image: Tensor, truth: Tensor) -> float:
        optimizer.zero_grad()
        discrepancy, constraint = method.loss_terms(image, truth, crop=cropper and cropper(truth))
        loss = discrepancy + constraint
        loss.backward()
        optimizer.step()
        if average is not None:
            average.update()
        return float(loss.detach())

    return step


def make_batches(ratio: int, size: int, count: int) -> list[tuple[Tensor, Tensor]]:
    """Return `count` batches of benchmark images (size, 1, H, W) and true maps (size, 1, cH, cW), float32."""
    grid = create_method("ista", Sensor(), ratio, iterations=1, start="zero").grid
    images, targets = simulate(ScenePrior.csist_100k(), Sensor(), size * count, np.random.default_rng(0))
    pairs = (
        torch.as_tensor(images[:, None], dtype=torch.float32),
        torch.as_tensor(encode_arrays(grid, targets)[:, None]),
    )
    return list(zip(*(each.split(size) for each in pairs), strict=True))


def measure(steps: dict[str, Step], batches: Sequence[tuple[Tensor, Tensor]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds per step of each row in each round; the first step of each row is not timed."""
    for step in steps.values():
        step(*batches[0])
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds):
        # Reverse the order each time, so that no row always follows the same one.
        for name in list(steps)[:: 1 if number % 2 == 0 else -1]:
            started = time.perf_counter()
            for batch in batches:
                steps[name](*batch)
            seconds[name].append((time.perf_counter() - started) / len(batches))
    return seconds


def compare(ratio: int, batch: int, steps: int, rounds: int, **options: Any) -> dict[str, Any]:
    """Return the median seconds per step of each row, and its speed-up over the plain loop, JSON-ready."""
    rows = {
        "plain": make_step(ratio, torch.contiguous_format, averaged=False, **options),
        "trainer": make_step(ratio, torch.channels_last, averaged=True, **options),
        "compiled": make_step(ratio, torch.channels_last, averaged=True, compiled=True, **options),
        "window": make_step(ratio, torch.channels_last, averaged=True, window=WINDOW_PX, **options),
    }
    seconds = measure(rows, make_batches(ratio, batch, steps), rounds)
    faster = {
        name: statistics.median(plain / mine for plain, mine in zip(seconds["plain"], each, strict=True))
        for name, each in seconds.items()
    }
    return {
        "grid_ratio": ratio,
        "batch": batch,
        "window_px": WINDOW_PX,
        "rows": {
            name: {
                "seconds_per_step": statistics.median(each),
                "times_faster_than_plain": faster[name],
                "seconds_per_step_of_each_round": each,
            }
            for name, each in seconds.items()
        },
    }


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--ratio", type=int, default=3, help="sub-pixel grid ratio")
    result.add_argument("--batch", type=int, default=64, help="images per step")
    result.add_argument("--steps", type=int, default=3, help="steps of a row at a time")
    result.add_argument("--rounds", type=int, default=7)
    result.add_argument("--output", type=Path, default=RESULTS / "training_speed.json")
    return result


def main() -> int:
    options = parser().parse_args()
    try:
        for name in ("batch", "steps", "rounds"):
            if getattr(options, name) < 1:
                raise InputError(f"--{name} must be a whole number >= 1, got {getattr(options, name)}")
        check_ratio(options.ratio)
        check_writable(options.output, (".json",))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    result = compare(options.ratio, options.batch, options.steps, options.rounds)
    for name, row in result["rows"].items():
        print(f"{name:10}{row['seconds_per_step']:9.3f} s per step{row['times_faster_than_plain']:8.2f} x plain")
    write_json(result | {"machine": machine() | describe_machine()}, str(options.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
