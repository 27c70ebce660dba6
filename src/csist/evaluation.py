"""Evaluation of methods on labelled images: one row of figures per method, with grid oracles as reference rows.

Grid oracles know every target; their only error is the grid, because a read-out reports cell centres. Ranked by
intensity, they score what a perfect map would. Ranked by closeness (score = - distance to the truth), they score the
maximum of any ranking of a grid read-out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from csist import metrics
from csist._types import FloatArray, IntArray
from csist.checks import InputError, check_ratio
from csist.create import create_method, follow
from csist.datasets.grokcso import image_folder, is_grokcso, read_grokcso
from csist.files import natural_key
from csist.grid import SubPixelGrid
from csist.io import read_targets_table
from csist.io.store import SPLITS, STORE_SUFFIXES, load
from csist.methods.exact_map import check_has_exact_map, exact_maps
from csist.methods.table import abilities, canonical_name, split_name
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, suited, targets_from_arrays
from csist.targets import Targets
from csist.trajectories import prior_of_frames

Progress = Callable[[int, int], None]

BLOCK = 512
"""Number of images whose maps are held in memory at a time."""

EXACT_MAP = "exact map"
REFERENCES = ("oracle", EXACT_MAP)
"""Names of the reference rows that no method can beat."""

SCORE_NAMES = ("CSO-mAP", "AP05", "AP10", "AP15", "AP20", "AP25")


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images of one split with their true targets.

    Args:
        path: file or folder of the images.
        split: train, val or test.
        images: (N, H, W) in counts.
        truths: true targets of each image.
        sensor: sensor of the images.
        prior: prior of the scenes.
        names: name of each image in a table of targets, (image, frame).
        total: number of images in the whole split.
        trajectory: (N,) number of the sequence of each image; None where the images are no sequences.
    """

    path: Path
    split: str
    images: FloatArray = field(repr=False)
    truths: list[Targets] = field(repr=False)
    sensor: Sensor
    prior: ScenePrior
    names: list[tuple[str, int]] = field(repr=False)
    total: int
    trajectory: IntArray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def describe(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return {
            "path": str(self.path),
            "split": self.split,
            "images": len(self.images),
            "images_in_split": self.total,
            "targets": sum(map(len, self.truths)),
            "sensor": self.sensor.to_card(),
            "prior": self.prior.to_card(),
        }


def read_labelled(
    path: str | Path, split: str = "test", limit: int | None = None, progress: Progress | None = None
) -> LabelledImages:
    """Read one split of a store (.h5) or of a folder in the GrokCSO layout.

    Args:
        path: the store or folder.
        split: train, val or test.
        limit: number of images to read from the start of the split; None for all.
        progress: called with (files read, files in all) for a folder.

    Raises:
        InputError: if the data cannot be read, the split is missing or empty, or `limit` is below 1.
    """
    path = Path(path)
    if limit is not None and limit < 1:
        raise InputError(f"limit must be a whole number >= 1, got {limit}")
    if path.is_dir():
        if not is_grokcso(path):
            raise InputError(f"cannot evaluate on {path}: neither a store (.h5) nor the folder of a GrokCSO dataset")
        return _read_folder(path, split, limit, progress)
    if path.exists() and path.suffix.lower() not in STORE_SUFFIXES:
        raise InputError(f"cannot evaluate on {path}: give a store (.h5) or the folder of a GrokCSO dataset")
    store = load(path)
    whole = store[split]
    part = whole.limit(limit)
    if not len(part):
        raise InputError(f"the split {split} of {path} holds no image")
    names = [(path.name, index) for index in range(len(whole))]
    prior = prior_of_frames(part.prior, store.motion)
    return LabelledImages(
        path, split, part.images, part.targets, part.sensor, prior, names, len(whole),
        None if store.motion is None else part.trajectory,
    )  # fmt: skip


def _read_folder(path: Path, split: str, limit: int | None, progress: Progress | None) -> LabelledImages:
    data = read_grokcso(path, progress)
    if split not in data.splits:
        raise InputError(f"{path} has no split {split!r}: it has {', '.join(data.splits)}")
    arrays = data.splits[split]
    total = len(arrays.images)
    if not total:
        raise InputError(f"the split {split} of {path} holds no image")
    folder = image_folder(path / split) or image_folder(path) or path
    files = sorted((file.name for file in folder.glob("image_*.png")), key=natural_key)
    images = arrays.images[:limit].astype(np.float64)
    truths = targets_from_arrays(arrays.targets[:limit], arrays.count[:limit])
    names = [(name, 0) for name in files]
    prior = prior_of_frames(data.prior, data.motion)
    return LabelledImages(path, split, images, truths, data.sensor, prior, names, total)


def read_predictions(path: str | Path, data: LabelledImages) -> list[Targets]:
    """Read the detections of each image from a table written by `csist unmix`; an image without a row has none.

    Images are identified by (image, frame). Folders in the image name are ignored, but for the name of another split:
    its images may have the same names. If the data is a single file, the name is ignored as well, so that a renamed
    store still matches.

    Raises:
        InputError: if the table cannot be read, or has rows for images that are not in the data.
    """
    table = read_targets_table(path)
    single = len({name for name, _ in data.names}) == 1
    files = {name for name, _ in table}
    if single and len(files) > 1:
        raise InputError(f"{path} has targets of {len(files)} files, but {data.path} is one file")
    place = {name: index for index, name in enumerate(data.names)}
    found: dict[int, Targets] = {}
    others = set(SPLITS) - {data.split}
    for (name, frame), targets in table.items():
        *folders, file = name.split("/")
        key = (data.names[0][0] if single else file, frame)
        if key not in place or (not single and not others.isdisjoint(folders)):
            raise InputError(
                f"{path} has targets of image {name}, frame {frame}, which the split {data.split} of {data.path} "
                f"({data.total} images) does not have"
            )
        if place[key] in found:
            raise InputError(
                f"{path} has targets of two images named {file}, frame {frame}: give a table of one folder"
            )
        found[place[key]] = targets
    return [found.get(index, Targets.empty()) for index in range(len(data))]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Figures of several methods on the same images.

    Args:
        data: description of the images.
        ratio: sub-pixel grid ratio.
        rows: one dictionary per method, JSON-ready except for NaN; see `score_predictions` for the keys.
        predictions: detections of each image, by name of the row.
    """

    data: dict[str, Any]
    ratio: int
    rows: list[dict[str, Any]]
    predictions: dict[str, list[Targets]] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures without the detections."""
        return {"data": self.data, "ratio": self.ratio, "rows": self.rows}


def evaluate(
    data: LabelledImages,
    methods: Sequence[str] = ("continuous",),
    ratio: int = 3,
    *,
    prior: ScenePrior | None = None,
    mode: str | None = None,
    weights: str | Path | None = None,
    runtime: str = "torch",
    predictions: Mapping[str, Sequence[Targets]] | None = None,
    references: Sequence[str] = ("oracle",),
    resamples: int = 1000,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """Run methods on labelled images and score them together with existing detections.

    Sensor, noise and (for the continuous method and `NAME+refine`) prior are those of the data, so that the score is
    not limited by a wrong model.

    Args:
        data: images with their true targets.
        methods: registry names, with or without a suffix.
        ratio: sub-pixel grid ratio of grid methods and oracle.
        prior: prior of the continuous method and `NAME+refine`; None for that of the data.
        mode: mode of the continuous method; None for its default.
        weights: weight file, for a single trained method; None for the weights in the package.
        runtime: library that computes the maps of grid methods, see `create_method`.
        predictions: existing detections, one `Targets` per image, by name of the row.
        references: reference rows to add, from `REFERENCES`: the grid oracles, and the exact map (see
            `csist.methods.exact_map`), which takes as long as the continuous method.
        resamples: number of resamples of the bootstrap intervals; 0 for none.
        seed: seed of the bootstrap.
        progress: called with (name, images done, images in all).

    Raises:
        InputError: if a method or an option is invalid, or a batch has the wrong length.
    """
    check_ratio(ratio)
    grid = suited(SubPixelGrid(data.sensor.shape, ratio), prior or data.prior, data.sensor)
    if EXACT_MAP in references:
        check_has_exact_map(prior or data.prior)
    families = _prepare(methods, data, ratio, prior=prior, mode=mode, weights=weights, runtime=runtime)
    rows: list[dict[str, Any]] = []
    kept: dict[str, list[Targets]] = {}

    def add(name: str, found: list[Targets], extra: Mapping[str, Any], reference: bool = False) -> None:
        figures = score_predictions(found, data.truths, resamples, seed)
        rows.append({"name": name, "reference": reference, **figures, **extra})
        kept[name] = found

    results = {name: result for family in families for name, result in _run(family, data, progress).items()}
    for name in map(canonical_name, methods):
        add(name, *results[name])
    for name, given in (predictions or {}).items():
        add(name, list(given), {})
    if EXACT_MAP in references:
        add(EXACT_MAP, *exact_map_row(data, grid, prior, progress), reference=True)
        add_error_ratios(rows)
    if "oracle" in references:
        for by, found in grid_oracles(data.truths, grid).items():
            add(f"oracle, ratio {ratio}, by {by}", found, {}, reference=True)
    return Evaluation(data.describe(), ratio, rows, kept)


class Family(NamedTuple):
    """Methods that share the maps of one grid method, which are computed once.

    Args:
        grid: grid method; None for a single method without a map.
        members: methods by name.
    """

    grid: Any
    members: dict[str, Any]


def _prepare(
    names: Sequence[str],
    data: LabelledImages,
    ratio: int,
    *,
    prior: ScenePrior | None,
    mode: str | None,
    weights: str | Path | None,
    runtime: str,
) -> list[Family]:
    """Build all methods, grouped into families that share the maps of one grid method.

    All methods are built before the first one runs, so that errors show immediately.
    """
    families: dict[str, Family] = {}
    for name in names:
        key, suffix = split_name(name)
        if not abilities(name).grid:
            options: dict[str, Any] = {} if mode is None else {"mode": mode}
            noise = data.sensor.pixel_noise  # given explicitly: 0 means no noise instead of "estimate it"
            method = create_method(key, data.sensor, prior=prior or data.prior, noise_std=noise, **options)
            families[key] = Family(None, {key: method})
        else:
            if key not in families:
                families[key] = Family(create_method(key, data.sensor, ratio, weights, runtime), {})
                families[key].grid.suit(prior or data.prior)
            grid = families[key].grid
            known = {"prior": prior or data.prior} if abilities(name).prior else {}
            method = grid if suffix is None else follow(suffix, grid, **known)
            families[key].members[canonical_name(name)] = method
    return list(families.values())


def _run(
    family: Family, data: LabelledImages, progress: Callable[[str, int, int], None] | None
) -> dict[str, tuple[list[Targets], dict[str, Any]]]:
    """Return the detections, images per second and, for a grid method, map fidelity of each method of a family."""
    grid, members = family.grid, family.members
    for method in members.values():
        method.predict(data.images[:2])  # warm-up: the first call compiles code and starts thread pools
    found: dict[str, list[Targets]] = {name: [] for name in members}
    spent = dict.fromkeys(members, 0.0)
    fidelity: list[tuple[int, dict[str, float]]] = []
    start, size = 0, 32
    while start < len(data):
        block = data.images[start : start + (BLOCK if grid else size)]
        start_time = time.perf_counter()
        maps = None if grid is None else grid.predict_maps(block)
        shared = time.perf_counter() - start_time  # counted for each method: run alone, it would compute the maps
        for name, method in members.items():
            start_time = time.perf_counter()
            found[name] += method.predict(block) if maps is None else method.read(block, maps)
            elapsed = shared + time.perf_counter() - start_time
            spent[name] += elapsed
        if maps is not None and grid in members.values():
            fidelity.append((len(block), _map_fidelity(grid.grid, maps, data.truths[start : start + len(block)])))
        start += len(block)
        # Blocks of about a second: long enough to use all threads, short enough for progress and Ctrl-C.
        size = int(np.clip(size * 2 if elapsed < 0.5 else size, 32, 4096))
        if progress is not None:
            progress(", ".join(members), start, len(data))
    extra: dict[str, dict[str, Any]] = {
        name: {"images_per_second": len(data) / max(seconds, 1e-9)} for name, seconds in spent.items()
    }
    for name, method in members.items():
        if method is grid:
            weight = [count for count, _ in fidelity]
            for key in fidelity[0][1]:
                extra[name][key] = float(np.average([values[key] for _, values in fidelity], weights=weight))
    return {name: (found[name], extra[name]) for name in members}


def _map_fidelity(grid: SubPixelGrid, maps: FloatArray, truths: Sequence[Targets]) -> dict[str, float]:
    """Return the PSNR in dB, SSIM and mean squared error per cell in counts^2."""
    true = np.stack([grid.encode(targets) for targets in truths])
    fits = min(true.shape[1:]) >= metrics.functional.SSIM_WINDOW_PX
    return {
        "psnr": metrics.psnr(maps, true),
        "ssim": metrics.ssim(maps, true) if fits else float("nan"),
        "squared_error": float(((maps - true) ** 2).mean()),
    }


def exact_map_row(
    data: LabelledImages, grid: SubPixelGrid, prior: ScenePrior | None, progress: Callable[[str, int, int], None] | None
) -> tuple[list[Targets], dict[str, Any]]:
    """Return the detections read out from the exact maps, and the mean squared error of the maps.

    Raises:
        InputError: if the prior has no exact map.
    """
    found: list[Targets] = []
    squared = 0.0
    started = time.perf_counter()
    for start in range(0, len(data), BLOCK):
        truths = data.truths[start : start + BLOCK]
        maps = exact_maps(data.images[start : start + BLOCK], grid, data.sensor, prior or data.prior)
        found += [grid.decode(cells) for cells in maps]
        true = np.stack([grid.encode(targets) for targets in truths])
        squared += float(((maps - true) ** 2).mean(axis=(1, 2)).sum())
        if progress is not None:
            progress(EXACT_MAP, len(found), len(data))
    speed = len(data) / max(time.perf_counter() - started, 1e-9)
    return found, {"images_per_second": speed, "squared_error": squared / len(data)}


def add_error_ratios(rows: Sequence[dict[str, Any]]) -> None:
    """Set `squared_error_ratio`, the squared error relative to the exact map, in place in rows with a squared error."""
    exact = [row["squared_error"] for row in rows if row["name"] == EXACT_MAP]
    for row in rows:
        if exact and "squared_error" in row:
            row["squared_error_ratio"] = row["squared_error"] / max(exact[-1], 1e-9)


def grid_oracles(truths: Sequence[Targets], grid: SubPixelGrid) -> dict[str, list[Targets]]:
    """Return the detections of a grid read-out that knows the truth, by ranking: "intensity" and "closeness"."""
    snapped = [grid.snap(truth) for truth in truths]
    return {
        "intensity": [targets.replace(score=targets.intensity) for targets in snapped],
        "closeness": [
            targets.replace(score=-np.hypot(targets.x - truth.x, targets.y - truth.y))
            for targets, truth in zip(snapped, truths, strict=True)
        ],
    }


def states_scores(predictions: Sequence[Targets]) -> bool:
    """Whether any detection has a score."""
    return any(np.isfinite(targets.score).any() for targets in predictions)


def states_probabilities(predictions: Sequence[Targets]) -> bool:
    """Return whether all scores lie in [0, 1], as probabilities do and cell values in counts do not."""
    score = np.concatenate([np.zeros(0), *[targets.score for targets in predictions]])
    return bool(score.size) and bool(np.all((score >= 0) & (score <= 1)))


def score_predictions(
    predictions: Sequence[Targets], truths: Sequence[Targets], resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Compute all figures of one method.

    Args:
        predictions: detections, one `Targets` per image.
        truths: true targets, one `Targets` per image.
        resamples: number of bootstrap resamples; 0 for no interval.
        seed: seed of the bootstrap.

    Returns:
        CSO-mAP and AP05 to AP25 in percent, ranked by score; interval, the 95 % interval of CSO-mAP (or None);
        by_intensity, the six values ranked by intensity; count_accuracy in percent; detections; errors, see
        `csist.metrics.error_summary` (pairs within 0.5 px); calibration, with expected_calibration_error
        within 0.25 px, and coverage of the stated standard errors, for methods that state them (else None).

    Raises:
        InputError: if the batches differ in length.
    """
    figures: dict[str, Any] = dict(metrics.cso_map(predictions, truths))
    figures["interval"] = None
    if resamples:
        interval = metrics.bootstrap_interval(predictions, truths, seed, resamples=resamples)
        figures["interval"] = [interval.low, interval.high]
    figures["by_intensity"] = metrics.cso_map(predictions, truths, rank_by="intensity")
    figures["count_accuracy"] = 100.0 * metrics.count_accuracy(predictions, truths)
    figures["detections"] = sum(map(len, predictions))
    errors = metrics.match_errors(predictions, truths, max_distance_px=0.5)
    figures["errors"] = metrics.error_summary(errors)
    figures["calibration"] = None
    if states_probabilities(predictions):
        figures["calibration"] = {"expected_calibration_error": metrics.expected_calibration_error(predictions, truths)}
    stated = np.isfinite(errors.x_std).any() or np.isfinite(errors.intensity_std).any()
    figures["coverage"] = metrics.coverage(errors) if stated else None
    return figures
