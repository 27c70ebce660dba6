"""Coefficients of the probability that a spot in clutter is a target, from labelled infrared frames.

    python benchmarks/fit_clutter.py --data FOLDER

A logistic regression on the spots of the frames of the half `chosen_on` of `real/split.json`: its coefficients, and
how many labelled and other spots reach a probability. The rows of `csist.frames.clutter` come from here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import minimize
from scipy.special import expit

from csist.frames.clutter import directional_leads
from csist.frames.contrast import ContrastFrame
from csist.frames.mask import check_frame
from csist.frames.measured import FrameRules, measure_frame
from csist.frames.options import FALSE_ALARM_RATE
from csist.frames.peaks import keep_strongest
from real.wild import HALVES, NEAR_PX, LabelledFrame, load

FloatArray = NDArray[np.float64]

APART_PX = 4.0
"""Weaker spots closer than this to another one are parts of it."""
RIDGE = 0.05
SHOWN = (0.03, 0.05, 0.06, 0.08, 0.1, 0.2, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the sub-folders sirst and drone_ir_cc0")
    options = parser.parse_args()
    parts = [spots(frame) for frame in load(options.data, HALVES[0])]
    features, labelled = (np.concatenate(each) for each in zip(*parts, strict=True))
    weights = fit(features, labelled)
    print("coefficients:", ", ".join(f"{weight:.2f}" for weight in weights))
    probability = expit(weights[0] + features @ weights[1:])
    for least in SHOWN:
        kept = probability >= least
        found, others = int((kept & labelled).sum()), int((kept & ~labelled).sum())
        print(f"probability {least:4}: {found} of {labelled.sum()} labelled, {others} others")


def spots(frame: LabelledFrame) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Features (n, 3) of the spots of a frame in clutter by default options, and whether each is labelled."""
    measured = measure_frame(check_frame(frame.image), FrameRules())
    seen = ContrastFrame.of(measured.image, measured.background, measured.pixels.masked, None)
    if seen.noise_limited:
        return np.empty((0, 3)), np.empty(0, dtype=bool)
    peaks = keep_strongest(seen.significant(FALSE_ALARM_RATE)[0], APART_PX)
    leads = np.arcsinh(directional_leads(measured.flattened, peaks, seen.floor, None))
    features = np.concatenate([np.log(np.maximum(peaks.significance, 1.0))[:, None], leads], axis=1)
    distance = ndimage.distance_transform_edt(frame.labels == 0)
    rows, columns = np.rint(peaks.y).astype(int), np.rint(peaks.x).astype(int)
    return features, np.asarray(distance[rows, columns] <= NEAR_PX)


def fit(features: FloatArray, labelled: NDArray[np.bool_]) -> FloatArray:
    """Coefficients (1 + k,) of a logistic regression on features (n, k), slightly regularised."""
    design = np.concatenate([np.ones((len(features), 1)), features], axis=1)

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        logit = design @ weights
        held = np.concatenate([[0.0], weights[1:]])
        value = float(np.sum(np.logaddexp(0.0, logit) - labelled * logit) + RIDGE * held @ held)
        return value, design.T @ (expit(logit) - labelled) + 2.0 * RIDGE * held

    return np.asarray(minimize(loss, np.zeros(design.shape[1]), jac=True, method="BFGS").x)


if __name__ == "__main__":
    main()
