"""Distribution of work over a Dask cluster: a connection, and tasks submitted ahead with results in order.

Dask schedules the tasks, monitors the workers and reassigns the tasks of a worker that died. The result does not
depend on this, because a task is a pure function of a few small arguments.
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
"""Timeout in seconds for the scheduler to answer, and then for its first worker."""

PATIENCE_S = 60.0
"""Seconds without a result after which the cluster is checked for remaining workers."""

TASKS_PER_THREAD = 2
"""Tasks in flight per worker thread: one that runs and one that waits, so that no worker idles."""

LOST = "the connection to the Dask scheduler is lost"


class ClusterError(ConnectionError):
    """Failure of the cluster, independent of the task; the message is a single line that can be shown as it is."""


@dataclass(frozen=True)
class Task:
    """Call to run on a worker: a module-level function that the workers can import, and its arguments."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Answer:
    """Result of a submitted task."""

    client: Client
    future: Future[Any]

    def result(self) -> Any:
        """Wait for the task and return its result; exceptions of the task are re-raised.

        Raises:
            InputError: if every worker that ran the task died.
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
                    if self.future.status == "error":  # a TimeoutError raised by the task itself
                        raise
                    if not _threads(self.client):
                        raise ClusterError(
                            "the cluster has no workers left: start some and run the command again"
                        ) from None
        except KilledWorker as error:
            raise InputError(
                f"{error.allowed_failures + 1} workers died on the same task: "
                "it may need more memory than a worker is allowed"
            ) from error
        except (CommClosedError, CancelledError) as error:
            raise ClusterError(LOST) from error


def _threads(client: Client) -> int:
    """Return the total number of threads of all workers.

    Raises:
        ClusterError: if the scheduler does not answer.
    """
    try:
        return sum(client.nthreads().values())
    except OSError as error:
        raise ClusterError(LOST) from error


@contextmanager
def connected(address: str | None = None, workers: int | None = None) -> Iterator[Client]:
    """Connect to a cluster and check its workers.

    Args:
        address: address of the scheduler, tcp://HOST:PORT; None starts processes on this machine and ends them
            afterwards.
        workers: number of local processes with one thread each; None for one per core.

    Raises:
        InputError: if the extra `cluster` is not installed.
        ClusterError: if no scheduler answers, it has no worker, or the csist or Python version of a worker differs.
    """
    try:
        import distributed
    except ImportError as error:
        raise InputError("a Dask cluster needs the extra `cluster`: pip install 'csist[cluster]'") from error
    with ExitStack() as ends, _quiet():
        cluster: Any = address
        timeout = CONNECT_S
        if address is None:
            timeout = PATIENCE_S
            cluster = ends.enter_context(local_cluster(workers or os.cpu_count() or 1))
        try:
            with warnings.catch_warnings():
                # Dask warns about every package whose version differs; the relevant ones are checked below.
                warnings.simplefilter("ignore", distributed.versions.VersionMismatchWarning)
                client = ends.enter_context(distributed.Client(cluster, timeout=timeout, set_as_default=False))
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
    """Start single-threaded worker processes on this machine, not reachable from outside it.

    A terminal sends Ctrl-C to every process of the group. The workers ignore it, because only this process knows which
    results to save.
    """
    from distributed import LocalCluster

    # The thread that starts and restarts the workers is created here and inherits the signal mask.
    with _without_interrupts(), warnings.catch_warnings():
        # A busy disk is no news to a user.
        warnings.filterwarnings("ignore", message="Creating scratch directories")
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            # Dask opens its metrics port even without a dashboard; port 0 avoids the fixed default.
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            silence_logs=logging.CRITICAL,
        )


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Defer Ctrl-C to the end of this context; threads and processes started in it never receive it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # if it started with the first worker, it would unblock SIGINT again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Dask's log messages about workers that join or leave; relevant failures are raised."""
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
    """Check that the workers run the csist and Python versions of this process.

    Raises:
        ClusterError: if a worker has another version: its results could differ, or it could not unpickle its tasks.
    """
    found: Any = client.get_versions(packages=["csist"])
    here = found["client"]["packages"]["csist"]
    for address, versions in found["workers"].items():
        there = versions["packages"]["csist"]
        if there != here:
            stated = "no csist" if there is None else f"csist {there}"
            raise ClusterError(f"the worker {address} has {stated}, this is csist {here}: install the same on both")
        version = ".".join(versions["host"]["python"].split(".")[:2])
        if version != ".".join(platform.python_version_tuple()[:2]):
            raise ClusterError(
                f"the worker {address} has Python {version}, this is {platform.python_version()}: "
                "use the same version on both"
            )


def submit_ahead(client: Client, steps: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """Submit the tasks among `steps`, (label, value), and yield all steps in order, each `Task` as its `Answer`.

    Tasks are submitted ahead, but no more than keep the workers busy; further steps are not requested before that.

    Raises:
        ClusterError: if the scheduler is gone.
    """
    waiting: deque[tuple[Any, Any]] = deque()
    most = TASKS_PER_THREAD
    for label, value in steps:
        if isinstance(value, Task):
            # Not pure in Dask's sense: the file at a path may have changed by the next run.
            waiting.append((label, Answer(client, client.submit(value.function, *value.arguments, pure=False))))
            most = max(TASKS_PER_THREAD * _threads(client), 1)
        else:
            waiting.append((label, value))
        while len(waiting) > most:
            yield waiting.popleft()
    yield from waiting


def starmap(client: Client, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    """Yield the results of the function for each tuple of arguments, in order, as `itertools.starmap` does.

    Raises:
        ClusterError: if the scheduler or the last worker is gone.
    """
    tasks = ((None, Task(function, each)) for each in arguments)
    return (answer.result() for _, answer in submit_ahead(client, tasks))
