"""The store: one HDF5 file a dataset, made by `generate`, read by `load`.

Layout (schema 1): groups `train`, `val`, `test`, each with `image` (N, H, W) as stored, `targets`
(N, Kmax, 3) float64 with the columns x, y, intensity, padded with NaN, and `count` (N); file attributes
`format`, `schema_version`, `csist_version`, `sensor` and `prior` (JSON cards) and, where it is known, `seed`.
Stores of sequences also hold `trajectory` (N) and `frame` (N) in each group, the frames of a trajectory one after the
other and its targets in one order, and the law of the motion as the attribute `motion`.

The canonical form of the benchmark is noise-free, rounded to whole counts and not clipped.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import h5py
import numpy as np
from numpy.typing import NDArray

from csist._types import FloatArray
from csist._version import package_version
from csist.checks import InputError
from csist.files import atomic_path, check_writable, one_line
from csist.io.cards import motion_of_card, parse_json, prior_of_card, sensor_of_card
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, targets_from_arrays
from csist.targets import Targets
from csist.trajectories import MotionPrior

Progress = Callable[[int, int], None]
"""Called with (images done, images in all) now and then."""

FORMAT = "csist-store"
MOST_UNBACKED_BYTES, MOST_RATIO = 2**28, 100
"""Above this size, values that take so many times less in the file are not believed."""
SCHEMA_VERSION = 1
SPLITS = ("train", "val", "test")
STORE_SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True, eq=False)
class SplitArrays:
    """One split in memory: images (N, H, W) as stored, targets (N, Kmax, 3) padded with NaN, count (N,)."""

    images: NDArray[Any]
    targets: FloatArray
    count: NDArray[np.int64]

    @classmethod
    def from_targets(cls, images: NDArray[Any], targets: Sequence[Targets]) -> SplitArrays:
        """Arrays from one `Targets` per image.

        Raises:
            InputError: if the numbers of images and of targets differ.
        """
        if len(images) != len(targets):
            raise InputError(f"there must be one Targets per image, got {len(targets)} for {len(images)} images")
        count = np.array([len(each) for each in targets], dtype=np.int64)
        padded = np.full((len(targets), int(count.max(initial=0)), 3), np.nan)
        for row, each in zip(padded, targets, strict=True):
            row[: len(each)] = np.stack([each.x, each.y, each.intensity], axis=1)
        return cls(images, padded, count)


def create_split(
    file: h5py.File,
    name: str,
    count: int,
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    most: int,
    *,
    sequences: bool = False,
) -> h5py.Group:
    """Make the empty arrays of a split of `count` images with at most `most` targets each.

    Args:
        file: the store.
        name: train, val or test.
        count: number of images.
        shape: (H, W) of an image.
        dtype: type of the stored values.
        most: largest number of targets of an image.
        sequences: whether the images are frames of trajectories; adds the arrays `trajectory` and `frame`.
    """
    group = file.create_group(name)
    if sequences:
        group.create_dataset("trajectory", (count,), np.int32)
        group.create_dataset("frame", (count,), np.int32)
    group.create_dataset("image", (count, *shape), dtype)
    group.create_dataset("targets", (count, most, 3), np.float64)
    group.create_dataset("count", (count,), np.min_scalar_type(most))
    return group


@contextmanager
def new_store(
    path: Path, sensor: Sensor, prior: ScenePrior, seed: int | None, motion: MotionPrior | None = None
) -> Iterator[h5py.File]:
    """A store under a temporary name with its attributes set; it gets its name when the block ends well."""
    # Since HDF5 1.8 an attribute can exceed 64 KB, as the card of a measured PSF may.
    with atomic_path(path) as partial, h5py.File(partial, "w", libver=("v108", "v108")) as file:
        # Of fixed length: on a damaged file, the library can read variable-length strings endlessly.
        file.attrs["format"] = np.bytes_(FORMAT.encode())
        file.attrs["schema_version"] = SCHEMA_VERSION
        file.attrs["csist_version"] = np.bytes_(package_version().encode())
        file.attrs["sensor"] = np.bytes_(json.dumps(sensor.to_card()).encode())
        file.attrs["prior"] = np.bytes_(json.dumps(prior.to_card()).encode())
        if motion is not None:
            file.attrs["motion"] = np.bytes_(json.dumps(motion.to_card()).encode())
        if seed is not None:
            file.attrs["seed"] = seed
        yield file


def check_store_path(path: str | Path) -> Path:
    """Return the path if a store can be written there.

    Raises:
        InputError: if its name does not end in .h5 or .hdf5 or it cannot be written.
    """
    return check_writable(path, STORE_SUFFIXES)


def write_store(
    path: str | Path,
    splits: Mapping[str, SplitArrays],
    sensor: Sensor,
    prior: ScenePrior | None = None,
    seed: int | None = None,
    *,
    motion: MotionPrior | None = None,
) -> Path:
    """Write arrays that exist already as a store; returns the path.

    Args:
        path: file to write, ending in .h5 or .hdf5.
        splits: arrays by the split's name (train, val, test).
        sensor: the sensor that made the images.
        prior: law of the scenes; None for `ScenePrior.flat()`, "not known".
        seed: the seed that made them, if one did.
        motion: law of the trajectories, whose frames follow each other; None for single images.

    Raises:
        InputError: if shapes disagree, a split has another name or the path cannot be written.
    """
    path = check_store_path(path)
    for name, arrays in splits.items():
        if name not in SPLITS:
            raise InputError(f"a split is called {', '.join(SPLITS)}, got {name!r}")
        n = len(arrays.images)
        if arrays.images.shape != (n, *sensor.shape):
            raise InputError(
                f"images of {name} must be (N, H, W) with (H, W) = {sensor.shape}, got {arrays.images.shape}"
            )
        if arrays.targets.ndim != 3 or arrays.targets.shape[::2] != (n, 3) or arrays.count.shape != (n,):
            raise InputError(
                f"{name} must have targets ({n}, Kmax, 3) and count ({n},), "
                f"got {arrays.targets.shape} and {arrays.count.shape}"
            )
        if motion is not None and n % motion.frames:
            raise InputError(f"{name} has {n} images, not whole sequences of {motion.frames}")
    with new_store(path, sensor, prior or ScenePrior.flat(), seed, motion) as file:
        for name, arrays in splits.items():
            most = arrays.targets.shape[1]
            group = create_split(
                file, name, len(arrays.images), sensor.shape, arrays.images.dtype, most, sequences=motion is not None
            )
            if motion is not None:
                place = np.arange(len(arrays.images))
                group["trajectory"][...], group["frame"][...] = np.divmod(place, motion.frames)
            group["image"][...] = arrays.images
            group["targets"][...] = arrays.targets
            group["count"][...] = arrays.count
    return path


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """A store opened for reading, every failure turned into one line."""
    if not path.is_file():
        raise InputError(f"cannot read {path}: {'it is a folder' if path.is_dir() else 'there is no such file'}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except Exception as error:  # the library answers a damaged file with almost any
        if not h5py.is_hdf5(path):
            raise InputError(f"cannot read {path}: it is not an HDF5 file") from error
        said = "it is cut short" if "truncated" in str(error) else f"it is damaged ({one_line(error)[:150]})"
        raise InputError(f"cannot read {path}: {said}") from error


def _own(file: h5py.File, split: str, name: str, path: Path) -> h5py.Dataset:
    """A dataset of a split whose values lie in the file itself and are there.

    Raises:
        InputError: if its values are those of another file, which HDF5 would follow without a word, or if it states
            more of them than it can hold.
    """
    for place in (split, f"{split}/{name}"):
        if not isinstance(file.get(place, getlink=True), h5py.HardLink):
            raise InputError(f"cannot read {path}: its {place} is a link, perhaps to another file: copy the values")
    dataset = file[split][name]
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise InputError(f"cannot read {path}: the values of its {split}/{name} lie in another file: copy them")
    if dataset.nbytes > MOST_UNBACKED_BYTES and dataset.id.get_storage_size() * MOST_RATIO < dataset.nbytes:
        raise InputError(
            f"cannot read {path}: its {split}/{name} states {dataset.nbytes} bytes and holds "
            f"{dataset.id.get_storage_size()}"
        )
    return dataset


@dataclass(frozen=True, eq=False)
class Split:
    """Images and truth of one split, or of a part of it; arrays are read when first asked for.

    `split[i]` is (image (H, W) float64, Targets) of image i, `split[a:b]` a smaller Split. It holds no open
    file, so it can be sent to other processes.

    Args:
        path: the store.
        name: train, val or test.
        sensor: the sensor that made the images.
        prior: law of the scenes.
        rows: which images of the stored split.
    """

    path: Path
    name: str
    sensor: Sensor
    prior: ScenePrior
    rows: range

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, H, W)."""
        return len(self.rows), *self.sensor.shape

    def _read(self, dataset: str) -> NDArray[Any]:
        ordered = self.rows if self.rows.step > 0 else self.rows[::-1]
        with _opened(self.path) as file:
            values = np.asarray(_own(file, self.name, dataset, self.path)[ordered.start : ordered.stop : ordered.step])
        return values if ordered is self.rows else np.ascontiguousarray(values[::-1])

    @cached_property
    def counts(self) -> NDArray[Any]:
        """Images (N, H, W) as stored (integers, or float32)."""
        return self._read("image")

    @cached_property
    def images(self) -> FloatArray:
        """Images (N, H, W) in counts, float64."""
        return self._read("image").astype(np.float64)

    @cached_property
    def target_arrays(self) -> tuple[FloatArray, NDArray[np.int64]]:
        """Targets (N, Kmax, 3) with columns x, y, intensity, padded with NaN, and count (N,)."""
        targets, count = self._read("targets").astype(np.float64), self._read("count").astype(np.int64)
        held = np.isfinite(targets).all(axis=2)
        expected = np.arange(targets.shape[1]) < count[:, None]
        if count.max(initial=0) > targets.shape[1] or (held != expected).any():
            raise InputError(f"cannot read {self.path}: in {self.name}, targets and count disagree")
        return targets, count

    @cached_property
    def targets(self) -> list[Targets]:
        """The true targets of each image."""
        return targets_from_arrays(*self.target_arrays)

    @cached_property
    def trajectory(self) -> NDArray[np.int64]:
        """Number of the trajectory of each image, (N,).

        Raises:
            InputError: if the store holds single images.
        """
        return self._read_sequence("trajectory")

    @cached_property
    def frame(self) -> NDArray[np.int64]:
        """Place of each image in its trajectory, (N,), from 0.

        Raises:
            InputError: if the store holds single images.
        """
        return self._read_sequence("frame")

    def _read_sequence(self, dataset: str) -> NDArray[np.int64]:
        with _opened(self.path) as file:
            if dataset not in file[self.name]:
                raise InputError(f"{self.path} holds single images, not sequences: make these by --sequence")
        return self._read(dataset).astype(np.int64)

    def sequences(self) -> list[Split]:
        """The trajectories, a Split each, their frames in order.

        Raises:
            InputError: if the store holds single images, or the frames of a trajectory are not consecutive rows.
        """
        ends = np.flatnonzero(np.diff(self.trajectory)) + 1
        edges = [0, *ends.tolist(), len(self)]
        parts = [self[first:last] for first, last in itertools.pairwise(edges) if last > first]
        if any((part.frame != np.arange(len(part))).any() for part in parts):
            raise InputError(f"cannot read {self.path}: in {self.name}, the frames of a trajectory are not in order")
        return parts

    @overload
    def __getitem__(self, key: slice) -> Split: ...
    @overload
    def __getitem__(self, key: int) -> tuple[FloatArray, Targets]: ...
    def __getitem__(self, key: int | slice) -> Split | tuple[FloatArray, Targets]:
        if isinstance(key, slice):
            return replace(self, rows=self.rows[key])
        return self.images[key], self.targets[key]

    def __iter__(self) -> Iterator[tuple[FloatArray, Targets]]:
        return iter(zip(self.images, self.targets, strict=True))

    def limit(self, count: int | None) -> Split:
        """The first `count` images; all for None or where there are no more.

        Raises:
            InputError: if `count` is below 1.
        """
        if count is None:
            return self
        if count < 1:
            raise InputError(f"limit must be a whole number >= 1, got {count}")
        return self[:count]


@dataclass(frozen=True)
class Store:
    """A dataset on disk.

    Args:
        path: the file.
        sensor: the sensor that made the images.
        prior: law of the scenes.
        seed: the seed that made it; None where it was converted from something else.
        splits: number of images by the split's name.
        version: the csist version that wrote it.
        motion: law of the trajectories, in a store of sequences.
    """

    path: Path
    sensor: Sensor
    prior: ScenePrior
    seed: int | None
    splits: dict[str, int]
    version: str
    motion: MotionPrior | None = None

    def __getitem__(self, name: str) -> Split:
        if name not in self.splits:
            raise InputError(f"{self.path} has no split {name!r}: it has {', '.join(self.splits) or 'none'}")
        return Split(self.path, name, self.sensor, self.prior, range(self.splits[name]))

    def __iter__(self) -> Iterator[str]:
        return iter(self.splits)

    def __len__(self) -> int:
        return len(self.splits)


def load(path: str | Path) -> Store:
    """Open a store; nothing but its description is read yet.

    Args:
        path: the file (.h5).

    Raises:
        InputError: if the file is missing, not a store of this or an older version, cut short or damaged.
    """
    path = Path(path)
    with _opened(path) as file:
        attributes = {
            name: value.decode(errors="replace") if isinstance(value, bytes) else value
            for name, value in file.attrs.items()
        }
        if attributes.get("format") != FORMAT:
            raise InputError(f"{path} is an HDF5 file but no csist dataset: make one with `csist generate`")
        version = str(attributes.get("csist_version", "unknown"))
        if int(attributes["schema_version"]) > SCHEMA_VERSION:
            raise InputError(f"{path} was written by csist {version}: update csist to read it")
        try:
            sensor = sensor_of_card(parse_json(attributes["sensor"], "its sensor card"), "its sensor card")
            prior = prior_of_card(parse_json(attributes["prior"], "its prior card"), "its prior card")
            motion = None
            if "motion" in attributes:
                motion = motion_of_card(parse_json(attributes["motion"], "its motion card"), "its motion card")
        except InputError as error:
            raise InputError(f"cannot read {path}: {error}") from error
        splits = {}
        for name in (name for name in SPLITS if name in file):
            count = len(_own(file, name, "count", path))
            image, targets = _own(file, name, "image", path).shape, _own(file, name, "targets", path).shape
            if image != (count, *sensor.shape) or len(targets) != 3 or targets[::2] != (count, 3):
                raise InputError(
                    f"cannot read {path}: in {name}, image {image} and targets {targets} do not fit "
                    f"{count} counts and the sensor's shape {sensor.shape}"
                )
            splits[name] = count
        seed = None if attributes.get("seed") is None else int(attributes["seed"])
    return Store(path, sensor, prior, seed, splits, version, motion)
