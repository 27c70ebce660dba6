"""Whole frames of a camera that shakes, solved together: targets found, errors of their positions, joint posteriors.

    python benchmarks/bench_shake.py [--scenes 8] [--mode fast]

Each scene has pairs 1.8 sigma apart and single targets in turn, which move along lines in white noise. Each frame is
shifted by a normal random number along x and along y. A row is right if it lies within 0.25 px of a true target that
has no nearer row. A pull is (found - true) / stated error. No option was chosen on these scenes.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from common import write_result
from csist import GaussianPSF, Sensor, Targets, unmix_sequence

SEED = 7_300_000
SHAKES_PX, GROUPS = (0.0, 0.02, 0.05, 0.1, 0.3), (1, 5)
FRAMES, NOISE, NEAR_PX, APART_PX = 12, 2.0, 0.25, 22.0
SKY = Sensor(GaussianPSF(1.1), shape=(96, 96), background=100.0, read_noise=NOISE, quantised=False)


def scene(rng: np.random.Generator, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places (n, 2) in the first frame, velocities (n, 2) in px a frame, and fluxes (n,) in counts."""
    middles: list[np.ndarray] = []
    while len(middles) < groups:
        place = rng.uniform(20.0, 76.0, 2)
        if all(np.hypot(*(place - other)) > APART_PX for other in middles):
            middles.append(place)
    places, velocities = [], []
    for number, place in enumerate(middles):
        angle, velocity = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(-0.3, 0.3, 2)
        half = 0.9 * 1.1 * np.array([np.cos(angle), np.sin(angle)])
        members = [place - half, place + half] if number % 2 == 0 else [place]
        places += members
        velocities += [velocity + rng.uniform(-0.01, 0.01, 2) for _ in members]
    return np.array(places), np.array(velocities), rng.uniform(1000.0, 3000.0, len(places))


def run(seed: int, groups: int, shake_px: float, mode: str) -> dict[str, Any]:
    """Rows, right rows, pulls of their positions, and groups with a joint posterior, of one scene."""
    rng = np.random.default_rng([SEED, seed])
    place, velocity, flux = scene(rng, groups)
    shake = shake_px * rng.standard_normal((FRAMES, 2))
    truth = [Targets(*(place + t * velocity + shake[t]).T, flux) for t in range(FRAMES)]
    result = unmix_sequence(np.stack([SKY.observe(each, rng) for each in truth]), SKY, mode=mode)
    pulls: list[float] = []
    for true, found in zip(truth, result.frames, strict=True):
        distance = np.hypot(found.x[:, None] - true.x, found.y[:, None] - true.y)
        for n, row in enumerate(distance.argmin(axis=0) if len(found) else []):
            if distance[row, n] < NEAR_PX and distance[row].argmin() == n:
                pulls.append((found.x[row] - true.x[n]) / max(found.x_std[row], 1e-9))
                pulls.append((found.y[row] - true.y[n]) / max(found.y_std[row], 1e-9))
    rows = sum(len(found) for found in result.frames)
    return {"targets": FRAMES * len(flux), "rows": rows, "pulls": pulls, "joint": len(result.groups)}


def cell(scenes: int, groups: int, shake_px: float, mode: str) -> dict[str, Any]:
    """Figures of some scenes."""
    runs = [run(seed, groups, shake_px, mode) for seed in range(scenes)]
    pulls = np.abs(np.concatenate([each["pulls"] for each in runs]))
    return {
        "groups": groups,
        "shake_px": shake_px,
        "targets": sum(each["targets"] for each in runs),
        "rows": sum(each["rows"] for each in runs),
        "right": len(pulls) // 2,
        "joint": sum(each["joint"] for each in runs) / (scenes * groups),
        "within_68": float((pulls <= 1.0).mean()),
        "within_95": float((pulls <= 1.96).mean()),
        "beyond_5": float((pulls > 5.0).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=8, help="of each row")
    parser.add_argument("--mode", default="fast", choices=("fast", "accurate"))
    parser.add_argument("--name", default="shake", help="of the JSON file in docs/results")
    arguments = parser.parse_args()
    rows = [cell(arguments.scenes, groups, shake, arguments.mode) for groups in GROUPS for shake in SHAKES_PX]
    write_result(arguments.name, {"mode": arguments.mode, "scenes": arguments.scenes, "frames": FRAMES, "rows": rows})


if __name__ == "__main__":
    main()
