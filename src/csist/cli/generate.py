"""`csist generate`: generate a dataset from a prior, a sensor and a seed."""

from __future__ import annotations

import itertools
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csist import cluster
from csist.checks import InputError
from csist.cli.engine import EngineOption, SchedulerOption, cluster_client
from csist.cli.options import PriorOption, SensorOption, read_sensor
from csist.cli.output import progress, report_written

if TYPE_CHECKING:
    from csist.physics.sensor import Sensor


def generate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Store to write (.h5), or folder for the layout grokcso.")],
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            help="Number of images (80 % train, 10 % val, 10 % test); with --sequence, of trajectories (70, 15, 15 %).",
            show_default="100000, with --sequence 5000",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Random seed; the same seed gives the same bytes.")] = 0,
    noise_std: Annotated[float | None, typer.Option("--noise-std", help="Read noise in counts.")] = None,
    bits: Annotated[
        str | None, typer.Option("--bits", help="Bits per pixel: 8, 16, 32 or float.", show_default="16")
    ] = None,
    clip: Annotated[
        bool, typer.Option("--clip", help="Clip values that exceed the bit depth instead of refusing them.")
    ] = False,
    layout: Annotated[str, typer.Option("--layout", help="store or grokcso (PNG and XML).")] = "store",
    sequence: Annotated[
        bool, typer.Option("--sequence", help="Sequences of 20 frames of groups of 2 to 4 targets that move together.")
    ] = False,
    prior: PriorOption = None,
    sensor: SensorOption = None,
    engine: EngineOption = "local",
    scheduler: SchedulerOption = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Processes, with --engine dask.")] = None,
) -> None:
    """Generate a dataset; the default is the benchmark CSIST-100K.

    With --sequence its images are the frames of trajectories: 20 frames in which a group of 2 to 4 targets moves along
    straight, nearly parallel paths.
    """
    from csist.datasets import generate as make
    from csist.datasets import load, split_sizes
    from csist.io.cards import read_prior

    if engine == "local" and workers is not None:
        raise InputError(f"--workers {workers} is for a cluster: add --engine dask, or leave it out")
    card = None if sensor is None else read_sensor(sensor)[0]
    if sequence:
        _check_sequence(engine, layout, prior)
        _generate_sequences(
            out, 5000 if count is None else count, seed, card, bits=bits, clip=clip, noise_std=noise_std
        )
        return
    count = 100_000 if count is None else count
    scene_prior = read_prior(prior or "csist-100k")
    started = time.perf_counter()
    with cluster_client(engine, scheduler, workers) as client, progress() as report:
        path = make(
            out, count, seed, sensor=card, prior=scene_prior, bits=bits, clip=clip, noise_std=noise_std, layout=layout,
            progress=lambda done, total: report("generating", done, total),
            starmap=itertools.starmap if client is None else partial(cluster.starmap, client),
        )  # fmt: skip
    sizes = load(path).splits if layout == "store" else split_sizes(count)
    report_written(path, sizes, time.perf_counter() - started)


def _check_sequence(engine: str, layout: str, prior: str | None) -> None:
    """Check that the other options are compatible with --sequence.

    Raises:
        InputError: if one is not.
    """
    for given, option in ((engine != "local", f"--engine {engine}"), (layout != "store", f"--layout {layout}"),
                          (prior is not None, f"--prior {prior}")):  # fmt: skip
        if given:
            raise InputError(f"{option} is not for sequences: leave it out, or leave out --sequence")


def _generate_sequences(out: Path, count: int, seed: int, sensor: Sensor | None, **options: Any) -> None:
    from csist.datasets import generate_sequences, load

    started = time.perf_counter()
    with progress() as report:
        path = generate_sequences(
            out, count, seed, sensor=sensor, progress=lambda done, total: report("generating", done, total), **options
        )
    report_written(path, load(path).splits, time.perf_counter() - started)
