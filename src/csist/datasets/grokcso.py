"""Files of the published dataset: PNG images and XML annotations, read, checked against the forward model, and written.

Layout of one split: `cso_img/image_{id}.png` and `Annotations/CSO{id}.xml`; a dataset is one such folder or
has the sub-folders train, val and test. An annotation holds size{width, height}, sigma and any number of
object{coordinate{xc, yc, brightness}}.

The files do not state whether coordinates start at 0 or 1, nor whether xc is the column or the row (the published code
reads them one way for images and the other way for labels). The annotations are therefore rendered under all four
conventions and compared with the images; the convention that explains the images is used.

Source for the layout: GrokCSO, https://github.com/GrokCV/GrokCSO (Han et al., ICCV 2025, arXiv 2505.19148).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from defusedxml import ElementTree
from numpy.typing import NDArray

from csist._types import FloatArray
from csist.checks import InputError
from csist.files import atomic_path, check_new_folder, natural_key, reading
from csist.io import read_image
from csist.io.store import (
    SPLITS,
    STORE_SUFFIXES,
    Progress,
    Split,
    SplitArrays,
    Store,
    check_store_path,
    load,
    write_store,
)
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import ROUNDING_VARIANCE, Sensor
from csist.scenes import ScenePrior, targets_from_arrays
from csist.targets import Targets

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

IMAGE_FOLDER, ANNOTATION_FOLDER = "cso_img", "Annotations"
PREFIXES = ("CSO", "COS", "CSO_", "COS_")
"""File name prefixes of annotations found in practice, before the id."""

CARD_NAME = "csist.json"
"""File with sensor, prior and seed, which the published layout cannot hold; other readers ignore it."""

PROBE = 64
"""Number of images used to decide the convention of the coordinates."""

LEAST_EXPLAINED = 0.5
"""Smallest fraction of the variance of the images that the annotations must explain. The right convention explains
over 0.9 even with read noise of 5 counts; a wrong one misplaces the light and does worse than an empty image."""


@dataclass(frozen=True)
class Convention:
    """Convention of the coordinates of a dataset.

    Args:
        x_is_column: whether xc is the column (else the row).
        first: number of the first pixel, 0 or 1.
        explained: fraction of the variance of the images explained under this convention; NaN without targets.
    """

    x_is_column: bool
    first: int
    explained: float

    def __str__(self) -> str:
        axis = "column" if self.x_is_column else "row"
        return f"xc is the {axis}, pixels count from {self.first} ({100 * self.explained:.2f} % explained)"


@dataclass(frozen=True, eq=False)
class GrokCSOData:
    """Result of `read_grokcso`: arrays by split, and their common metadata.

    Args:
        splits: images and targets by name of the split.
        convention: convention of the coordinates in the files.
        sensor: sensor of the images.
        prior: scene prior.
        seed: seed of the dataset; None if the files do not state it.
    """

    splits: dict[str, SplitArrays]
    convention: Convention
    sensor: Sensor
    prior: ScenePrior
    seed: int | None


@dataclass(frozen=True)
class _Annotation:
    shape: tuple[int, int]
    sigma_px: float
    points: tuple[tuple[float, float, float], ...]


def is_grokcso(path: str | Path) -> bool:
    """Return whether a folder has the published layout.

    Args:
        path: the folder.
    """
    return bool(_split_folders(Path(path)))


def _split_folders(root: Path) -> dict[str, Path]:
    found = {name: root / name for name in SPLITS if (root / name / IMAGE_FOLDER).is_dir()}
    return found or ({"": root} if (root / IMAGE_FOLDER).is_dir() else {})


def _number(element: Element, name: str, path: Path) -> float:
    child = element.find(name)
    if child is None or not (child.text or "").strip():
        raise InputError(f"{path} lacks the field {element.tag}/{name}")
    try:
        value = float(child.text or "")
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(f"{path}: {element.tag}/{name} must be a number, got {(child.text or '').strip()[:40]!r}")
    return value


def _child(element: Element, name: str, path: Path) -> Element:
    child = element.find(name)
    if child is None:
        raise InputError(f"{path} lacks the field {element.tag}/{name}")
    return child


def _read_annotation(path: Path) -> _Annotation:
    with reading(path):
        # Entities and document types are rejected: a file of 1 KB could otherwise expand to gigabytes.
        root = ElementTree.parse(path, forbid_dtd=True).getroot()
    size = _child(root, "size", path)
    shape = _number(size, "height", path), _number(size, "width", path)
    points = []
    for item in root.iter("object"):
        coordinate = _child(item, "coordinate", path)
        points.append(
            (
                _number(coordinate, "xc", path),
                _number(coordinate, "yc", path),
                _number(coordinate, "brightness", path),
            )
        )
    return _Annotation((int(shape[0]), int(shape[1])), _number(root, "sigma", path), tuple(points))


def _annotation_path(folder: Path, number: str, image: Path) -> Path:
    for prefix in PREFIXES:
        path = folder / f"{prefix}{number}.xml"
        if path.is_file():
            return path
    raise InputError(f"{image} has no annotation: {folder / f'{PREFIXES[0]}{number}.xml'} is missing")


def _read_split(folder: Path, tick: Callable[[], None]) -> tuple[NDArray[Any], list[_Annotation], list[Path]]:
    """Read the images (N, H, W), annotations and image paths of one split, in natural order of the ids."""
    annotations = folder / ANNOTATION_FOLDER
    if not annotations.is_dir():
        raise InputError(f"{folder} has {IMAGE_FOLDER} but no folder {ANNOTATION_FOLDER}")
    numbered = {
        match[1]: path
        for path in (folder / IMAGE_FOLDER).iterdir()
        if (match := re.fullmatch(r"image_(.+)\.png", path.name))
    }
    for path in annotations.glob("*.xml"):
        match = re.fullmatch(r"(?:CSO|COS)_?(.+)\.xml", path.name)
        if match and match[1] not in numbered:
            raise InputError(f"{path} has no image: {folder / IMAGE_FOLDER / f'image_{match[1]}.png'} is missing")
    frames: list[NDArray[Any]] = []
    truths: list[_Annotation] = []
    paths: list[Path] = []
    for number in sorted(numbered, key=natural_key):
        path = numbered[number]
        xml_path = _annotation_path(annotations, number, path)
        truth = _read_annotation(xml_path)
        stack = read_image(path)
        if stack.shape[1:] != truth.shape:
            raise InputError(f"{path} has (rows, columns) = {stack.shape[1:]}, but {xml_path} says {truth.shape}")
        if truths and (truth.shape != truths[0].shape or truth.sigma_px != truths[0].sigma_px):
            raise InputError(
                f"{xml_path} has sigma {truth.sigma_px} and (rows, columns) = {truth.shape}, the first one "
                f"has {truths[0].sigma_px} and {truths[0].shape}: split the dataset by sensor"
            )
        if frames and stack.data.dtype != frames[0].dtype:
            raise InputError(f"{path} has the pixel type {stack.data.dtype}, the first image has {frames[0].dtype}")
        frames.append(stack.data[0])
        truths.append(truth)
        paths.append(path)
        tick()
    return (np.stack(frames) if frames else np.empty((0, 0, 0), np.uint8)), truths, paths


def _targets(truth: _Annotation, convention: Convention) -> Targets:
    points = np.array(truth.points, dtype=np.float64).reshape(-1, 3)
    x, y = (0, 1) if convention.x_is_column else (1, 0)
    return Targets(x=points[:, x] - convention.first, y=points[:, y] - convention.first, intensity=points[:, 2])


def _render(sensor: Sensor, truths: list[_Annotation], convention: Convention) -> FloatArray:
    arrays = SplitArrays.from_targets(np.empty(len(truths)), [_targets(truth, convention) for truth in truths])
    x, y, intensity = np.nan_to_num(arrays.targets, nan=0.0).transpose(2, 0, 1)
    return sensor.render_stack(x, y, intensity)


def _find_convention(
    root: Path, images: NDArray[Any], truths: list[_Annotation], sensor: Sensor
) -> tuple[Convention, Sensor]:
    """Return the convention that explains the images best, and the sensor with the background found with it."""
    seen = [i for i, truth in enumerate(truths) if truth.points][:PROBE]
    candidates = [Convention(column, first, np.nan) for first in (0, 1) for column in (True, False)]
    if not seen:
        return candidates[0], sensor
    limits = np.iinfo(images.dtype) if images.dtype.kind in "ui" else np.finfo(np.float64)
    observed = images[seen].astype(np.float64)
    spread = ((observed - np.median(observed)) ** 2).sum()
    best, best_background = candidates[0], 0.0
    for candidate in candidates:
        clean = _render(sensor, [truths[i] for i in seen], candidate)
        # Most pixels are dark, so the median difference is the background; below half a count it is rounding error.
        background = float(np.median(observed - clean))
        background = background if abs(background) > 0.5 else 0.0
        # Clip the model to the range of the pixel type, so that saturated images are compared correctly.
        model = np.clip(np.rint(clean + background), float(limits.min), float(limits.max))
        explained = float(1.0 - ((observed - model) ** 2).sum() / spread) if spread > 0 else -np.inf
        if np.isnan(best.explained) or explained > best.explained + 1e-12:
            best, best_background = replace(candidate, explained=explained), background
    if best.explained < LEAST_EXPLAINED:
        raise InputError(
            f"{root}: the annotations do not explain the images with sigma {truths[0].sigma_px}, neither "
            "with xc as column nor as row, counted from 0 or 1 (at best "
            f"{100 * best.explained:.0f} % of the variance): check that they belong together"
        )
    return best, replace(sensor, background=best_background)


def _measure_sensor(images: NDArray[Any], truths: list[_Annotation], convention: Convention, sensor: Sensor) -> Sensor:
    """Return the sensor with clipping and read noise measured on the first images."""
    seen = [i for i, truth in enumerate(truths) if truth.points][: 8 * PROBE]
    if not seen or images.dtype.kind != "u":
        return sensor
    depth, top = 8 * images.dtype.itemsize, float(np.iinfo(images.dtype).max)
    observed, clean = images[seen].astype(np.float64), _render(sensor, [truths[i] for i in seen], convention)
    clipped = bool(((observed == top) & (clean > top + 1.0)).any())
    # Only bright, unsaturated pixels: dark ones may have been clipped at 0.
    lit = (clean > 10.0) & (clean < 0.9 * top) & (observed < top)
    variance = float(np.mean((observed - clean)[lit] ** 2)) if lit.any() else 0.0
    # Printed coordinates are rounded too, which adds a few hundredths of a count^2.
    noise = float(np.sqrt(variance - ROUNDING_VARIANCE)) if variance > ROUNDING_VARIANCE + 0.05 else 0.0
    return replace(sensor, read_noise=noise, bits=depth if clipped or noise > 0 else None)


def _follows(prior: ScenePrior, splits: dict[str, SplitArrays]) -> bool:
    """Return whether all scenes follow the prior, to the precision of printed coordinates."""
    low, high = prior.intensity_range or (0.0, np.inf)
    for arrays in splits.values():
        held = np.isfinite(arrays.targets[..., 2])
        flux = arrays.targets[..., 2][held]
        if arrays.count.min(initial=1) < prior.count_range[0] or arrays.count.max(initial=1) > prior.count_range[1]:
            return False
        if flux.size and (flux.min() < low - 0.5 or flux.max() > high + 0.5):
            return False
        x, y = arrays.targets[..., 0], arrays.targets[..., 1]
        distance = np.hypot(x[:, :, None] - x[:, None, :], y[:, :, None] - y[:, None, :])
        pairs = distance[:, *np.triu_indices(x.shape[1], 1)]
        if (pairs < prior.min_separation_px - 0.02).any():
            return False
        if prior.single_pixel:
            spans = [v[held.any(axis=1)] for v in (x, y)]
            if any((np.nanmax(v, axis=1) - np.nanmin(v, axis=1) > 1.02).any() for v in spans if v.size):
                return False
    return True


def _read_card(root: Path) -> tuple[Sensor, ScenePrior, int | None] | None:
    path = root / CARD_NAME
    if not path.is_file():
        return None
    with reading(path):
        card = json.loads(path.read_text(encoding="utf-8"))
        seed = card["seed"]
        return (
            Sensor.from_card(card["sensor"]),
            ScenePrior.from_card(card["prior"]),
            None if seed is None else int(seed),
        )


def read_grokcso(root: str | Path, progress: Progress | None = None) -> GrokCSOData:
    """Read a dataset in the published layout and convert its coordinates (x is the column, from 0).

    A folder without the sub-folders train, val and test becomes the split test. Background, clipping and noise are
    measured on the images, unless the folder was written by csist and has a card.

    Args:
        root: folder of the dataset.
        progress: called with (images done, images in all).

    Raises:
        InputError: if the folder has another layout, a file is missing, damaged or lacks a field, sizes disagree,
            or the annotations do not explain the images.
    """
    root = Path(root)
    folders = _split_folders(root)
    if not folders:
        what = "no such folder" if not root.is_dir() else f"neither {IMAGE_FOLDER} nor train/{IMAGE_FOLDER} is in it"
        raise InputError(f"cannot read {root} as a GrokCSO dataset: {what}")
    total = sum(1 for folder in folders.values() for _ in (folder / IMAGE_FOLDER).glob("image_*.png"))
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None and (done % 500 == 0 or done == total):
            progress(done, total)

    raw = {name or "test": _read_split(folder, tick) for name, folder in folders.items()}
    filled = [entry for entry in raw.values() if entry[1]]
    if not filled:
        raise InputError(f"{root} holds no image_*.png in {IMAGE_FOLDER}")
    first_images, first_truths, _ = filled[0]
    first = first_truths[0]
    for _, truths, paths in filled:
        if (truths[0].sigma_px, truths[0].shape) != (first.sigma_px, first.shape):
            raise InputError(f"{paths[0]} and {filled[0][2][0]} differ in sigma or size: split the dataset by sensor")
    card = _read_card(root)
    known = card[0] if card else None
    sensor = Sensor(psf=GaussianPSF(first.sigma_px), shape=first.shape)
    convention, measured = _find_convention(root, first_images, first_truths, sensor)
    measured = known or _measure_sensor(first_images, first_truths, convention, measured)
    if measured.shape != first.shape:
        raise InputError(f"{root / CARD_NAME} says {measured.shape}, but the images have the shape {first.shape}")
    splits = {}
    for name, (images, truths, _) in raw.items():
        data = images if truths else np.empty((0, *first.shape), first_images.dtype)
        splits[name] = SplitArrays.from_targets(data, [_targets(truth, convention) for truth in truths])
    if card:
        return GrokCSOData(splits, convention, measured, card[1], card[2])
    benchmark = ScenePrior.csist_100k()
    prior = benchmark if _follows(benchmark, splits) else ScenePrior.flat()
    return GrokCSOData(splits, convention, measured, prior, None)


def check_storable(sensor: Sensor) -> None:
    """Check that the published layout can hold images of this sensor.

    Raises:
        InputError: if it cannot.
    """
    if not isinstance(sensor.psf, GaussianPSF):
        raise InputError(
            f"the GrokCSO layout holds a Gaussian PSF only, this sensor's is {sensor.psf.kind}: use the store"
        )
    if not sensor.quantised:
        raise InputError("the GrokCSO layout (PNG) holds whole counts only: use --bits 8 or 16, or keep the store")


def _annotation_text(name: str, targets: Targets, sigma_px: float, shape: tuple[int, int]) -> str:
    objects = "".join(
        "\t<object>\n\t\t<name>Target</name>\n\t\t<coordinate>\n"
        f"\t\t\t<xc>{x!r}</xc>\n\t\t\t<yc>{y!r}</yc>\n\t\t\t<brightness>{intensity!r}</brightness>\n"
        "\t\t</coordinate>\n\t</object>\n"
        for x, y, intensity in zip(targets.x.tolist(), targets.y.tolist(), targets.intensity.tolist(), strict=True)
    )
    return (
        f'<?xml version="1.0" ?>\n<annotation>\n\t<filename>{name}</filename>\n\t<size>\n'
        f"\t\t<width>{shape[1]}</width>\n\t\t<height>{shape[0]}</height>\n\t\t<depth>1</depth>\n\t</size>\n"
        f"\t<sigma>{sigma_px!r}</sigma>\n"
        f"{objects}</annotation>\n"
    )


def _check_values(split: Split) -> np.dtype[Any]:
    """Return the PNG pixel type that holds a split.

    Raises:
        InputError: if no type does.
    """
    counts = split.counts
    if not counts.size:
        return np.dtype(np.uint8 if counts.dtype.itemsize == 1 else np.uint16)
    low, high = counts.min(), counts.max()
    if low < 0 or high > 65535:
        image = int(np.argmax(((counts < 0) | (counts > 65535)).any(axis=(1, 2))))
        raise InputError(
            f"{split.path}, {split.name}: a PNG holds 0 to 65535, but values go from {low} to {high} "
            f"(first in image {image}): generate it with --clip or keep the store"
        )
    return np.dtype(np.uint8 if counts.dtype == np.uint8 else np.uint16)


def write_grokcso(store: Store, root: str | Path, progress: Progress | None = None) -> Path:
    """Write a store in the published layout: 8-bit PNG for 8-bit stores, else 16-bit.

    Coordinates are printed in full precision; xc is the column, counted from 0. Ids are consecutive over train, val
    and test. A card with sensor, prior and seed is written beside the splits, so that the conversion is lossless.

    Args:
        store: the dataset.
        root: folder to create; it must not exist or be empty.
        progress: called with (images done, images in all).

    Returns:
        The folder.

    Raises:
        InputError: if a PNG or the annotation cannot hold the values, or the folder cannot be written.
    """
    from PIL import Image

    root = check_new_folder(root)
    check_storable(store.sensor)
    psf = store.sensor.psf
    if not isinstance(psf, GaussianPSF):  # already checked by check_storable; for the type checker
        raise TypeError(psf.kind)
    dtype = max((_check_values(store[name]) for name in store), key=lambda each: each.itemsize)
    total, done = sum(store.splits.values()), 0
    digits = max(5, len(str(total - 1)))
    with atomic_path(root, folder=True) as partial:
        for name in store:
            split = store[name]
            images_folder, annotations_folder = (partial / name / each for each in (IMAGE_FOLDER, ANNOTATION_FOLDER))
            images_folder.mkdir(parents=True)
            annotations_folder.mkdir()
            for image, targets in zip(split.counts, targets_from_arrays(*split.target_arrays), strict=True):
                number = f"{done:0{digits}d}"
                Image.fromarray(image.astype(dtype)).save(images_folder / f"image_{number}.png")
                text = _annotation_text(f"CSO{number}", targets, psf.sigma_px, store.sensor.shape)
                (annotations_folder / f"CSO{number}.xml").write_text(text, encoding="utf-8")
                done += 1
                if progress is not None and (done % 500 == 0 or done == total):
                    progress(done, total)
        card = {"sensor": store.sensor.to_card(), "prior": store.prior.to_card(), "seed": store.seed}
        (partial / CARD_NAME).write_text(json.dumps(card, indent=1), encoding="utf-8")
    return root


def convert(source: str | Path, destination: str | Path, progress: Progress | None = None) -> Path:
    """Convert a store (.h5) to the GrokCSO layout (a folder) or a folder to a store, depending on the source.

    Args:
        source: store or folder.
        destination: folder to create, or store to write.
        progress: called with (images done, images in all).

    Returns:
        The destination.

    Raises:
        InputError: if the source is neither, or the destination has the wrong type or cannot be written.
    """
    source, destination = Path(source), Path(destination)
    if source.suffix.lower() in STORE_SUFFIXES and not source.is_dir():
        if destination.suffix.lower() in STORE_SUFFIXES:
            raise InputError(f"{source} is a store already: give a folder to convert it to the GrokCSO layout")
        return write_grokcso(load(source), destination, progress)
    if not source.is_dir():
        raise InputError(f"cannot convert {source}: give a store (.h5) or the folder of a GrokCSO dataset")
    check_store_path(destination)
    data = read_grokcso(source, progress)
    return write_store(destination, data.splits, data.sensor, data.prior, data.seed)
