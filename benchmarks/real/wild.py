"""Detection and false alarms in real infrared frames by default options, and whether the score is a probability.

A labelled target (a component of a SIRST mask, a drone's box) is found if a detection lies within `NEAR_PX` of it. A
detection farther than that from every labelled pixel is false; there are unlabelled targets, so that the figures of
false detections are upper bounds. Extended rows count as any other. Nothing is ranked: all figures hold at the same,
default threshold. The score is compared with the share of right detections; of several detections of one labelled
target the best counts there, as the number of points that make it up is not known. Options are chosen on one half of
the scenes and reported on the other (`split.json`). Intervals are bootstraps over frames.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from csist.files import reading
from csist.frames import unmix_frame
from csist.io import read_image
from csist.io.store import Progress
from csist.targets import Targets
from real.common import RESAMPLES, folder_of, interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

FOLDERS = ("sirst", "drone_ir_cc0")
SPLIT = Path(__file__).with_name("split.json")
HALVES = ("chosen_on", "reported_on")
MODES = ("fast", "accurate")
NEAR_PX = 4.0
SCORE_BINS = 5
"""Bins of equal numbers of detections for the reliability of the score."""
CALIBRATED_DRAWS = 1000
AIMS = {"detection": 0.95, "false_per_pixel": 1e-5, "false_per_frame": 1.0, "frames_free": 0.8, "score_error": 0.05}


@dataclass(frozen=True)
class LabelledFrame:
    """Frame with its labels.

    Args:
        source: folder that it comes from.
        name: of the frame.
        image: (H, W) grey levels.
        labels: (H, W) number of the target that a pixel belongs to, from 1; 0 for none.
    """

    source: str
    name: str
    image: FloatArray
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Judged:
    """What was found in a frame.

    Args:
        frame: the frame's name.
        pixels: of the frame.
        found: whether each labelled target was found.
        near: (n,) whether each detection lies near a labelled target.
        repeated: (n,) whether a better one of the same target exists, so that it says nothing about the score.
        targets: the detections.
        seconds: run time in seconds.
    """

    frame: str
    pixels: int
    found: list[bool]
    near: NDArray[np.bool_]
    repeated: NDArray[np.bool_]
    targets: Targets
    seconds: float


def load(data: Path, half: str) -> list[LabelledFrame]:
    """Read the frames of a half of the split."""
    split = json.loads(SPLIT.read_text(encoding="utf-8"))[half]
    names = {source: sorted(name for scene in scenes for name in scene) for source, scenes in split.items()}
    return [_sirst(data / "sirst", name) for name in names["sirst"]] + _drones(
        data / "drone_ir_cc0", names["drone_ir_cc0"]
    )


def _sirst(folder: Path, name: str) -> LabelledFrame:
    image = read_image(folder / "images" / f"{name}.png")[0]
    mask = read_image(folder / "masks" / f"{name}.png")[0] > 0.0
    return LabelledFrame("sirst", name, image, ndimage.label(mask, np.ones((3, 3)))[0].astype(np.int64))


def _drones(folder: Path, names: list[str]) -> list[LabelledFrame]:
    with reading(folder / "frames.csv"):
        boxes = pd.read_csv(folder / "frames.csv").set_index("file")
    frames = []
    for name in names:
        image = read_image(folder / "frames" / f"{name}.png")[0]
        # Corners are counted from 1.
        x, y, width, height = (float(boxes.loc[f"{name}.png", key]) for key in ("x", "y", "w", "h"))
        rows, columns = (np.arange(n) for n in image.shape)
        inside_y = (rows >= y - 1.5) & (rows <= y + height - 0.5)
        inside_x = (columns >= x - 1.5) & (columns <= x + width - 0.5)
        frames.append(LabelledFrame("drone_ir_cc0", name, image, (inside_y[:, None] & inside_x).astype(np.int64)))
    return frames


def judge(frame: LabelledFrame, mode: str) -> Judged:
    """Unmix a frame by default options and compare with its labels."""
    start = time.perf_counter()
    targets = unmix_frame(frame.image, mode=mode, workers=1).targets
    seconds = time.perf_counter() - start
    count = int(frame.labels.max(initial=0))
    near, best, found = np.zeros(len(targets), dtype=bool), np.zeros(len(targets), dtype=bool), []
    for number in range(1, count + 1):
        rows, columns = np.nonzero(frame.labels == number)
        distance = np.hypot(targets.x[:, None] - columns, targets.y[:, None] - rows).min(axis=1)
        found.append(bool((distance <= NEAR_PX).any()))
        near |= distance <= NEAR_PX
        if found[-1]:
            best[np.where(distance <= NEAR_PX, targets.score, -np.inf).argmax()] = True
    return Judged(frame.name, frame.image.size, found, near, near & ~best, targets, seconds)


def false_rows(judged: Judged) -> list[dict[str, Any]]:
    """The false detections of a frame."""
    false = judged.targets[~judged.near]
    return [
        {"frame": judged.frame, "x": round(float(x), 1), "y": round(float(y), 1), "score": round(float(score), 3)}
        for x, y, score in zip(false.x, false.y, false.score, strict=True)
    ]


def figures(judged: list[Judged]) -> dict[str, Any]:
    """Detection, false detections and reliability of the score over some frames."""
    counts = np.array(
        [[sum(each.found), len(each.found), np.sum(~each.near), each.pixels, not np.sum(~each.near)] for each in judged]
    ).astype(np.float64)

    def of(rows: FloatArray) -> dict[str, float]:
        found, targets, false, pixels, free = rows.sum(axis=0)
        return {
            "detection": found / targets,
            "false_per_pixel": false / pixels,
            "false_per_frame": false / len(rows),
            "frames_free": free / len(rows),
        }

    rng = np.random.default_rng(0)
    drawn = [of(counts[rng.integers(0, len(counts), len(counts))]) for _ in range(RESAMPLES)]
    score = np.concatenate([each.targets.score[~each.repeated] for each in judged])
    near = np.concatenate([each.near[~each.repeated] for each in judged])
    return {
        "frames": len(judged),
        "targets": int(counts[:, 1].sum()),
        "false": int(counts[:, 2].sum()),
        **{
            name: {"value": value, "interval": interval(np.array([each[name] for each in drawn]))}
            for name, value in of(counts).items()
        },
        "score": reliability(score, near) | {"error_if_calibrated": error_if_calibrated(score)},
        "seconds_median": float(np.median([each.seconds for each in judged])),
    }


def reliability(score: FloatArray, right: NDArray[np.bool_], bins: int = SCORE_BINS) -> dict[str, Any]:
    """Mean score and share of right detections in bins of equal numbers, and the mean difference of both.

    >>> reliability(np.array([0.2, 0.2, 0.9, 0.9]), np.array([False, False, True, True]), 2)["error"]
    0.15
    """
    order = np.argsort(score, kind="stable")
    parts = [part for part in np.array_split(order, bins) if part.size]
    rows = [{"score": float(score[p].mean()), "right": float(right[p].mean()), "detections": len(p)} for p in parts]
    total = sum(row["detections"] for row in rows)
    error = sum(row["detections"] * abs(row["score"] - row["right"]) for row in rows) / max(total, 1)
    return {"error": round(float(error), 6), "bins": rows}


def error_if_calibrated(score: FloatArray, draws: int = CALIBRATED_DRAWS) -> dict[str, Any]:
    """Mean and 90 % interval of the error of `reliability` if the scores were exact: bins of few detections scatter."""
    rng = np.random.default_rng(0)
    errors = np.array([reliability(score, rng.random(len(score)) < score)["error"] for _ in range(draws)])
    low, high = np.quantile(errors, (0.05, 0.95))
    return {"mean": float(errors.mean()), "interval_90": [float(low), float(high)]}


def run(data: Path, progress: Progress) -> dict[str, Any]:
    """Compute the figures of both halves and both modes.

    Args:
        data: folder with the sub-folders `FOLDERS`.
        progress: called for every frame.

    Raises:
        InputError: if the data are missing or cannot be read.
    """
    for name in FOLDERS:
        folder_of(data, name)
    result: dict[str, Any] = {"near_px": NEAR_PX}
    for half in HALVES:
        frames = load(data, half)
        for mode in MODES:
            judged = []
            for done, frame in enumerate(frames):
                progress(f"{half}, {mode}", done, len(frames))
                judged.append(judge(frame, mode))
            parts = {
                source: figures([j for j, frame in zip(judged, frames, strict=True) if frame.source == source])
                for source in FOLDERS
            }
            false = [row for each in judged for row in false_rows(each)]
            result.setdefault(half, {})[mode] = {"all": figures(judged), **parts, "false_detections": false}
    return result | {"targets": targets_met(result["reported_on"])}


def targets_met(modes: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the aims of this part and whether they are met, on the half that nothing was chosen on."""
    rows = []
    for mode, parts in modes.items():
        every = parts["all"]
        for name, aim in AIMS.items():
            value = every["score"]["error"] if name == "score_error" else every[name]["value"]
            least = name in {"detection", "frames_free"}
            word = "at least" if least else "at most"
            met = bool(value >= aim if least else value <= aim)
            rows.append({"aim": f"{name.replace('_', ' ')} {word} {aim:g}, {mode}", "value": value, "met": met})
            if name == "score_error":
                rows[-1]["if_calibrated"] = every["score"]["error_if_calibrated"]
    return rows


def draw(result: dict[str, Any]) -> Figure:
    """Draw the share of right detections against the score."""
    from matplotlib.figure import Figure

    from csist.plots.style import LINE_COLOURS, styled

    with styled():
        figure = Figure(figsize=(4.6, 4.2), layout="constrained")
        axis = figure.subplots()
        axis.plot([0.0, 1.0], [0.0, 1.0], color="0.6", linewidth=1.0)
        for place, (mode, parts) in enumerate(result["reported_on"].items()):
            bins = parts["all"]["score"]["bins"]
            axis.plot(
                [b["score"] for b in bins], [b["right"] for b in bins], "o-", color=LINE_COLOURS[place], label=mode
            )
        axis.set(xlim=(0.0, 1.02), ylim=(0.0, 1.02), xlabel="score", ylabel="share of right detections")
        axis.set_title("Real infrared frames (SIRST and drones)")
        axis.legend(loc="upper left")
    return figure
