"""Is the completeness that `csist inject` states that of an independent injection into the same frames?

    python benchmarks/bench_inject.py [--groups 120]

Stars and pairs are put into the three measured frames that csist comes with, by `csist inject` and by this file: its
own places, its own light (the PSF integrated over each pixel by error functions), its own matching. Both know the PSF
and use the same options. For each frame and flux the two shares of found targets are compared; their difference is
given in standard errors, by bootstraps over groups. Two samples are compared, so that one row in twenty differs by two.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment
from scipy.special import erf

import csist
from common import write_result

FRAMES = ("airplane_above_hills", "airplane_clear_sky", "drone_above_trees")
SIGMA_PX, SEPARATION_PX, COUNTS = 0.7, 2.0, (1, 2)
NOISES = (20.0, 40.0, 80.0)
"""Brightest pixel of a target in the middle of a pixel, in units of the frame's noise."""
CELL_PX, MARGIN_PX, GROUPS_A_PASS = 40, 20, 24
MATCH_PX = 1.0
MODE = "fast"


def light_of(x: float, y: float, flux: float, shape: tuple[int, int]) -> np.ndarray:
    """A target's light (H, W), its Gaussian integrated over each pixel."""
    steps = [
        0.5 * (erf((axis + 0.5 - at) / (SIGMA_PX * 2**0.5)) - erf((axis - 0.5 - at) / (SIGMA_PX * 2**0.5)))
        for axis, at in ((np.arange(shape[1]), x), (np.arange(shape[0]), y))
    ]
    return np.asarray(flux * steps[1][:, None] * steps[0])


def noise_of(frame: np.ndarray) -> float:
    """Robust standard deviation of the noise, from second differences along the rows, in counts."""
    second = frame[:, 2:] - 2.0 * frame[:, 1:-1] + frame[:, :-2]
    return max(float(1.4826 * np.median(np.abs(second)) / 6**0.5), 0.5)


def draw(frame: np.ndarray, fluxes: list[float], number: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Groups (n, 3) of x, y and flux, in cells of a grid of the frame that are all different."""
    rows, columns = (range(MARGIN_PX, side - MARGIN_PX, CELL_PX) for side in frame.shape)
    cells = rng.permutation([(x, y) for x in columns for y in rows])[:number]
    groups = []
    for k, (x, y) in enumerate(cells):
        count, flux = COUNTS[k % len(COUNTS)], fluxes[(k // len(COUNTS)) % len(fluxes)]
        middle = np.array([x, y]) + rng.uniform(-4.0, 4.0, 2)
        angle = rng.uniform(0.0, 2.0 * np.pi)
        arm = 0.5 * SEPARATION_PX * np.array([np.cos(angle), np.sin(angle)])
        places = [middle] if count == 1 else [middle - arm, middle + arm]
        groups.append(np.array([[*place, flux] for place in places]))
    return groups


def found_of(group: np.ndarray, found: np.ndarray) -> int:
    """Number of a group's targets with a detection (m, 2) within `MATCH_PX`, one to one."""
    distance = np.hypot(*(group[:, None, :2] - found).T).T
    one, other = linear_sum_assignment(np.minimum(distance, 2.0 * MATCH_PX))
    return int((distance[one, other] <= MATCH_PX).sum())


def own_injection(frame: np.ndarray, fluxes: list[float], number: int, seed: int) -> list[tuple[float, int, int]]:
    """(flux, targets, found) of so many groups."""
    rng = np.random.default_rng(seed)
    result = []
    while len(result) < number:
        groups = draw(frame, fluxes, min(GROUPS_A_PASS, number - len(result)), rng)
        light = sum(light_of(*target, frame.shape) for group in groups for target in group)
        seen = csist.unmix_frame(
            np.clip(np.rint(frame + light), 0, 255), psf=SIGMA_PX, mode=MODE, false_alarm_rate=1e-5
        ).targets
        places = np.stack([seen.x, seen.y], axis=1)
        result += [(float(group[0, 2]), len(group), found_of(group, places)) for group in groups]
    return result


def by_command(path: Path, fluxes: list[float], number: int, seed: int) -> list[dict[str, Any]]:
    """Rows of `csist inject` by flux."""
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        options = {
            "--groups": number, "--count": ",".join(map(str, COUNTS)), "--separation": SEPARATION_PX,
            "--flux": ",".join(f"{flux:.6g}" for flux in fluxes), "--psf-sigma": SIGMA_PX, "--mode": MODE,
            "--false-alarm-rate": 1e-5, "--saturation": 255, "--seed": seed, "--json": figures,
        }  # fmt: skip
        command = [sys.executable, "-m", "csist", "inject", str(path)]
        subprocess.run([*command, *(str(part) for each in options.items() for part in each)], check=True)
        rows = json.loads(figures.read_text())["rows"]
    return [row for row in rows if row["by"] == "flux"]


def spread_of(sizes: np.ndarray, found: np.ndarray) -> float:
    """Standard error of the share found, by a bootstrap over groups, at least that of one target in all."""
    drawn = np.random.default_rng(0).integers(0, len(sizes), (2000, len(sizes)))
    shares = found[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return max(float(shares.std()), 1.0 / float(sizes.sum()))


def compare(name: str, number: int, seed: int) -> list[dict[str, Any]]:
    """Both completenesses of a frame, by flux."""
    path = Path(csist.__file__).parent / "data" / f"{name}.png"
    frame = np.asarray(Image.open(path), dtype=np.float64)
    peak = light_of(0.0, 0.0, 1.0, (1, 1))[0, 0]
    fluxes = [float(f"{times * noise_of(frame) / peak:.6g}") for times in NOISES]
    told = by_command(path, fluxes, number, seed)
    own = np.array(own_injection(frame, fluxes, number, seed + 1))
    rows = []
    for flux, times, row in zip(fluxes, NOISES, told, strict=True):
        sizes, found = own[np.isclose(own[:, 0], flux)][:, 1:].T
        share, error = float(found.sum() / sizes.sum()), spread_of(sizes, found)
        its_error = max((row["completeness_high"] - row["completeness_low"]) / 3.92, 1.0 / row["targets"])
        rows.append(
            {
                "frame": name,
                "flux": flux,
                "peak_over_noise": times,
                "targets": [row["targets"], int(sizes.sum())],
                "inject": row["completeness"],
                "inject_interval": [row["completeness_low"], row["completeness_high"]],
                "own": share,
                "own_std": round(error, 4),
                "difference_std": round((row["completeness"] - share) / float(np.hypot(error, its_error)), 3),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Compare all frames and write docs/results/inject.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=120, help="of each frame and method")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rows = [row for name in FRAMES for row in compare(name, given.groups, given.seed)]
    largest = max(abs(row["difference_std"]) for row in rows)
    chi2 = sum(row["difference_std"] ** 2 for row in rows)
    write_result("inject", {"rows": rows, "largest_difference_std": largest, "chi2": chi2, "groups": given.groups})


if __name__ == "__main__":
    main()
