"""Speed-up by a second worker process: `csist unmix --engine dask` on windows, with one worker and with two.

python benchmarks/bench_cluster.py [WINDOWS] [MODE]

The workers start and unmix a few windows before the clock starts, so that start-up is not measured. The table must be
identical, byte for byte, to that of one process without a cluster.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from common import write_result
from csist import ScenePrior, Sensor, sample_scenes
from csist.cli import main
from csist.cluster import local_cluster

WORKERS = (1, 2)


def make_windows(path: Path, count: int) -> None:
    prior, sensor = ScenePrior.csist_100k(), Sensor(read_noise=1.0)
    scenes = sample_scenes(prior, sensor, count, 11)
    np.save(path, np.stack([sensor.observe(scene, seed) for seed, scene in enumerate(scenes)]))


def seconds_of(table: Path, windows: Path, mode: str, *engine: str) -> float:
    start = time.perf_counter()
    code = main(["unmix", str(windows), "-o", str(table), "--prior", "csist-100k", "--mode", mode, *engine])
    if code:
        raise SystemExit(code)
    return time.perf_counter() - start


def compare(count: int, mode: str) -> dict[str, object]:
    """Return the seconds for each number of workers, and whether the tables are equal."""
    rows, tables = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few, many = folder / "few.npy", folder / "many.npy"
        make_windows(few, 300)
        make_windows(many, count)
        seconds_of(folder / "local.csv", many, mode)
        for workers in WORKERS:
            with local_cluster(workers) as cluster:
                engine = ("--engine", "dask", "--scheduler", cluster.scheduler_address)
                seconds_of(folder / "warm.csv", few, mode, *engine)
                table = folder / f"{workers}.csv"
                seconds = seconds_of(table, many, mode, *engine)
            rows.append({"workers": workers, "seconds": seconds, "windows_per_second": count / seconds})
            tables.append(table.read_bytes())
        same = all(table == (folder / "local.csv").read_bytes() for table in tables)
    return {"windows": count, "mode": mode, "rows": rows, "same_bytes_as_one_process": same}


if __name__ == "__main__":
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    write_result("cluster", compare(images, sys.argv[2] if len(sys.argv) > 2 else "accurate"))
