"""Time and memory of dataset generation and of the metric, and reproducibility of the dataset to the byte.

python benchmarks/bench_core.py [COUNT]
"""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from common import write_result
from csist import ScenePrior, Sensor, Targets, sample_scenes
from csist.metrics import cso_map

GENERATE = """
import sys, time, resource
from csist.datasets import generate
start = time.perf_counter()
generate(sys.argv[1], count=int(sys.argv[2]), seed=0)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def digest(path: Path) -> str:
    """Return a hash of all arrays in a store."""
    import h5py

    total = hashlib.sha256()
    with h5py.File(path) as store:
        for split in ("train", "val", "test"):
            for name in ("image", "targets", "count"):
                total.update(np.ascontiguousarray(store[split][name][:]).tobytes())
    return total.hexdigest()


def generation(count: int) -> dict[str, object]:
    """Return seconds, peak memory and equality of two runs with different thread counts, in separate processes."""
    rows, hashes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for threads in ("1", "2"):
            path = Path(folder) / f"{threads}.h5"
            environment = os.environ | {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads}
            done = subprocess.run(
                [sys.executable, "-c", GENERATE, str(path), str(count)],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            rows.append([float(value) for value in done.stdout.split()])
            hashes.append(digest(path))
    return {
        "images": count,
        "seconds": max(row[0] for row in rows),
        "peak_memory_mib": max(row[1] for row in rows),
        "same_bytes_with_another_thread_count": hashes[0] == hashes[1],
    }


def metric() -> dict[str, float]:
    """Return the seconds for CSO-mAP of 10,000 images at all five distances."""
    truth = sample_scenes(ScenePrior.csist_100k(), Sensor(), 10_000, 1)
    rng = np.random.default_rng(2)
    found = [
        Targets(
            x=t.x + rng.normal(0, 0.1, len(t)), y=t.y + rng.normal(0, 0.1, len(t)), intensity=t.intensity, score=t.score
        )
        for t in truth
    ]
    times = []
    for _ in range(3):
        start = time.perf_counter()
        cso_map(found, truth)
        times.append(time.perf_counter() - start)
    return {"images": len(truth), "detections": sum(map(len, found)), "seconds": min(times)}


if __name__ == "__main__":
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    write_result(
        "core",
        {
            "generate": generation(images),
            "cso_map": metric(),
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        },
    )
