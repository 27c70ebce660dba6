"""Options that select where the work runs: in this process or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from csist.checks import InputError, check_workers

if TYPE_CHECKING:
    from distributed import Client

ENGINES = ("local", "dask")

EngineOption = Annotated[str, typer.Option("--engine", help="Where the work runs: local, or dask for a cluster.")]
SchedulerOption = Annotated[
    str | None,
    typer.Option("--scheduler", help="Dask scheduler, tcp://HOST:PORT.", show_default="processes on this machine"),
]


@contextmanager
def cluster_client(engine: str, scheduler: str | None, workers: int | None) -> Iterator[Client | None]:
    """Connect to the cluster selected by the options; yields None if the work runs in this process.

    Args:
        engine: one of `ENGINES`.
        scheduler: address of a cluster; None for a temporary one on this machine.
        workers: number of processes of the temporary cluster; None for one per core.

    Raises:
        InputError: if the options are out of range or contradict each other.
        ClusterError: if the cluster cannot be used.
    """
    if engine not in ENGINES:
        raise InputError(f"engine must be {' or '.join(ENGINES)}, got {engine!r}")
    check_workers(workers)
    if engine == "local":
        if scheduler is not None:
            raise InputError(f"--scheduler {scheduler} is for a cluster: add --engine dask, or leave it out")
        yield None
        return
    if scheduler is not None and workers is not None:
        raise InputError(f"the cluster at {scheduler} has its own workers: leave out --workers {workers}")
    from csist.cluster import connected

    with connected(scheduler, workers) as client:
        yield client
