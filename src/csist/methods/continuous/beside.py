"""A second process that compiles a sampler while this one compiles and runs the search.

It saves time only, in the first process of a new installation: where it fails or cannot be started, this process
compiles the sampler itself.
"""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
import sys
import threading

from csist._compiled import cache_folder, is_cache_new

logger = logging.getLogger(__name__)

LONGEST_WAIT_S = 600.0
"""After this time the process is taken to hang."""

_lock = threading.Lock()
_processes: list[subprocess.Popen[bytes]] = []


def start(task: str) -> None:
    """Start the program `ahead` with this task if nothing was compiled before and there is a core for it; once."""
    with _lock:
        folder = cache_folder()
        if _processes or folder is None or not is_cache_new() or usable_cores() < 2:
            return
        environment = os.environ | {"CSIST_CACHE_DIR": str(folder.parent), "PYTHONPATH": os.pathsep.join(sys.path)}
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "csist.methods.continuous.ahead"],
                env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            _processes.append(process)
            atexit.register(process.kill)
            if process.stdin is not None:
                with process.stdin as stream:
                    stream.write(task.encode())
        except OSError as error:
            logger.debug("no second process to compile in: %s", error)


def wait() -> None:
    """Return when the second process, if there is one, has ended."""
    with _lock:
        for process in _processes:
            try:
                process.wait(LONGEST_WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
