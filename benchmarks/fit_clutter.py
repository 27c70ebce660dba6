"""Fit the probability that a spot in clutter is a target, from labelled infrared frames.

    python benchmarks/fit_clutter.py --data FOLDER

A logistic regression on the candidates of the frames of the half `chosen_on` of `real/split.json`. Of the candidates
of one labelled target the strongest counts. The least probability at which a spot is reported is chosen on answers for
scenes that were left out of the fit: the largest one at which the aim of detection is met. Writes
`src/csist/frames/detection/clutter.json` and docs/results/clutter.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import minimize
from scipy.special import expit

from common import write_result
from csist.frames.detection import clutter
from csist.frames.detection.contrast import ContrastFrame
from csist.frames.masks.mask import check_frame
from csist.frames.measured import FrameRules, measure_frame
from csist.frames.options import FALSE_ALARM_RATE
from real.wild import AIMS, HALVES, NEAR_PX, SPLIT, LabelledFrame, load, reliability

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

RIDGE = 8.0
"""Of the coefficients of features scaled to unit variance."""
LEAST = np.arange(1, 31) / 100.0
"""Probabilities tried as the least one."""
TABLE = Path(clutter.__file__).with_name("clutter.json")


@dataclass(frozen=True)
class Candidates:
    """Candidates of some frames.

    Args:
        features: (n, features).
        label: (n,) number of the labelled target that each is near, 0 for none.
        frame: (n,) index of its frame.
    """

    features: FloatArray
    label: IntArray
    frame: IntArray

    @property
    def right(self) -> NDArray[np.bool_]:
        """(n,) whether each is near a labelled target."""
        return self.label > 0

    def foremost(self, value: FloatArray) -> NDArray[np.bool_]:
        """(n,) candidates but those of a labelled target that another one has with a larger value (n,)."""
        kept = ~self.right
        order = np.argsort(-value, kind="stable")
        targets = np.stack([self.frame, self.label], axis=1)[order]
        first = order[np.unique(targets, axis=0, return_index=True)[1]]
        kept[first] = True
        return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the sub-folders sirst and drone_ir_cc0")
    frames = load(parser.parse_args().data, HALVES[0])
    found = candidates(frames)
    targets = sum(int(frame.labels.max(initial=0)) for frame in frames)
    used = found.foremost(found.features[:, 0] + found.features[:, 1:3].sum(axis=1))
    logit = cross_validated(found, used, scenes_of(frames)[found.frame])
    # Coefficients that are held back make the probabilities of other scenes too moderate.
    scale = fit(logit[used, None], found.right[used], 0.0)
    probability = expit(scale[0] + scale[1] * logit)
    rows = [at_least(least, probability, found, targets, len(frames)) for least in LEAST]
    chosen = max(
        (row for row in rows if row["detection"] >= AIMS["detection"]), key=lambda row: row["least_probability"]
    )
    weights = scale[1] * fit(found.features[used], found.right[used])
    weights[0] += scale[0]
    table = {
        "coefficients": dict(zip(("constant", *clutter.FEATURES), np.round(weights, 3).tolist(), strict=True)),
        "least_probability": chosen["least_probability"],
    }
    TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    write_result(
        "clutter",
        table | {"frames": len(frames), "targets": targets, "candidates": len(used), "chosen": chosen, "rows": rows},
    )
    print(json.dumps(table | {"chosen": chosen}, indent=1))


def scenes_of(frames: list[LabelledFrame]) -> IntArray:
    """Number (frames,) of the scene that each frame shows."""
    split = json.loads(SPLIT.read_text(encoding="utf-8"))[HALVES[0]]
    scenes = [scene for of_source in split.values() for scene in of_source]
    number = {name: k for k, scene in enumerate(scenes) for name in scene}
    return np.array([number[frame.name] for frame in frames])


def candidates(frames: list[LabelledFrame]) -> Candidates:
    """The candidates in clutter by default options."""
    parts: list[tuple[FloatArray, IntArray, IntArray]] = []
    for index, frame in enumerate(frames):
        measured = measure_frame(check_frame(frame.image), FrameRules())
        seen = ContrastFrame.of(measured.image, measured.background, measured.pixels.masked, None)
        if seen.noise_limited:
            continue
        peaks, _ = seen.candidates(FALSE_ALARM_RATE)
        distance, nearest = ndimage.distance_transform_edt(frame.labels == 0, return_indices=True)
        rows, columns = np.rint(peaks.y).astype(int), np.rint(peaks.x).astype(int)
        label = frame.labels[tuple(nearest[:, rows, columns])]
        label = np.where(distance[rows, columns] <= NEAR_PX, label, 0)
        parts.append((seen.clutter_features(peaks), label, np.full(len(peaks), index)))
    features, labels, indices = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Candidates(features, labels, indices)


def cross_validated(found: Candidates, used: NDArray[np.bool_], scene: IntArray) -> FloatArray:
    """Logarithm of the odds (n,) of each candidate by a fit to the other scenes."""
    logit = np.empty(len(scene))
    for number in np.unique(scene):
        out = scene == number
        weights = fit(found.features[used & ~out], found.right[used & ~out])
        logit[out] = weights[0] + found.features[out] @ weights[1:]
    return logit


def at_least(least: float, probability: FloatArray, found: Candidates, targets: int, frames: int) -> dict[str, Any]:
    """Detection, false spots and reliability where a probability is asked for."""
    kept = probability >= least
    false = kept & ~found.right
    counted = kept & found.foremost(np.where(kept, probability, -1.0))
    return {
        "least_probability": float(least),
        "detection": float((counted & found.right).sum() / targets),
        "false": int(false.sum()),
        "frames_free": 1.0 - len(np.unique(found.frame[false])) / frames,
        "score_error": reliability(probability[counted], found.right[counted])["error"],
    }


def fit(features: FloatArray, right: NDArray[np.bool_], ridge: float = RIDGE) -> FloatArray:
    """Coefficients (1 + k,) of a regularised logistic regression on features (n, k)."""
    middle, spread = features.mean(axis=0), features.std(axis=0)
    design = np.concatenate([np.ones((len(features), 1)), (features - middle) / spread], axis=1)

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        logit = design @ weights
        held = np.concatenate([[0.0], weights[1:]])
        value = float(np.sum(np.logaddexp(0.0, logit) - right * logit) + ridge * held @ held)
        return value, design.T @ (expit(logit) - right) + 2.0 * ridge * held

    found = np.asarray(minimize(loss, np.zeros(design.shape[1]), jac=True, method="BFGS").x)
    slopes = found[1:] / spread
    return np.concatenate([[found[0] - slopes @ middle], slopes])


if __name__ == "__main__":
    main()
