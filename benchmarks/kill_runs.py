"""Runs killed at random moments: the file that a run would replace is whole, old or new, and nothing is left behind.

    python benchmarks/kill_runs.py --kills 150 --json docs/results/kills.json

Each command is run once to its end and then killed with SIGKILL again and again: half of the times at a moment drawn
from its whole length, half of the times soon after it began to write. After each kill its output must have the bytes
of before or those of a complete run. One run to the end after the last kill must leave nothing but the output.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import machine
from csist import GaussianPSF, Sensor, Targets

OLD = b"the output of an earlier run"
WRITING_SECONDS = 0.05
"""Longest time between the first trace of the output and the kill, in half of the kills."""


class Command(NamedTuple):
    """Arguments of csist, the name of the output among them, and whether the output replaces an older one."""

    arguments: list[str]
    output: str
    replaces: bool = True


COMMANDS = {
    "generate": Command(["generate", "store.h5", "--count", "8000"], "store.h5"),
    "convert to a folder": Command(["convert", "../small.h5", "folder"], "folder", replaces=False),
    "convert to a store": Command(["convert", "../grokcso", "store.h5"], "store.h5"),
    "unmix windows": Command(["unmix", "../small.h5", "-o", "targets.csv"], "targets.csv"),
    "unmix a sequence": Command(
        ["unmix", "../frames.npy", "--sequence", "--psf-sigma", "1.0", "-o", "targets.parquet"], "targets.parquet"
    ),
}


def make_inputs(folder: Path) -> None:
    """Write a store, the same as a folder of pictures, and a sequence of frames."""
    run(["generate", "small.h5", "--count", "300"], folder)
    run(["convert", "small.h5", "grokcso"], folder)
    rng = np.random.default_rng(0)
    sensor = Sensor(psf=GaussianPSF(1.0), shape=(96, 96), background=100.0, read_noise=3.0, quantised=False)
    frames = [
        sensor.observe(Targets(x=[20.0 + at, 60.0], y=[30.0, 50.0 + at], intensity=[2000.0, 3000.0]), rng)
        for at in range(20)
    ]
    np.save(folder / "frames.npy", np.stack(frames))


def start(arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start csist in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "csist", *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def run(arguments: list[str], folder: Path) -> float:
    """Run csist to its end; return the seconds that it took."""
    began = time.perf_counter()
    process = start(arguments, folder)
    _, complaint = process.communicate()
    if process.returncode:
        raise SystemExit(f"csist {' '.join(arguments)} failed: {complaint.decode()}")
    return time.perf_counter() - began


def content(path: Path) -> dict[str, bytes]:
    """Bytes of a file, or of all files of a folder by name; empty where there is neither."""
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    return {str(each.relative_to(path)): each.read_bytes() for each in files if each.exists()}


def kill(command: Command, folder: Path, wait: Callable[[], None]) -> bool:
    """Start a run, kill it after the wait; return whether it was still running."""
    process = start(command.arguments, folder)
    wait()
    alive = process.poll() is None
    process.kill()
    process.communicate()
    return alive


def killed(command: Command, folder: Path, kills: int, rng: np.random.Generator) -> dict[str, float]:
    """Kill a command so often; count what was found at the place of its output after each kill."""
    output = folder / command.output
    seconds = run(command.arguments, folder)
    complete = content(output)
    outcomes: Counter[str] = Counter({"killed": 0, "old": 0, "complete": 0, "damaged": 0})

    def at_any_time() -> None:
        time.sleep(rng.uniform(0.0, seconds))

    def while_writing() -> None:
        until = time.perf_counter() + 2.0 * seconds
        known = {each.name for each in folder.iterdir()}
        while time.perf_counter() < until and {each.name for each in folder.iterdir()} <= known:
            time.sleep(0.001)
        time.sleep(rng.uniform(0.0, WRITING_SECONDS))

    for number in range(kills):
        if output.is_dir():
            output.rename(folder.parent / f"moved {number}")
        if command.replaces:
            output.write_bytes(OLD)
        before = content(output)
        outcomes["killed"] += kill(command, folder, while_writing if number % 2 else at_any_time)
        after = content(output)
        outcomes["old" if after == before else "complete" if after == complete else "damaged"] += 1
    left = len(list(folder.iterdir())) - output.exists()
    if output.is_dir():
        output.rename(folder.parent / "moved last")
    run(command.arguments, folder)
    outcomes["damaged"] += content(output) != complete
    return dict(outcomes) | {
        "partial_files_before_the_last_run": left,
        "partial_files_after_it": len(list(folder.iterdir())) - 1,
        "seconds_of_a_run": round(seconds, 2),
    }


def main() -> None:
    """Kill runs of every command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=150, help="altogether")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the counts")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_inputs(Path(folder))
        for name, command in COMMANDS.items():
            own = Path(folder) / name
            own.mkdir()
            (own / "work").mkdir()
            # Inputs are named from the folder above.
            for each in ("small.h5", "grokcso", "frames.npy"):
                (own / each).symlink_to(Path(folder) / each)
            found[name] = killed(command, own / "work", -(-options.kills // len(COMMANDS)), rng)
            print(name, found[name], flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps({"runs": found, "machine": machine()}, indent=2) + "\n")
    bad = sum(each["damaged"] + each["partial_files_after_it"] for each in found.values())
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
