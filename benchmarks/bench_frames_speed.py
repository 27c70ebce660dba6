"""Speed on whole frames: 640 x 512 px with five close pairs on cloud-like clutter, `mode="fast"`.

    python benchmarks/bench_frames_speed.py [--frames 8] [--against PATH_TO_OTHER_SRC]

The benchmark measures the CPU time per frame, which is meaningful on a busy machine too. Frames are independent, so
that n cores process n times as many (`csist unmix --workers n`). With --against, the code of another checkout unmixes
the same frames in the same run, alternately, and the ratio is reported. On a machine with a high load average the
absolute times are too long; the ratio holds. Writes docs/results/frames_speed.json.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from common import write_result
from csist.frames import unmix_frame
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets

SHAPE, PAIRS, PSF, NOISE = (512, 640), 5, GaussianPSF(1.1), 2.0
PARTS = {
    "bad pixels": ("mask.py", "mask_pixels"),
    "background": ("background/estimate.py", "estimate_background"),
    "choice of the detector": ("detection/choose.py", "choose_detector"),
    "detection": ("detection/detect.py", "detect_peaks"),
    "unmixing": ("frames/solve.py", "_solve_blobs"),
}


def scene(seed: int) -> np.ndarray:
    """Simulate a frame with pairs 1.8 sigma apart, at least 40 px from each other."""
    rng = np.random.default_rng(seed)
    places: list[np.ndarray] = []
    while len(places) < PAIRS:
        place = rng.uniform(30.0, [SHAPE[1] - 30.0, SHAPE[0] - 30.0])
        if all(np.hypot(*(place - other)) > 40.0 for other in places):
            places.append(place)
    angle = rng.uniform(0.0, 2.0 * np.pi, PAIRS)
    half = 0.9 * PSF.sigma_px * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    x, y = np.concatenate([places + half, places - half]).T
    truth = Targets(x=x, y=y, intensity=rng.uniform(1000.0, 4000.0, 2 * PAIRS))
    clouds = ndimage.gaussian_filter(rng.normal(size=SHAPE), 25.0)
    clean = Sensor(PSF, shape=SHAPE, quantised=False).render(truth) + 300.0 + 30.0 * clouds / clouds.std()
    return np.asarray(clean + rng.normal(0.0, NOISE, SHAPE))


def cpu_seconds(frame: np.ndarray) -> float:
    started = time.process_time()
    unmix_frame(frame, psf=PSF, mode="fast", workers=1)
    return time.process_time() - started


def serve() -> None:
    """Time frames for another process, which sends their seeds line by line."""
    cpu_seconds(scene(0))
    print("ready", flush=True)
    for line in sys.stdin:
        print(cpu_seconds(scene(int(line))), flush=True)


def seconds_elsewhere(source: Path, seeds: Iterable[int]) -> Iterator[float]:
    """Yield `cpu_seconds` of each frame with the code of another checkout."""
    with subprocess.Popen(
        [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(source)},
    ) as process:  # fmt: skip
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("no pipes")
        process.stdout.readline()
        for seed in seeds:
            process.stdin.write(f"{seed}\n")
            process.stdin.flush()
            yield float(process.stdout.readline())
        process.stdin.close()


def profile(frame: np.ndarray) -> dict[str, float]:
    """Return the milliseconds of one frame by part; the unmixing runs in this thread to be profiled."""
    profiler = cProfile.Profile(time.process_time)
    profiler.runcall(unmix_frame, frame, psf=PSF, mode="fast", workers=1)
    stats: Any = pstats.Stats(profiler)
    return {
        part: 1e3 * sum(row[3] for key, row in stats.stats.items() if key[0].endswith(file) and key[2] == function)
        for part, (file, function) in PARTS.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--against", type=Path, help="src folder of another checkout")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    seeds = range(1, arguments.frames + 1)
    cpu_seconds(scene(0))  # compiles, fills caches
    if arguments.against is None:
        own, others = [cpu_seconds(scene(seed)) for seed in seeds], []
    else:
        elsewhere = seconds_elsewhere(arguments.against, seeds)
        own, others = (
            list(each) for each in zip(*((cpu_seconds(scene(k)), next(elsewhere)) for k in seeds), strict=True)
        )
    seconds = float(np.median(own))
    result: dict[str, Any] = {
        "frame_px": [SHAPE[1], SHAPE[0]],
        "groups": PAIRS,
        "frames": arguments.frames,
        "load_average": os.getloadavg()[0],
        "cpu_seconds_a_frame": seconds,
        "frames_a_second_a_core": 1.0 / seconds,
        "cpu_milliseconds_by_part": profile(scene(1)),
    }
    if others:
        result["cpu_seconds_a_frame_before"] = float(np.median(others))
        result["times_as_fast"] = float(np.median(np.array(others) / np.array(own)))
    write_result("frames_speed", json.loads(json.dumps(result, default=float)))


if __name__ == "__main__":
    main()
