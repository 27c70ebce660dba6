"""Work spread over a Dask cluster: a connection, and tasks begun ahead whose results come back in order.

Dask places the tasks, watches the workers and gives a task whose worker died to another one. That changes nothing
in the result, because a task is a pure function of its few small arguments.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from csist.checks import InputError

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster

CONNECT_S = 5.0
"""Seconds that a scheduler has to answer, and then to have a worker."""

PATIENCE_S = 60.0
"""Seconds without a result after which it is looked whether there is any worker left."""

TASKS_A_THREAD = 2
"""Tasks in flight for each thread of the workers: one that runs, one that waits, so that no worker idles."""

LOST = "the connection to the Dask scheduler is lost"


class ClusterError(ConnectionError):
    """The cluster cannot do the work, whatever the task; the message is one line fit to be shown as it is."""


@dataclass(frozen=True)
class Task:
    """A call to be made on a worker: a function of a module that the workers have too, and its arguments."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Answer:
    """What a task that has begun will return."""

    client: Client
    future: Future[Any]

    def result(self) -> Any:
        """What the task returned; waits for it, and raises what the task raised.

        Raises:
            InputError: if every worker that took the task died of it.
            ClusterError: if the scheduler or the last worker is gone.
        """
        from distributed import CancelledError
        from distributed.comm.core import CommClosedError
        from distributed.scheduler import KilledWorker

        try:
            while True:
                try:
                    return self.future.result(timeout=PATIENCE_S)
                except TimeoutError:
                    if self.future.status == "error":  # the task's own
                        raise
                    if not _threads(self.client):
                        raise ClusterError("no worker is left in the cluster: start some and run it again") from None
        except KilledWorker as error:
            raise InputError(
                f"{error.allowed_failures + 1} workers died while they had the same part: "
                "it may need more memory than a worker may take"
            ) from error
        except (CommClosedError, CancelledError) as error:
            raise ClusterError(LOST) from error


def _threads(client: Client) -> int:
    """Threads of all workers together.

    Raises:
        ClusterError: if the scheduler does not answer.
    """
    try:
        return sum(client.nthreads().values())
    except OSError as error:
        raise ClusterError(LOST) from error


@contextmanager
def connected(address: str | None = None, workers: int | None = None) -> Iterator[Client]:
    """A connection to a cluster whose workers can do the work.

    Args:
        address: of the scheduler, tcp://HOST:PORT; None starts processes on this machine and ends them afterwards.
        workers: number of these, of one thread each; None for one a core.

    Raises:
        InputError: if the extra `cluster` is not installed.
        ClusterError: if no scheduler answers, it has no worker, or a worker has another csist or Python.
    """
    try:
        import distributed
    except ImportError as error:
        raise InputError("a Dask cluster needs the extra `cluster`: pip install 'csist[cluster]'") from error
    with ExitStack() as ends, _quiet():
        place: Any = address
        timeout = CONNECT_S
        if address is None:
            timeout = PATIENCE_S
            place = ends.enter_context(local_cluster(workers or os.cpu_count() or 1))
        try:
            with warnings.catch_warnings():
                # Of every package that differs; those that matter are checked below.
                warnings.simplefilter("ignore", distributed.versions.VersionMismatchWarning)
                client = ends.enter_context(distributed.Client(place, timeout=timeout, set_as_default=False))
            client.wait_for_workers(1, timeout=timeout)
        except TimeoutError as error:
            raise ClusterError(
                f"the Dask scheduler at {address} has no worker: start some with `dask worker {address}`"
            ) from error
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"no Dask scheduler answers at {address}: start one with `dask scheduler`, "
                "and give its address as tcp://HOST:PORT"
            ) from error
        _check_workers(client)
        yield client


def local_cluster(workers: int) -> LocalCluster:
    """A cluster of processes on this machine, of one thread each; nothing outside the machine can reach it.

    Ctrl-C of a terminal goes to every process in it, but only this one knows what is to be kept.
    """
    from distributed import LocalCluster

    # The thread that starts the workers, and restarts them, is made here and inherits what is blocked.
    with _without_interrupts():
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            # Dask opens its port for figures even without a dashboard, otherwise at one fixed number.
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            silence_logs=logging.CRITICAL,
        )


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C waits for the end of this context; threads and processes that are started in it never get it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # started with the first worker, it would let Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _quiet() -> Iterator[None]:
    """No log lines of Dask: a worker that comes or goes is its business, what matters is raised."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _check_workers(client: Client) -> None:
    """Check that the workers' csist and Python are those of this process.

    Raises:
        ClusterError: if a worker has others: it would compute other bytes, or not understand its tasks.
    """
    found: Any = client.get_versions(packages=["csist"])
    here = found["client"]["packages"]["csist"]
    for address, said in found["workers"].items():
        there = said["packages"]["csist"]
        if there != here:
            stated = "no csist" if there is None else f"csist {there}"
            raise ClusterError(f"the worker {address} has {stated}, this is csist {here}: install the same on both")
        version = ".".join(said["host"]["python"].split(".")[:2])
        if version != ".".join(platform.python_version_tuple()[:2]):
            raise ClusterError(
                f"the worker {address} has Python {version}, this is {platform.python_version()}: "
                "use the same version on both"
            )


def begun(client: Client, steps: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """The steps, (label, what), in order; where that is a `Task`, the `Answer` of its call, which has begun before.

    Only so many tasks are in flight as keep the workers busy, and no further step is asked for before.

    Raises:
        ClusterError: if the scheduler is gone.
    """
    waiting: deque[tuple[Any, Any]] = deque()
    most = TASKS_A_THREAD
    for label, what in steps:
        if isinstance(what, Task):
            # Not pure in Dask's sense: the file behind a path may be another one in the next run.
            waiting.append((label, Answer(client, client.submit(what.function, *what.arguments, pure=False))))
            most = max(TASKS_A_THREAD * _threads(client), 1)
        else:
            waiting.append((label, what))
        while len(waiting) > most:
            yield waiting.popleft()
    yield from waiting


def starmap(client: Client, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    """As `itertools.starmap`: what the function returns for each tuple of arguments, in order.

    Raises:
        ClusterError: if the scheduler or the last worker is gone.
    """
    tasks = ((None, Task(function, each)) for each in arguments)
    return (answer.result() for _, answer in begun(client, tasks))
