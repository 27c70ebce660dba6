"""Fit the probability that a spot in clutter is a target, from labelled infrared frames.

    python benchmarks/fit_clutter.py --data FOLDER

Two logistic regressions on the candidates of frames on which nothing is reported.

- PSF not known: the frames of the half `chosen_on` of `real/split.json`. Of the candidates of one labelled target the
  strongest counts. The least probability at which a spot is reported is chosen on answers for scenes that were left out
  of the fit: the largest one at which the aim of detection is met.
- PSF known: the SIRST frames of that half and the frames on which the options of `real/injected.py` were chosen, with
  groups injected by several PSFs, and again without. Candidates near labelled targets do not count, since their PSF is
  not known. Injected groups are weighted so that there is one a frame. The least probability is the smallest one at
  which scenes that were left out of the fit have at most the aimed-at number of false detections a frame.

Writes `src/csist/frames/detection/clutter.json` and docs/results/clutter.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import minimize
from scipy.special import expit

from common import write_result
from csist.frames.detection import clutter
from csist.frames.detection.contrast import ContrastFrame
from csist.frames.detection.peaks import Peaks
from csist.frames.masks.mask import check_frame
from csist.frames.measured import FrameRules, measure_frame
from csist.frames.options import FALSE_ALARM_RATE
from csist.injection import place_group
from csist.io import read_image
from csist.physics.psf import RAYLEIGH_PER_SIGMA, GaussianPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets
from real import injected
from real.wild import AIMS, HALVES, NEAR_PX, SPLIT, LabelledFrame, load, reliability

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

RIDGE = 8.0
"""Of the coefficients of features scaled to unit variance."""
LEAST = np.arange(1, 31) / 100.0
"""Probabilities tried as the least one."""
TABLE = Path(clutter.__file__).with_name("clutter.json")

SIGMAS_PX = (0.5, 0.7, 1.0, 1.5)
"""Of the PSFs of injected groups."""
GROUPS_A_FRAME = 10
SNRS = (6.0, 60.0)
"""Least and largest brightest pixel of an injected target over the noise around it, uniform in the logarithm."""
FOLDS = 5


class Candidates(NamedTuple):
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
    parser.add_argument("--data", type=Path, required=True, help="folder of the real frames")
    data = parser.parse_args().data
    fits = {"unknown PSF": fit_unknown(data), "known PSF": fit_known(data)}
    tables = {name: {key: found[key] for key in ("coefficients", "least_probability")} for name, found in fits.items()}
    TABLE.write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
    write_result("clutter", fits)
    print(json.dumps({name: tables[name] | {"chosen": found["chosen"]} for name, found in fits.items()}, indent=1))


def fit_unknown(data: Path) -> dict[str, Any]:
    """The fit for PSFs that are not known."""
    frames = load(data, HALVES[0])
    found = candidates(frames)
    targets = sum(int(frame.labels.max(initial=0)) for frame in frames)
    used = found.foremost(main_features(found))
    logit = cross_validated(found, used, scenes_of(frames)[found.frame])
    # Coefficients that are held back make the probabilities of other scenes too moderate.
    scale = fit(logit[used, None], found.right[used], ridge=0.0)
    probability = expit(scale[0] + scale[1] * logit)
    rows = [at_least(least, probability, found, targets, len(frames)) for least in LEAST]
    chosen = max(
        (row for row in rows if row["detection"] >= AIMS["detection"]), key=lambda row: row["least_probability"]
    )
    weights = scale[1] * fit(found.features[used], found.right[used])
    weights[0] += scale[0]
    return {
        "coefficients": named(weights, clutter.FEATURES),
        "least_probability": chosen["least_probability"],
        "frames": len(frames),
        "targets": targets,
        "candidates": len(used),
        "chosen": chosen,
        "rows": rows,
    }


def fit_known(data: Path) -> dict[str, Any]:
    """The fit for known PSFs."""
    # The other frames of the drones' clips are reported on with injected groups.
    frames = [frame for frame in load(data, HALVES[0]) if frame.source == "sirst"] + unlabelled(data)
    with_groups, numbers = injected_candidates(frames, groups=GROUPS_A_FRAME)
    without, _ = injected_candidates(frames, groups=0)
    found = Candidates(*(np.concatenate(each) for each in zip(with_groups, without, strict=True)))
    clean = np.arange(len(found.frame)) >= len(with_groups.frame)
    used = found.foremost(main_features(found))
    shown = 2 * len(frames) * len(SIGMAS_PX)
    weight = np.where(found.right, shown / found.right[used].sum(), 1.0)
    scene = scenes_of(frames)[found.frame // len(SIGMAS_PX)]
    probability = expit(cross_validated(found, used, scene % FOLDS, weight))
    rows = []
    for least in LEAST:
        kept = probability >= least
        rows.append(
            {
                "least_probability": float(least),
                "detection": len(np.unique(found.label[kept & found.right])) / numbers,
                "false_per_frame": float((kept & clean).sum() / (shown / 2)),
            }
        )
    chosen = next(row for row in rows if row["false_per_frame"] <= AIMS["false_per_frame"])
    weights = fit(found.features[used], found.right[used], weight[used])
    return {
        "coefficients": named(weights, clutter.FEATURES + clutter.SHAPE_FEATURES),
        "least_probability": chosen["least_probability"],
        "frames": len(frames),
        "groups": numbers,
        "candidates": len(used),
        "chosen": chosen,
        "rows": rows,
    }


def named(weights: FloatArray, names: tuple[str, ...]) -> dict[str, float]:
    """Coefficients by the names of their features."""
    return dict(zip(("constant", *names), np.round(weights, 3).tolist(), strict=True))


def main_features(found: Candidates) -> FloatArray:
    """Sum (n,) of the main features of candidates, by which the foremost one of a target is told."""
    return found.features[:, 0] + found.features[:, 1:3].sum(axis=1)


def unlabelled(data: Path) -> list[LabelledFrame]:
    """Frames on which the options of the injected groups were chosen."""
    return [
        LabelledFrame(source, path.stem, image, np.zeros(image.shape, dtype=np.int64))
        for source, paths in injected.paths_of(data).items()
        for path in injected.chosen_of(paths)
        for image in [read_image(path)[0]]
    ]


def injected_candidates(frames: list[LabelledFrame], *, groups: int) -> tuple[Candidates, int]:
    """The candidates of frames with groups injected into them, by each PSF, and the number of groups.

    The index of a candidate's frame is that of the frame and the PSF.
    """
    parts: list[tuple[FloatArray, IntArray, IntArray]] = []
    number = 0
    for index, (frame, sigma_px) in enumerate((frame, sigma_px) for frame in frames for sigma_px in SIGMAS_PX):
        psf = GaussianPSF(sigma_px)
        truth = inject(frame.image, psf, groups, np.random.default_rng(index))
        image = np.rint(frame.image + Sensor(psf, shape=frame.image.shape).render(Targets.concatenate(truth)))
        measured = measure_frame(check_frame(image), FrameRules(), psf)
        seen = ContrastFrame.of(measured.image, measured.background, measured.pixels.masked, psf)
        if not seen.noise_limited:
            peaks, _ = seen.candidates(FALSE_ALARM_RATE)
            label = np.zeros(len(peaks), dtype=np.int64)
            for k, group in enumerate(truth):
                label[distance_to(group, peaks) <= max(2.0, 2.0 * sigma_px)] = number + k + 1
            real = frame.labels > 0
            away = ndimage.distance_transform_edt(~real) > NEAR_PX if real.any() else np.ones(image.shape, dtype=bool)
            kept = (label > 0) | away[np.rint(peaks.y).astype(int), np.rint(peaks.x).astype(int)]
            features = seen.clutter_features(peaks)
            parts.append((features[kept], label[kept], np.full(kept.sum(), index)))
            number += len(truth)
    return Candidates(*(np.concatenate(each) for each in zip(*parts, strict=True))), number


def inject(image: FloatArray, psf: GaussianPSF, number: int, rng: np.random.Generator) -> list[Targets]:
    """Groups of one to five targets at random places of a frame, away from each other."""
    size, taken, found = np.array(image.shape[::-1]), np.empty((0, 2)), []
    for _ in range(number):
        count, separation = int(rng.choice(injected.COUNTS)), float(rng.choice(injected.SEPARATIONS))
        snr = float(np.exp(rng.uniform(*np.log(SNRS))))
        places = place_group(size, count, separation * RAYLEIGH_PER_SIGMA * psf.sigma_px, taken, rng)
        if places is None:
            continue
        taken = np.concatenate([taken, places])
        x, y = places.T
        noise = injected.local_noise(image, *places.mean(axis=0))
        found.append(Targets(x=x, y=y, intensity=snr * noise / psf.response(x - np.rint(x), y - np.rint(y))))
    return found


def distance_to(group: Targets, peaks: Peaks) -> FloatArray:
    """Distance (n,) in px of peaks from the nearest target of a group."""
    return np.asarray(np.hypot(peaks.x[:, None] - group.x, peaks.y[:, None] - group.y).min(axis=1))


def scenes_of(frames: list[LabelledFrame]) -> IntArray:
    """Number (frames,) of the scene that each frame shows; a frame of no scene of the split is one of its own."""
    split = json.loads(SPLIT.read_text(encoding="utf-8"))
    scenes = [scene for half in HALVES for of_source in split[half].values() for scene in of_source]
    number = {name: k for k, scene in enumerate(scenes) for name in scene}
    return np.array([number.setdefault(frame.name, len(scenes) + k) for k, frame in enumerate(frames)])


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


def cross_validated(
    found: Candidates, used: NDArray[np.bool_], scene: IntArray, weight: FloatArray | None = None
) -> FloatArray:
    """Logarithm of the odds (n,) of each candidate by a fit to the other scenes."""
    weight = np.ones(len(scene)) if weight is None else weight
    logit = np.empty(len(scene))
    for number in np.unique(scene):
        out = scene == number
        kept = used & ~out
        weights = fit(found.features[kept], found.right[kept], weight[kept])
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


def fit(
    features: FloatArray, right: NDArray[np.bool_], weight: FloatArray | None = None, ridge: float = RIDGE
) -> FloatArray:
    """Coefficients (1 + k,) of a regularised logistic regression on features (n, k) with weights (n,)."""
    middle, spread = features.mean(axis=0), features.std(axis=0)
    design = np.concatenate([np.ones((len(features), 1)), (features - middle) / spread], axis=1)
    weight = np.ones(len(features)) if weight is None else weight

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        logit = design @ weights
        held = np.concatenate([[0.0], weights[1:]])
        value = float(np.sum(weight * (np.logaddexp(0.0, logit) - right * logit)) + ridge * held @ held)
        return value, design.T @ (weight * (expit(logit) - right)) + 2.0 * ridge * held

    found = np.asarray(minimize(loss, np.zeros(design.shape[1]), jac=True, method="BFGS").x)
    slopes = found[1:] / spread
    return np.concatenate([[found[0] - slopes @ middle], slopes])


if __name__ == "__main__":
    main()
