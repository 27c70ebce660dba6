"""What a newcomer waits for, and whether the speed afterwards stays: compiling from nothing, and steady work.

    python benchmarks/bench_first_answer.py [--before REF] [--demo] [--tests] [--rounds N] [--output FILE]

The first answers come from fresh processes with empty caches: a window of CSIST-100K, a window of the flat prior, a
frame, and all three one after the other. The steady speed is that of warm processes on one thread; with `--before` that
of both versions is measured in turns, and the ratio is that of each turn. `--demo` and `--tests` time `make demo` and
`make test` in fresh clones. Processor seconds are what to compare on a machine that others use too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

from common import RESULTS, machine

ROOT = Path(__file__).resolve().parent.parent
CASES = ("window", "flat", "frame")
STEADY = {"accurate": 32, "fast": 512, "frame": 1}
"""What is timed in turns, and images a turn."""

PROGRAM = """
import gc, json, sys, time
from importlib.resources import files
wall, processor = time.perf_counter(), time.process_time()
import numpy as np
from PIL import Image
import csist
prior, sensor = csist.ScenePrior.csist_100k(), csist.Sensor(read_noise=1.0)
scenes = csist.sample_scenes(prior, sensor, 512, 3)
windows = np.stack([sensor.observe(scene, n) for n, scene in enumerate(scenes)])
frame = np.asarray(Image.open(str(files("csist") / "data" / "airplane_above_hills.png")).convert("L"))
work = {
    "window": lambda number: csist.unmix(windows[0], sensor, prior),
    "flat": lambda number: csist.unmix(windows[0], sensor),
    "frame": lambda number: csist.unmix(frame),
    "accurate": lambda number: csist.unmix(windows[:number], sensor, prior, noise_std=1.0, workers=1),
    "fast": lambda number: csist.unmix(windows[:number], sensor, prior, noise_std=1.0, mode="fast", workers=1),
}
def say(**answer):
    print(json.dumps(answer), flush=True)
say(wall=time.perf_counter() - wall, cpu=time.process_time() - processor)
for line in sys.stdin:
    name, number = line.split()
    if name == "signatures":
        from numba.core.dispatcher import Dispatcher
        kernels = [one for one in gc.get_objects() if isinstance(one, Dispatcher)]
        own = [len(one.signatures) for one in kernels if one.py_func.__module__.startswith("csist")]
        say(signatures=sum(own), most=max(own))
        continue
    wall, processor = time.perf_counter(), time.process_time()
    work[name](int(number))
    say(wall=time.perf_counter() - wall, cpu=time.process_time() - processor)
"""


class Worker:
    """A process with one version of the package, that does what it is told and says how long it took."""

    def __init__(self, source: Path, cache: Path) -> None:
        folders = {"CSIST_CACHE_DIR": str(cache), "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(source / "src")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=source,
            env=os.environ | folders | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        self._into, self._out = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        self.start = self._answer()

    def _answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._out.readline())
        return answer

    def do(self, name: str, number: int = 1) -> dict[str, Any]:
        """Seconds of wall clock and processor, or what else the name asks for."""
        self._into.write(f"{name} {number}\n")
        self._into.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._into.close()
        self._out.close()
        self._process.wait()


def program(name: str) -> str:
    """Path of an installed program.

    Raises:
        RuntimeError: if it is missing.
    """
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is not installed")
    return found


@contextmanager
def worktree(ref: str) -> Iterator[Path]:
    """A checkout of a git reference in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkout"
        subprocess.run(
            [program("git"), "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", str(path), ref], check=True
        )
        try:
            yield path
        finally:
            subprocess.run([program("git"), "-C", str(ROOT), "worktree", "remove", "--force", str(path)], check=True)


def first_answers(source: Path) -> dict[str, Any]:
    """Seconds until the first answer of each case alone and of all in turn, and the signatures compiled by then."""
    result: dict[str, Any] = {}
    for names in (*((name,) for name in CASES), CASES):
        with tempfile.TemporaryDirectory() as cache:
            worker = Worker(source, Path(cache))
            times = [worker.do(name) for name in names]
            if len(names) == 1:
                result[names[0]] = {key: worker.start[key] + times[0][key] for key in times[0]}
            else:
                steps = dict(zip(names, times, strict=True))
                total = {key: worker.start[key] + sum(one[key] for one in times) for key in times[0]}
                result["all"] = {"import": worker.start, **steps, "total": total}
                result |= worker.do("signatures")
            worker.close()
    return result


def steady_speed(sources: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Images a second of every version, measured in turns, and the ratio of the last to the first version's speed."""
    result: dict[str, Any] = {}
    with ExitStack() as stack:
        workers = {}
        for name, source in sources.items():
            workers[name] = Worker(source, Path(stack.enter_context(tempfile.TemporaryDirectory())))
            stack.callback(workers[name].close)
        for what, number in STEADY.items():
            for worker in workers.values():
                worker.do(what, number)  # compiles
            turns: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
            for turn in range(rounds):
                order = list(workers) if turn % 2 == 0 else list(workers)[::-1]
                for name in order:
                    turns[name].append(workers[name].do(what, number))
            result[what] = {
                name: {
                    "per_second_of_wall_clock": number / statistics.median(one["wall"] for one in times),
                    "per_second_of_processor": number / statistics.median(one["cpu"] for one in times),
                }
                for name, times in turns.items()
            }
            if len(turns) == 2:
                before, after = turns.values()
                ratios = [a["cpu"] / b["cpu"] for a, b in zip(before, after, strict=True)]
                result[what]["ratio"] = {"median": statistics.median(ratios), "each": ratios}
    return result


def timed_make(source: Path, target: str) -> float:
    """Seconds of a make target in a fresh clone with an environment and a cache of its own."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run([program("git"), "clone", "--quiet", "--no-hardlinks", str(source), str(clone)], check=True)
        variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        start = time.perf_counter()
        subprocess.run(
            [program("make"), "-C", str(clone), target, f"PYTHON={sys.executable}"],
            check=True,
            env=variables
            | {"CSIST_CACHE_DIR": str(Path(folder) / "cache"), "NUMBA_CACHE_DIR": str(Path(folder) / "cache")},
            stdout=sys.stderr,
        )
        return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--before", help="git reference of the version to compare with")
    parser.add_argument("--demo", action="store_true", help="time `make demo` in fresh clones")
    parser.add_argument("--tests", action="store_true", help="time `make test` in fresh clones")
    parser.add_argument("--rounds", type=int, default=7, help="turns of the steady speed")
    parser.add_argument("--output", type=Path, default=RESULTS / "first_answer.json")
    options = parser.parse_args()
    if options.rounds < 1:
        print(f"error: --rounds must be a whole number >= 1, got {options.rounds}", file=sys.stderr)
        return 2
    with ExitStack() as stack:
        sources = {"after": ROOT}
        if options.before:
            sources = {"before": stack.enter_context(worktree(options.before)), "after": ROOT}
        result: dict[str, Any] = {"before": options.before, "first_answer": {}}
        for name, source in sources.items():
            result["first_answer"][name] = first_answers(source)
        result["steady"] = steady_speed(sources, options.rounds)
        for target, wanted in (("demo", options.demo), ("test", options.tests)):
            if wanted:
                result[f"make_{target}"] = {name: timed_make(source, target) for name, source in sources.items()}
    text = json.dumps(result | {"machine": machine()}, indent=2) + "\n"
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
