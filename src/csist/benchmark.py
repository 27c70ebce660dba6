"""Benchmark of all methods on one dataset, with their cost and training budget, grid oracles and posterior limit.

Detections are cached in a folder and reused while data, weights and version are the same, so that a table can be
recomputed, or a method added, without running the others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import compress, groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from csist import evaluation, metrics
from csist._version import package_version
from csist.checks import InputError, check_ratio
from csist.create import create_method
from csist.evaluation import (
    EXACT_MAP,
    LabelledImages,
    add_error_ratios,
    exact_map_row,
    grid_oracles,
    score_predictions,
)
from csist.files import write_text
from csist.grid import SubPixelGrid
from csist.io import targets_table, write_table
from csist.methods.table import METHODS, canonical_name, split_name
from csist.physics.symmetry import symmetries_of
from csist.targets import Targets
from csist.weights.cards import read_card, training_budget
from csist.weights.pretrained import find_pretrained

Report = Callable[[str, int, int], None]
Row = tuple[list[Targets], dict[str, Any]]
"""Detections of each image, and further figures of the row."""

READ_OUTS = ("", "+centroid", "+refine")
"""Suffixes of a grid method, one per read-out of its map."""

ENSEMBLE = "+ensemble"
"""Suffix of a further row of one method only, since it takes eight times as long."""

FAST = "continuous, fast"
"""Name of the row of the continuous method in its fast mode."""

LIMITS = ("limit, from the truth", "limit, annealed")
"""Names of the rows of the posterior limit, by the start of the chains."""
LIMIT_STEPS = 2_000_000

MEASURED = ("images_per_second", "psnr", "ssim", "squared_error")
"""Further figures of a row that are cached with its detections."""

COMPARED_WITH = "dista-net"
"""Method with which the trained methods are compared, image by image."""

SEPARATIONS_PX = (0.6, 0.7, 0.85)
"""Bin edges in px of the breakdown by smallest separation; one Rayleigh unit of the benchmark is 0.95 px."""


def every_method(ratio: int, data: LabelledImages) -> list[str]:
    """Return the rows of the table: methods without training or with weights for data and ratio, per read-out."""
    names: list[str] = []
    for name, entry in METHODS.items():
        if not entry.grid:
            names += [name, FAST]
            continue
        if entry.trained:
            try:
                find_pretrained(name, data.sensor, ratio)
            except InputError:
                continue
        names += [name + read_out for read_out in READ_OUTS]
        if name == COMPARED_WITH:
            names.append(name + ENSEMBLE)
    return names


def benchmark(
    data: LabelledImages,
    folder: Path,
    ratio: int = 3,
    methods: Sequence[str] | None = None,
    *,
    limit_images: int = 1000,
    resamples: int = 1000,
    progress: Report | None = None,
) -> dict[str, Any]:
    """Compute the figures of all methods at one ratio, in the form of `Evaluation.to_dict`.

    In addition to the keys of `score_predictions` and `evaluate`, a row has `breakdown`. A trained method also has
    `parameters`, `multiply_adds_per_image`, `training` (samples, minutes, seed, machine) and, if DISTA-Net is one of
    the rows, the `difference` to it in CSO-mAP by intensity, with its interval on the same resamples. Rows with maps
    have a `squared_error` and, if the exact map is one of the rows, `squared_error_ratio`, relative to the exact map.

    Args:
        data: images with their true targets.
        folder: folder of the cached detections.
        ratio: sub-pixel grid ratio.
        methods: rows, which may include `EXACT_MAP`; None for `every_method` and, if there is one, the exact map.
        limit_images: number of images, from the first, whose posterior limit is sampled; 0 for none.
        resamples: number of resamples of the bootstrap intervals; 0 for none.
        progress: called with (name, images done, images in all).

    Raises:
        InputError: if a method is unknown or has no weights.
    """
    check_ratio(ratio)
    rows: list[dict[str, Any]] = []
    plain: dict[str, list[Targets]] = {}

    def add(name: str, found: list[Targets], more: dict[str, Any]) -> None:
        truths = data.truths[: len(found)]
        figures = score_predictions(found, truths, resamples)
        parts = breakdown(found, truths, data.sensor.shape)
        rows.append({"name": name, "reference": False, **figures, **more, "breakdown": parts})

    grid = SubPixelGrid(data.sensor.shape, ratio)
    names = [*(every_method(ratio, data) if methods is None else methods)]
    exact = EXACT_MAP in names or (methods is None and data.prior.single_pixel)
    names = [name for name in names if name != EXACT_MAP]
    families = [list(family) for _, family in groupby(names, lambda name: name.partition("+")[0])]
    for family in families:
        for name, (found, extra) in _detections(family, data, folder, ratio, progress).items():
            add(name, found, {**extra, **facts(name, data, ratio)})
            if "training" in rows[-1] and "+" not in name:
                plain[name] = found
    for row in rows:
        if row["name"] in plain and COMPARED_WITH in plain and resamples:
            pair = plain[row["name"]], plain[COMPARED_WITH]
            row["difference"] = {
                "to": COMPARED_WITH,
                "CSO-mAP": metrics.bootstrap_difference(
                    *pair, data.truths, 0, resamples=resamples, rank_by="intensity"
                ),
            }
    if exact:
        found, extra = _exact_map(data, grid, folder, progress)
        add(EXACT_MAP, found, {"reference": True, **extra})
        add_error_ratios(rows)
    for by, found in grid_oracles(data.truths, grid).items():
        add(f"oracle, ratio {ratio}, by {by}", found, {"reference": True})
    if limit_images:
        part = min(limit_images, len(data))
        for name, found in zip(LIMITS, _limit(data, part, folder, progress), strict=True):
            add(name, found, {"reference": True, "images": part, "limit": True})
    return {"data": data.describe(), "ratio": ratio, "rows": rows}


def with_earlier_rows(result: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Add to a result the rows that only an earlier result on the same data has, reference rows last.

    Earlier rows lose their `difference` if the row that they were compared with is new.

    Args:
        result: result of `benchmark`.
        earlier: earlier result of `benchmark`; ignored if its data or ratio differ, empty if there is none.
    """
    if earlier.get("ratio") != result["ratio"] or _differing(earlier, result["data"]):
        return result
    known = earlier["rows"]
    if any(row["name"] == COMPARED_WITH for row in result["rows"]):
        known = [{key: value for key, value in row.items() if key != "difference"} for row in known]
    rows = {row["name"]: row for row in [*known, *result["rows"]]}
    add_error_ratios(list(rows.values()))
    return result | {"rows": sorted(rows.values(), key=lambda row: bool(row["reference"]))}


def check_earlier(earlier: dict[str, Any], data: LabelledImages, path: Path) -> None:
    """Check that the rows of an earlier result can stay beside those on some data, wherever these lie now.

    Args:
        earlier: earlier result of `benchmark`; empty if there is none.
        data: images of the new rows.
        path: file of the earlier result, for the message.

    Raises:
        InputError: if the earlier result is of other data.
    """
    others = _differing(earlier, data.describe()) if earlier else []
    if others:
        raise InputError(
            f"{path} has rows on other data (its {others[0]} differs): measure all methods, or give another --output"
        )


def _differing(earlier: dict[str, Any], data: dict[str, Any]) -> list[str]:
    """Names of what an earlier result says otherwise of its data, but for their path."""
    before = earlier.get("data", {})
    return [name for name, value in data.items() if name != "path" and before.get(name) != value]


def _method(name: str) -> str:
    """Return the registry name of the method of a row, with its suffix."""
    return canonical_name("continuous" if name == FAST else name)


def _weights(name: str, data: LabelledImages, ratio: int) -> Path | None:
    """Return the weight file of the method of a row; None for methods without weights."""
    key = split_name(_method(name))[0]
    return find_pretrained(key, data.sensor, ratio) if METHODS[key].trained else None


def _key(data: LabelledImages, **more: Any) -> dict[str, Any]:
    """Return the key under which detections are cached."""
    content = hashlib.sha256(data.images.tobytes()).hexdigest()
    told = {"sensor": data.sensor.to_card(), "prior": data.prior.to_card()}
    key = {"images": content, "split": data.split, "version": package_version(), "figures": list(MEASURED), **told}
    return dict(json.loads(json.dumps(key | more)))  # as it is read again


def _read_kept(stem: Path, key: dict[str, Any], data: LabelledImages) -> Row | None:
    """Read the detections and further figures of a row from the cache; None if they are not there."""
    table, note = stem.with_suffix(".parquet"), stem.with_suffix(".json")
    if table.is_file() and note.is_file():
        kept = json.loads(note.read_text(encoding="utf-8"))
        if kept["key"] == key:
            return evaluation.read_predictions(table, data), kept["extra"]
    return None


def _keep(stem: Path, key: dict[str, Any], data: LabelledImages, row: Row) -> None:
    """Write the detections and further figures of a row to the cache."""
    found, extra = row
    table, note = stem.with_suffix(".parquet"), stem.with_suffix(".json")
    stem.parent.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)  # a table without its note is ignored
    named = zip(data.names, found, strict=False)
    write_table(targets_table([(image, frame, targets) for (image, frame), targets in named]), table)
    write_text(json.dumps({"key": key, "extra": extra}) + "\n", note)


def _detections(
    family: Sequence[str], data: LabelledImages, folder: Path, ratio: int, progress: Report | None
) -> dict[str, Row]:
    """Return the detections and further figures of the rows of one method, which share its maps."""
    name = family[0]
    weights, mode = _weights(name, data, ratio), "fast" if name == FAST else None
    state = None if weights is None else hashlib.sha256(weights.read_bytes()).hexdigest()
    grid = METHODS[split_name(_method(name))[0]].grid

    places = {
        each: (
            folder / (each.replace(", ", "-") + (f"-ratio-{ratio}" if grid else "")),
            _key(data, method=_method(each), ratio=ratio if grid else None, weights=state),
        )
        for each in family
    }
    rows = {each: _read_kept(*places[each], data) for each in family}
    missing = {_method(each): each for each, row in rows.items() if row is None}
    if missing:
        result = evaluation.evaluate(
            data, list(missing), ratio, mode=mode, references=(), resamples=0, progress=progress
        )
        for figures in result.rows:
            extra: dict[str, Any] = {k: figures[k] for k in MEASURED if k in figures}
            each, row = missing[figures["name"]], (result.predictions[figures["name"]], extra)
            _keep(*places[each], data, row)
            rows[each] = row
    return {each: row for each, row in rows.items() if row is not None}


def _exact_map(data: LabelledImages, grid: SubPixelGrid, folder: Path, progress: Report | None) -> Row:
    """Return the detections of the exact maps, and the squared error of the maps."""
    place = folder / f"exact-map-ratio-{grid.ratio}", _key(data, method=EXACT_MAP, ratio=grid.ratio)
    row = _read_kept(*place, data)
    if row is None:
        row = exact_map_row(data, grid, None, progress)
        _keep(*place, data, row)
    return row


def _limit(data: LabelledImages, part: int, folder: Path, progress: Report | None) -> list[list[Targets]]:
    """Return the detections of the posterior on the first images, for both sets of chains."""
    from csist.methods.continuous.limit import posterior_limit

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress("limit", done, total)

    places = [
        (folder / name.replace(", ", "-").replace(" ", "-"), _key(data, limit=name, steps=LIMIT_STEPS, part=part))
        for name in LIMITS
    ]
    kept = [row[0][:part] for place in places if (row := _read_kept(*place, data)) is not None]
    if len(kept) == len(places):
        return kept
    images, truths = data.images[:part], data.truths[:part]
    found = posterior_limit(images, truths, data.sensor, data.prior, steps=LIMIT_STEPS, progress=report)
    for place, targets in zip(places, found, strict=True):
        _keep(*place, data, (targets, {}))
    return list(found)


def facts(name: str, data: LabelledImages, ratio: int) -> dict[str, Any]:
    """Return the parameters, multiply-adds per image and training budget of a trained method; empty for others."""
    path = _weights(name, data, ratio)
    if path is None:
        return {}
    from csist.methods.cost import costs

    card = read_card(path)
    spent = costs(create_method(split_name(_method(name))[0], data.sensor, ratio, path), data.sensor.shape)
    if name.endswith(ENSEMBLE):
        spent["multiply_adds_per_image"] *= len(symmetries_of(data.sensor))
    return {
        **spent,
        "training": {k: card["training"].get(k) for k in ("seed", "machine")} | training_budget(card),
    }


def breakdown(found: Sequence[Targets], truths: Sequence[Targets], shape: tuple[int, int]) -> dict[str, Any]:
    """Compute CSO-mAP in percent on subsets of the images: by number of targets, smallest separation and border.

    Args:
        found: detections, one `Targets` per image.
        truths: true targets, one `Targets` per image.
        shape: (rows, columns) of the images.

    Returns:
        For each kind of subset, a dictionary from its name to the number of images and CSO-mAP; empty subsets are left
        out.
    """
    closest = np.array([_smallest_distance(truth) for truth in truths])
    rows, columns = shape
    border = np.array(
        [
            bool(((t.x < 0.5) | (t.y < 0.5) | (t.x > columns - 1.5) | (t.y > rows - 1.5)).any()) if len(t) else False
            for t in truths
        ]
    )
    count = np.array([len(truth) for truth in truths])
    edges = (0.0, *SEPARATIONS_PX, np.inf)
    spans = {f"{low:g} to {high:g} px": (closest >= low) & (closest < high) for low, high in pairwise(edges)}
    parts = {
        "targets": {str(k): count == k for k in np.unique(count)},
        "smallest distance": {**spans, "one target": ~np.isfinite(closest)},
        "border": {"in a border pixel": border, "inside": ~border},
    }
    return {
        kind: {
            part: {
                "images": int(chosen.sum()),
                "CSO-mAP": metrics.cso_map(list(compress(found, chosen)), list(compress(truths, chosen)))["CSO-mAP"],
            }
            for part, chosen in choices.items()
            if chosen.any()
        }
        for kind, choices in parts.items()
    }


def _smallest_distance(targets: Targets) -> float:
    """Return the smallest distance in px between two targets of an image; infinite for fewer than two."""
    if len(targets) < 2:
        return float("inf")
    first, second = np.triu_indices(len(targets), 1)
    return float(np.hypot(targets.x[first] - targets.x[second], targets.y[first] - targets.y[second]).min())
