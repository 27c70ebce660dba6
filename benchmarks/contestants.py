"""Methods of `bench_methods.py`, each run in its fastest configuration on the same images.

Methods on the sub-pixel grid are timed up to their maps, without the read-out, which favours them. Other methods are
timed from images to targets.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csist.checks import InputError
from csist.evaluation import LabelledImages
from csist.targets import Targets

FloatArray = NDArray[np.float64]

NO_WEIGHTS = "random"
"""Value of the fact `weights` of an untrained network, whose detections are meaningless."""

LOOKED_AT = 256
"""Number of images over which the iterations of ISTA are averaged."""


@dataclass(frozen=True)
class Conditions:
    """Conditions common to all methods.

    Args:
        threads: number of threads or processes that a method may use.
        ratio: sub-pixel grid ratio.
        weights: weight file of DISTA-Net; None for those of the package, or random ones if it has none.
    """

    threads: int
    ratio: int
    weights: Path | None = None


@dataclass(frozen=True)
class Runner:
    """Method ready to be timed.

    Args:
        run: timed function of images (N, H, W) in counts.
        read_out: function that converts the result of `run` to one `Targets` per image.
        warm_up: number of images of the first call, which compiles code and starts threads.
        facts: function that returns further figures, JSON-ready; called after the timing.
    """

    run: Callable[[FloatArray], Any]
    read_out: Callable[[Any], list[Targets]]
    warm_up: int
    facts: Callable[[], dict[str, Any]] = dict


@dataclass(frozen=True)
class Contestant:
    """Method of the comparison.

    Args:
        prepare: function that builds the method.
        summary: description in one line.
        slow: whether it runs on the first images only.
        processes: whether it runs in several processes with one thread each.
        dista_net: whether it is a variant of DISTA-Net; the fastest variant is the reference of the speed ratios.
    """

    prepare: Callable[[LabelledImages, Conditions], Runner]
    summary: str
    slow: bool = False
    processes: bool = False
    dista_net: bool = False


def continuous(data: LabelledImages, conditions: Conditions, mode: str) -> Runner:
    """Prepare `continuous` with the sensor, noise and prior of the data, as `csist evaluate` does."""
    from csist.create import create_method

    method = create_method(
        "continuous",
        data.sensor,
        prior=data.prior,
        noise_std=data.sensor.read_noise,
        mode=mode,
        workers=conditions.threads,
    )
    return Runner(method.predict, list, warm_up=64)


def dista_net(
    data: LabelledImages, conditions: Conditions, batch: int, bfloat16: bool = False, compiled: bool = False
) -> Runner:
    """Prepare the forward pass of DISTA-Net, channels last and without gradient."""
    import torch

    from csist.create import create_method

    torch.set_num_threads(conditions.threads)
    weights = "trained"
    try:
        method = create_method("dista-net", data.sensor, conditions.ratio, conditions.weights)
    except InputError:
        if conditions.weights is not None:
            raise
        weights = NO_WEIGHTS
        torch.manual_seed(0)
        method = create_method("dista-net", data.sensor, conditions.ratio, pretrained=False)
    method.eval()
    method.batch_size = batch
    if compiled:
        # One graph for full batches and one for the last batch: graphs with a dynamic batch size are slower.
        method.compile(dynamic=False)

    def precision() -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext()

    def run(images: FloatArray) -> FloatArray:
        with precision():
            maps: FloatArray = method.predict_maps(images)
        return maps

    def facts() -> dict[str, Any]:
        from csist.methods.cost import costs

        counted = costs(method, data.sensor.shape)
        return {"weights": weights, **counted, "multiply_adds_source": "torch.utils.flop_counter / 2"}

    read_out = partial(_decode, method.grid)
    return Runner(run, read_out, batch + len(data) % batch, facts)


def ista(data: LabelledImages, conditions: Conditions) -> Runner:
    """Prepare ISTA in its tuned setting."""
    import torch

    from csist.create import create_method

    torch.set_num_threads(conditions.threads)
    method = create_method("ista", data.sensor, conditions.ratio)

    def facts() -> dict[str, Any]:
        images = torch.from_numpy(np.array(data.images[:LOOKED_AT, None]))
        iterations = float(method.minimise(images).iterations.double().mean())
        return {
            "iterations": iterations,
            "multiply_adds_per_image": ista_multiply_adds(data.sensor.shape, conditions.ratio, iterations),
            "multiply_adds_source": f"estimate: separable G, mean iterations of the first {len(images)} images",
        }

    return Runner(method.predict_maps, partial(_decode, method.grid), 256, facts)


def ista_multiply_adds(shape: tuple[int, int], ratio: int, iterations: float) -> float:
    """Return the multiply-adds per image for a separable G: the linear start, then G and G^T in each iteration."""
    rows, columns = shape
    start = (rows * columns * ratio) ** 2
    one_way = rows * (ratio * rows) * (ratio * columns) + rows * (ratio * columns) * columns
    return start + 2.0 * iterations * one_way


def _decode(grid: Any, maps: FloatArray) -> list[Targets]:
    return [grid.decode(cells) for cells in maps]


def peer(data: LabelledImages, conditions: Conditions, name: str) -> Runner:
    """Prepare a peer of `peers.py` with one process per thread."""
    from peers import ParallelPeer

    pool = ParallelPeer(name, data.sensor, data.prior, conditions.threads, data.images[0])
    return Runner(pool.predict, list, warm_up=1)


CONTESTANTS: dict[str, Contestant] = {
    "continuous, fast": Contestant(partial(continuous, mode="fast"), "images to targets"),
    "continuous, accurate": Contestant(partial(continuous, mode="accurate"), "images to targets"),
    "dista-net, batch 32": Contestant(
        partial(dista_net, batch=32), "forward pass, float32, channels last", dista_net=True
    ),
    "dista-net, batch 64": Contestant(
        partial(dista_net, batch=64), "forward pass, float32, channels last", dista_net=True
    ),
    "dista-net, batch 256": Contestant(
        partial(dista_net, batch=256), "forward pass, float32, channels last", dista_net=True
    ),
    "dista-net, bfloat16": Contestant(
        partial(dista_net, batch=32, bfloat16=True),
        "forward pass, batch 32, bfloat16 autocast, channels last",
        dista_net=True,
    ),
    "dista-net, compiled": Contestant(
        partial(dista_net, batch=32, compiled=True),
        "forward pass, batch 32, float32, channels last, torch.compile",
        dista_net=True,
    ),
    "ista": Contestant(ista, "tuned setting, float64"),
    "photutils": Contestant(
        partial(peer, name="photutils"),
        "IterativePSFPhotometry, pixel-integrated Gaussian, DAOStarFinder",
        slow=True,
        processes=True,
    ),
    "scipy": Contestant(
        partial(peer, name="scipy"),
        "multi-start least_squares, bounds and Jacobian, count by BIC",
        slow=True,
        processes=True,
    ),
}
