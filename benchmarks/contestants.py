"""The methods of `bench_methods.py` and how each is run at its fastest on the same images.

Of a method on the sub-pixel grid only the way to its maps is timed, not the read-out: this favours it. The others are
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
"""What a network's fact `weights` says where it was not trained; its detections mean nothing then."""

LOOKED_AT = 256
"""Images from which the mean number of ISTA's iterations is taken."""


@dataclass(frozen=True)
class Conditions:
    """What all methods share.

    Args:
        threads: threads or processes that a method may use.
        ratio: sub-pixel grid ratio.
        weights: weight file of DISTA-Net; None for those of the package, or random ones where it has none.
    """

    threads: int
    ratio: int
    weights: Path | None = None


@dataclass(frozen=True)
class Runner:
    """A method that is built.

    Args:
        run: the timed part, from images (N, H, W) in counts.
        read_out: what `run` gives as one `Targets` per image.
        warm_up: images of the first call, which compiles and makes threads.
        facts: what else is to be recorded, JSON-ready; called after the timing.
    """

    run: Callable[[FloatArray], Any]
    read_out: Callable[[Any], list[Targets]]
    warm_up: int
    facts: Callable[[], dict[str, Any]] = dict


@dataclass(frozen=True)
class Contestant:
    """A method of the comparison.

    Args:
        prepare: builds it.
        summary: what is run, in one line.
        slow: whether it sees the first images only.
        processes: whether it runs in several processes, each with one thread.
        dista_net: whether it is a form of DISTA-Net, the fastest of which the others are compared with.
    """

    prepare: Callable[[LabelledImages, Conditions], Runner]
    summary: str
    slow: bool = False
    processes: bool = False
    dista_net: bool = False


def continuous(data: LabelledImages, conditions: Conditions, mode: str) -> Runner:
    """`continuous` with what is known of the data, as `csist evaluate` runs it."""
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
    """DISTA-Net's forward pass, channels last and without gradient."""
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
        # One graph for the batches and one for the rest of the images: graphs of any size are slower.
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
    """ISTA in its tuned setting."""
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
    """Multiply-adds for an image of a separable G: the linear start, then G and G^T in each iteration."""
    rows, columns = shape
    start = (rows * columns * ratio) ** 2
    one_way = rows * (ratio * rows) * (ratio * columns) + rows * (ratio * columns) * columns
    return start + 2.0 * iterations * one_way


def _decode(grid: Any, maps: FloatArray) -> list[Targets]:
    return [grid.decode(cells) for cells in maps]


def peer(data: LabelledImages, conditions: Conditions, name: str) -> Runner:
    """A rival of `peers.py`, one process a thread."""
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
