"""Files of the published dataset: PNG images and XML annotations, read, checked against the forward model, and written.

Layout of one split: `cso_img/image_{id}.png` and `Annotations/CSO{id}.xml`, or, in SeqCSIST, `image/image_{id}.png`
and `annotation/COS{id}.xml`; a dataset is one such folder or has the sub-folders train, val and test. An annotation
holds size{width, height}, sigma and any number of object{coordinate{xc, yc, brightness}}.

How the coordinates are meant, and whether they belong to the images, is found out in `csist.datasets.labels`.

Source for the layout: GrokCSO, https://github.com/GrokCV/GrokCSO (Han et al., ICCV 2025, arXiv 2505.19148).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from defusedxml import ElementTree
from numpy.typing import NDArray

from csist.checks import InputError
from csist.datasets.labels import (
    Annotation,
    Convention,
    check_labels,
    find_convention,
    follows,
    measure_sensor,
    misfit,
    targets_of,
)
from csist.files import atomic_path, check_new_folder, natural_key, reading
from csist.io import read_image
from csist.io.cards import motion_of_card, prior_of_card, read_json, sensor_of_card
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
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, targets_from_arrays
from csist.targets import Targets
from csist.trajectories import MotionPrior

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

IMAGE_FOLDER, ANNOTATION_FOLDER = "cso_img", "Annotations"
IMAGE_FOLDERS, ANNOTATION_FOLDERS = (IMAGE_FOLDER, "image"), (ANNOTATION_FOLDER, "annotation")
"""Of GrokCSO and of SeqCSIST; what csist writes has the first, sequences the second."""
PREFIXES = ("CSO", "COS", "CSO_", "COS_")
"""File name prefixes of annotations found in practice, before the id."""

CARD_NAME = "csist.json"
"""File with sensor, prior and seed, which the published layout cannot hold; other readers ignore it."""


@dataclass(frozen=True, eq=False)
class GrokCSOData:
    """Result of `read_grokcso`: arrays by split, and their common metadata.

    Args:
        splits: images and targets by the split's name.
        convention: how the coordinates of the files are meant.
        sensor: the sensor that made the images.
        prior: law of the scenes.
        seed: the seed that made them; None where the files do not say.
        notes: what the user should know, one line each.
        motion: law of the trajectories; None for single images.
    """

    splits: dict[str, SplitArrays]
    convention: Convention
    sensor: Sensor
    prior: ScenePrior
    seed: int | None
    notes: tuple[str, ...] = ()
    motion: MotionPrior | None = None


def is_grokcso(path: str | Path) -> bool:
    """Return whether a folder has the published layout.

    Args:
        path: the folder.
    """
    return bool(_split_folders(Path(path)))


def _split_folders(root: Path) -> dict[str, Path]:
    found = {name: root / name for name in SPLITS if image_folder(root / name)}
    return found or ({"": root} if image_folder(root) else {})


def image_folder(folder: Path) -> Path | None:
    """Where the images of a split are; None if it is no split."""
    for images, labels in zip(IMAGE_FOLDERS, ANNOTATION_FOLDERS, strict=True):
        # A folder "image" alone may hold anything.
        if (folder / images).is_dir() and (images == IMAGE_FOLDER or (folder / labels).is_dir()):
            return folder / images
    return None


def _annotation_folder(folder: Path) -> Path:
    for name in ANNOTATION_FOLDERS:
        if (folder / name).is_dir():
            return folder / name
    images = image_folder(folder) or folder
    raise InputError(f"{folder} has {images.name} but no folder {ANNOTATION_FOLDER}")


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


def read_annotation(path: Path) -> Annotation:
    """The annotation of one image.

    Raises:
        InputError: if the file is damaged or lacks an element.
    """
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
    return Annotation((int(shape[0]), int(shape[1])), _number(root, "sigma", path), tuple(points))


def _annotation_path(folder: Path, number: str, image: Path) -> Path:
    for prefix in PREFIXES:
        path = folder / f"{prefix}{number}.xml"
        if path.is_file():
            return path
    raise InputError(f"{image} has no annotation: {folder / f'{PREFIXES[0]}{number}.xml'} is missing")


def _read_split(folder: Path, tick: Callable[[], None]) -> tuple[NDArray[Any], list[Annotation], list[Path]]:
    """Images (N, H, W), annotations and image paths of one split, in natural order of the ids."""
    annotations, images = _annotation_folder(folder), image_folder(folder) or folder
    numbered = {match[1]: path for path in images.iterdir() if (match := re.fullmatch(r"image_(.+)\.png", path.name))}
    for path in annotations.glob("*.xml"):
        match = re.fullmatch(r"(?:CSO|COS)_?(.+)\.xml", path.name)
        if match and match[1] not in numbered:
            raise InputError(f"{path} has no image: {images / f'image_{match[1]}.png'} is missing")
    frames: list[NDArray[Any]] = []
    truths: list[Annotation] = []
    paths: list[Path] = []
    for number in sorted(numbered, key=natural_key):
        path = numbered[number]
        xml_path = _annotation_path(annotations, number, path)
        truth = read_annotation(xml_path)
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


def _read_card(root: Path) -> tuple[Sensor, ScenePrior, int | None, MotionPrior | None] | None:
    path = root / CARD_NAME
    if not path.is_file():
        return None
    card = read_json(path, "the card")
    if not isinstance(card, dict) or not {"sensor", "prior", "seed"} <= set(card):
        raise InputError(f"cannot use the card {path}: it lacks sensor, prior or seed")
    seed = card["seed"]
    if not (seed is None or type(seed) is int):
        raise InputError(f"cannot use the card {path}: seed must be a whole number or null, got {str(seed)[:40]!r}")
    where = f"the card {path}"
    motion = motion_of_card(card["motion"], where) if "motion" in card else None
    return sensor_of_card(card["sensor"], where), prior_of_card(card["prior"], where), seed, motion


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
        what = "no such folder" if not root.is_dir() else _what_is_missing(root)
        raise InputError(f"cannot read {root} as a GrokCSO dataset: {what}")
    total = sum(1 for folder in folders.values() for _ in (image_folder(folder) or folder).glob("image_*.png"))
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None and (done % 500 == 0 or done == total):
            progress(done, total)

    raw = {name or "test": _read_split(folder, tick) for name, folder in folders.items()}
    filled = [entry for entry in raw.values() if entry[1]]
    if not filled:
        raise InputError(f"{root} holds no image_*.png in {' or '.join(IMAGE_FOLDERS)}")
    first_images, first_truths, _ = filled[0]
    first = first_truths[0]
    for _, truths, paths in filled:
        if (truths[0].sigma_px, truths[0].shape) != (first.sigma_px, first.shape):
            raise InputError(f"{paths[0]} and {filled[0][2][0]} differ in sigma or size: split the dataset by sensor")
    card = _read_card(root)
    known = card[0] if card else None
    sensor = Sensor(psf=GaussianPSF(first.sigma_px), shape=first.shape)
    convention, measured = find_convention(root, first_images, first_truths, sensor)
    measured = known or measure_sensor(first_images, first_truths, convention, measured)
    if measured.shape != first.shape:
        raise InputError(f"{root / CARD_NAME} says {measured.shape}, but the images have the shape {first.shape}")
    misfits = {name: misfit(images, truths, convention, measured) for name, (images, truths, _) in raw.items()}
    # Of the split that fits best: another one may have the labels of other images throughout.
    typical = min((float(np.median(left)) for _, left, _ in misfits.values() if len(left)), default=0.0)
    splits, notes = {}, _unused_files(root)
    for name, (images, truths, paths) in raw.items():
        notes += check_labels(paths, misfits[name], typical)
        data = images if truths else np.empty((0, *first.shape), first_images.dtype)
        splits[name] = SplitArrays.from_targets(data, [targets_of(truth, convention) for truth in truths])
    if card:
        return GrokCSOData(splits, convention, measured, card[1], card[2], tuple(notes), card[3])
    benchmark = ScenePrior.csist_100k()
    prior = benchmark if follows(benchmark, splits) else ScenePrior.flat()
    return GrokCSOData(splits, convention, measured, prior, None, tuple(notes))


def _what_is_missing(root: Path) -> str:
    labelled = zip(IMAGE_FOLDERS, ANNOTATION_FOLDERS, strict=True)
    pairs = (f"{images} with {labels}" for images, labels in labelled)
    return f"neither {' nor '.join(pairs)} is in it, nor in its folder train"


def _unused_files(root: Path) -> list[str]:
    """A note on the matrices that the authors' programs read."""
    matrices = sorted(path.relative_to(root).as_posix() for path in (*root.glob("*.mat"), *root.glob("*/*.mat")))
    if not matrices:
        return []
    return [f"{', '.join(matrices[:5])} not needed: the operator follows from sigma, size and ratio"]


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

    Sequences get the folder names of SeqCSIST, their frames consecutive ids, trajectory by trajectory.

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
    kind = 0 if store.motion is None else 1
    prefix = PREFIXES[kind]
    digits = max(5, len(str(total - 1)))
    with atomic_path(root, folder=True) as partial:
        for name in store:
            split = store[name]
            images_folder = partial / name / IMAGE_FOLDERS[kind]
            annotations_folder = partial / name / ANNOTATION_FOLDERS[kind]
            images_folder.mkdir(parents=True)
            annotations_folder.mkdir()
            for image, targets in zip(split.counts, targets_from_arrays(*split.target_arrays), strict=True):
                number = f"{done:0{digits}d}"
                Image.fromarray(image.astype(dtype)).save(images_folder / f"image_{number}.png")
                text = _annotation_text(f"{prefix}{number}", targets, psf.sigma_px, store.sensor.shape)
                (annotations_folder / f"{prefix}{number}.xml").write_text(text, encoding="utf-8")
                done += 1
                if progress is not None and (done % 500 == 0 or done == total):
                    progress(done, total)
        card = {"sensor": store.sensor.to_card(), "prior": store.prior.to_card(), "seed": store.seed}
        card |= {} if store.motion is None else {"motion": store.motion.to_card()}
        (partial / CARD_NAME).write_text(json.dumps(card, indent=1), encoding="utf-8")
    return root


def convert(
    source: str | Path, destination: str | Path, progress: Progress | None = None, notes: list[str] | None = None
) -> Path:
    """Convert a store (.h5) to the GrokCSO layout (a folder; SeqCSIST's for sequences) or back; the source decides.

    Args:
        source: store or folder.
        destination: folder to create, or store to write.
        progress: called with (images done, images in all).
        notes: gets what the user should know about the source.

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
    if notes is not None:
        notes.extend(data.notes)
    return write_store(destination, data.splits, data.sensor, data.prior, data.seed, motion=data.motion)
