"""Images, a quick setting and checks that the tests of the command share."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

import csist

HEADER = "image,frame,x,y,intensity,score,x_std,y_std,intensity_std,flags,group"

PRIOR = csist.ScenePrior.csist_100k()
SENSOR = csist.Sensor(read_noise=1.0)
SCENES = csist.sample_scenes(PRIOR, SENSOR, 5, seed=8)
STACK = np.stack([SENSOR.observe(scene, seed) for seed, scene in enumerate(SCENES)])
QUICK = ("--prior", "csist-100k", "--mode", "fast", "--noise-std", "1")

Result = tuple[int, str, str]
Run = Callable[..., Result]


def rows_of(path: Path | str) -> list[dict[str, str]]:
    return list(csv.DictReader(lines(path)))


SKY = csist.Sensor(csist.GaussianPSF(1.1), shape=(60, 90), background=50.0, read_noise=2.0)
SPOTS = csist.Targets(x=[20.3, 23.1, 60.7], y=[30.2, 31.0, 15.4], intensity=[1500.0, 1200.0, 2000.0])


def frame(seed: int = 0) -> np.ndarray:
    return SKY.observe(SPOTS, seed)


def lines(path: Path | str) -> list[str]:
    return Path(path).read_text().splitlines()


def windows(path: Path, count: int = 5) -> Path:
    np.save(path, STACK[:count])
    return path


def refused(result: Result, *said: str, code: int = 2, announced: str | None = None) -> None:
    """The code, and exactly one line on standard error that says all this, after that which announces a folder."""
    assert result[0] == code, result
    printed = result[2].splitlines()
    if announced is not None:
        assert printed.pop(0) == f"csist: {announced}"
    (line,) = printed
    assert line.startswith("csist: ")
    assert "Traceback" not in line
    for part in said:
        assert part in line, line


def summary_rows(out: str) -> dict[str, str]:
    """The rows of the printed summary."""
    rows = (line.split("  ", 1) for line in out.splitlines() if "  " in line)
    return {name.strip(): value.strip() for name, value in rows}
