"""The store: one HDF5 file a dataset, made by `generate`, read by `load`.

Layout (schema 1): groups `train`, `val`, `test`, each with `image` (N, H, W) as stored, `targets`
(N, Kmax, 3) float64 with the columns x, y, intensity, padded with NaN, and `count` (N); file attributes
`format`, `schema_version`, `csist_version`, `sensor` and `prior` (JSON cards) and, where it is known, `seed`.

The canonical form of the benchmark is noise-free, rounded to whole counts and not clipped.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, overload

import h5py
import numpy as np
from numpy.typing import NDArray

from csist.checks import InputError
from csist.datasets.scenes import ScenePrior, sample_scene_arrays, targets_from_arrays
from csist.grid import SubPixelGrid
from csist.io import atomic_path, check_new_folder, check_writable, one_line
from csist.physics.sensor import Sensor
from csist.targets import Targets

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset

    TensorPairs = Dataset[tuple[Tensor, Tensor]]
else:
    TensorPairs = object  # a map-style torch dataset needs no base class, and so no torch at import

FloatArray = NDArray[np.float64]
Progress = Callable[[int, int], None]
"""Called with (images done, images in all) now and then."""
Starmap = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterable[Any]]
"""Calls a function with each tuple of arguments and gives the results in order, as `itertools.starmap` does."""

FORMAT = "csist-store"
SCHEMA_VERSION = 1
SPLITS = ("train", "val", "test")
LAYOUTS = ("store", "grokcso")
STORE_SUFFIXES = (".h5", ".hdf5")

CHUNK = 2000
"""Images drawn from one child seed; changing it changes every dataset, so it is part of the format."""


@dataclass(frozen=True, eq=False)
class SplitArrays:
    """One split in memory: images (N, H, W) as stored, targets (N, Kmax, 3) padded with NaN, count (N,)."""

    images: NDArray[Any]
    targets: FloatArray
    count: NDArray[np.int64]

    @classmethod
    def from_targets(cls, images: NDArray[Any], targets: Sequence[Targets]) -> SplitArrays:
        """Arrays from one `Targets` an image.

        Raises:
            InputError: if the numbers of images and of targets differ.
        """
        if len(images) != len(targets):
            raise InputError(f"there must be one Targets an image, got {len(targets)} for {len(images)} images")
        count = np.array([len(each) for each in targets], dtype=np.int64)
        padded = np.full((len(targets), int(count.max(initial=0)), 3), np.nan)
        for row, each in zip(padded, targets, strict=True):
            row[: len(each)] = np.stack([each.x, each.y, each.intensity], axis=1)
        return cls(images, padded, count)


def split_sizes(count: int) -> dict[str, int]:
    """Images in train, val and test: a tenth each for val and test, at least one where there are three.

    One image alone goes to test, the second one to train.

    Args:
        count: number of images in all.

    >>> split_sizes(100_000), split_sizes(3)
    ({'train': 80000, 'val': 10000, 'test': 10000}, {'train': 1, 'val': 1, 'test': 1})
    """
    test = min(count, max(1, count // 10))
    val = max(1, count // 10) if count >= 3 else 0
    return {"train": count - val - test, "val": val, "test": test}


def _storage(sensor: Sensor, bits: int | None) -> np.dtype[Any]:
    """Smallest type that holds the sensor's values; `bits` is the width asked for."""
    if not sensor.quantised:
        return np.dtype(np.float32)
    width = bits or sensor.bits or 16
    width = next(size for size in (8, 16, 32) if width <= size)
    # Without clipping at 0, read noise or a background below 0 gives negative counts.
    signed = sensor.bits is None and (sensor.read_noise > 0 or sensor.background < 0)
    return np.dtype(f"{'i' if signed else 'u'}{width // 8}")


def _resolve_sensor(
    sensor: Sensor | None, bits: int | str | None, clip: bool, noise_std: float | None
) -> tuple[Sensor, int | None]:
    """The sensor that the options describe, and the storage width asked for."""
    if isinstance(bits, str) and bits.isdecimal():
        bits = int(bits)
    if bits not in (None, 8, 16, 32, "float"):
        raise InputError(f"bits must be 8, 16, 32 or float, got {bits}")
    result = sensor or Sensor()
    if noise_std is not None:
        result = replace(result, read_noise=noise_std)
    if bits == "float":
        if clip:
            raise InputError("clip (--clip) needs whole counts: use it with bits 8 or 16, not float")
        return replace(result, quantised=False), None
    if bits is not None:
        result = replace(result, quantised=True)
    if clip:
        limits = [int(limit) for limit in (bits, result.bits) if limit is not None]
        result = replace(result, quantised=True, bits=min(limits, default=16))
    return result, None if bits is None else int(bits)


def _check_fit(images: FloatArray, dtype: np.dtype[Any]) -> None:
    """Raise `InputError` where whole counts do not fit the storage type."""
    if dtype.kind == "f" or not images.size:
        return
    limits, low, high = np.iinfo(dtype), images.min(), images.max()
    if low < limits.min or high > limits.max:
        bits = 8 * dtype.itemsize
        wider = {8: "use --bits 16", 16: "use --bits float"}.get(bits, "use --bits float")
        raise InputError(
            f"pixel values go from {low:.0f} to {high:.0f}, {bits} bits from {limits.min} to {limits.max}: "
            f"add --clip to clip them at 0 and {2**bits - 1}, or {wider}"
        )


def _create_split(
    file: h5py.File, name: str, count: int, shape: tuple[int, int], dtype: np.dtype[Any], most: int
) -> h5py.Group:
    group = file.create_group(name)
    group.create_dataset("image", (count, *shape), dtype)
    group.create_dataset("targets", (count, most, 3), np.float64)
    group.create_dataset("count", (count,), np.min_scalar_type(most))
    return group


@contextmanager
def _new_store(path: Path, sensor: Sensor, prior: ScenePrior, seed: int | None) -> Iterator[h5py.File]:
    """A store under a temporary name with its attributes set; it gets its name when the block ends well."""
    # Since HDF5 1.8 an attribute can exceed 64 KB, as the card of a measured PSF may.
    with atomic_path(path) as partial, h5py.File(partial, "w", libver=("v108", "v108")) as file:
        # Of fixed length: on a damaged file, the library can read variable-length strings for ever.
        file.attrs["format"] = np.bytes_(FORMAT.encode())
        file.attrs["schema_version"] = SCHEMA_VERSION
        file.attrs["csist_version"] = np.bytes_(_version().encode())
        file.attrs["sensor"] = np.bytes_(json.dumps(sensor.to_card()).encode())
        file.attrs["prior"] = np.bytes_(json.dumps(prior.to_card()).encode())
        if seed is not None:
            file.attrs["seed"] = seed
        yield file


def _version() -> str:
    try:
        return metadata.version("csist")
    except metadata.PackageNotFoundError:  # used from a source tree that is not installed
        return "unknown"


def check_store_path(path: str | Path) -> Path:
    """Return the path if a store can be written there.

    Raises:
        InputError: if its name does not end in .h5 or .hdf5 or it cannot be written.
    """
    return check_writable(path, STORE_SUFFIXES)


def generate(
    path: str | Path,
    count: int = 100_000,
    seed: int = 0,
    *,
    sensor: Sensor | None = None,
    prior: ScenePrior | None = None,
    bits: int | str | None = None,
    clip: bool = False,
    noise_std: float | None = None,
    layout: str = "store",
    progress: Progress | None = None,
    starmap: Starmap = itertools.starmap,
) -> Path:
    """Draw scenes, render them and write a dataset with the splits of `split_sizes`.

    The splits, and every 2000 images of one, have child seeds of `seed` of their own: the same arguments give
    the same bytes, and options of the sensor (noise, bits, clip) change the images but not the scenes.

    Args:
        path: file to write (.h5), or folder for the layout "grokcso".
        count: number of images in all.
        seed: whole number >= 0.
        sensor: camera; None for the benchmark's (Gaussian sigma 0.5 px, 11 x 11 px, no noise).
        prior: law of the scenes; None for `ScenePrior.csist_100k()`.
        bits: 8, 16 or 32 for whole counts of that width, "float" for unrounded float32, None for what the
            sensor says (16 where it has no limit).
        clip: clip at 0 and 2^bits - 1 instead of refusing values that do not fit.
        noise_std: read noise in counts; None for the sensor's own.
        layout: "store" (HDF5) or "grokcso" (the published PNG + XML).
        progress: called with (images done, images in all).
        starmap: how every 2000 images are drawn; `functools.partial(csist.cluster.starmap, client)` draws them on a
            Dask cluster, with the same result.

    Returns:
        The path.

    Raises:
        InputError: if an argument is out of range, values do not fit or the path cannot be written.
    """
    if int(count) != count or count < 1:
        raise InputError(f"count must be a whole number >= 1, got {count}")
    if int(seed) != seed or not 0 <= seed < 2**63:
        raise InputError(f"seed must be a whole number from 0 to 2^63 - 1, got {seed}")
    if layout not in LAYOUTS:
        raise InputError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    sensor, width = _resolve_sensor(sensor, bits, clip, noise_std)
    prior = prior or ScenePrior.csist_100k()
    path = Path(path)
    if layout == "grokcso":
        from csist.datasets import grokcso

        check_new_folder(path)
        grokcso.check_storable(sensor)
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            scratch = Path(folder) / "scratch.h5"
            _generate_store(scratch, int(count), int(seed), sensor, prior, width, _part(progress, 0.0, 0.2), starmap)
            grokcso.write_grokcso(load(scratch), path, progress=_part(progress, 0.2, 1.0))
        return path
    _generate_store(check_store_path(path), int(count), int(seed), sensor, prior, width, progress, starmap)
    return path


def _generate_store(
    path: Path,
    count: int,
    seed: int,
    sensor: Sensor,
    prior: ScenePrior,
    width: int | None,
    progress: Progress | None,
    starmap: Starmap,
) -> None:
    dtype = _storage(sensor, width)
    chunks = {
        name: [(start, min(start + CHUNK, size)) for start in range(0, size, CHUNK)]
        for name, size in split_sizes(count).items()
    }
    seeds = zip(SPLITS, np.random.SeedSequence(seed).spawn(len(SPLITS)), strict=True)
    drawn = iter(
        starmap(
            _draw_chunk,
            (
                (prior, sensor, dtype, stop - start, grandchild)
                for name, child in seeds
                for (start, stop), grandchild in zip(chunks[name], child.spawn(len(chunks[name])), strict=True)
            ),
        )
    )
    done = 0
    with _new_store(path, sensor, prior, seed) as file:
        for name, parts in chunks.items():
            size = parts[-1][1] if parts else 0
            group = _create_split(file, name, size, sensor.shape, dtype, prior.count_range[1])
            for start, stop in parts:
                group["image"][start:stop], group["targets"][start:stop], group["count"][start:stop] = next(drawn)
                done += stop - start
                if progress is not None:
                    progress(done, count)


def _draw_chunk(
    prior: ScenePrior, sensor: Sensor, dtype: np.dtype[Any], count: int, seed: np.random.SeedSequence
) -> tuple[NDArray[Any], FloatArray, NDArray[np.int64]]:
    """Images as stored, targets and count of so many scenes, see `SplitArrays`.

    Raises:
        InputError: if values do not fit the storage type.
    """
    rng = np.random.default_rng(seed)
    targets, number = sample_scene_arrays(prior, sensor, count, rng)
    x, y, intensity = np.nan_to_num(targets, nan=0.0).transpose(2, 0, 1)
    images = sensor.measure(sensor.render_stack(x, y, intensity), rng)
    _check_fit(images, dtype)
    return images.astype(dtype), targets, number


def write_store(
    path: str | Path,
    splits: Mapping[str, SplitArrays],
    sensor: Sensor,
    prior: ScenePrior | None = None,
    seed: int | None = None,
) -> Path:
    """Write arrays that exist already as a store; returns the path.

    Args:
        path: file to write, ending in .h5 or .hdf5.
        splits: arrays by the split's name (train, val, test).
        sensor: the sensor that made the images.
        prior: law of the scenes; None for `ScenePrior.flat()`, "not known".
        seed: the seed that made them, if one did.

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
    with _new_store(path, sensor, prior or ScenePrior.flat(), seed) as file:
        for name, arrays in splits.items():
            most = arrays.targets.shape[1]
            group = _create_split(file, name, len(arrays.images), sensor.shape, arrays.images.dtype, most)
            group["image"][...] = arrays.images
            group["targets"][...] = arrays.targets
            group["count"][...] = arrays.count
    return path


def _part(progress: Progress | None, begin: float, end: float) -> Progress | None:
    """A progress callback for one part of a longer work, in units of the whole."""
    if progress is None:
        return None
    whole = progress
    return lambda done, count: whole(round(count * (begin + (end - begin) * done / count)), count)


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """A store opened for reading, every failure turned into one line."""
    if not path.is_file():
        raise InputError(f"cannot read {path}: {'it is a folder' if path.is_dir() else 'there is no such file'}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        if not h5py.is_hdf5(path):
            raise InputError(f"cannot read {path}: it is not an HDF5 file") from error
        said = "it is cut short" if "truncated" in str(error) else f"it is damaged ({one_line(error)[:150]})"
        raise InputError(f"cannot read {path}: {said}") from error


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
            values = np.asarray(file[self.name][dataset][ordered.start : ordered.stop : ordered.step])
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
    """

    path: Path
    sensor: Sensor
    prior: ScenePrior
    seed: int | None
    splits: dict[str, int]
    version: str

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
            sensor = Sensor.from_card(json.loads(attributes["sensor"]))
            prior = ScenePrior.from_card(json.loads(attributes["prior"]))
        except ValueError as error:
            raise InputError(f"cannot read {path}: {one_line(error)}") from error
        splits = {}
        for name in (name for name in SPLITS if name in file):
            count = len(file[name]["count"])
            image, targets = file[name]["image"].shape, file[name]["targets"].shape
            if image != (count, *sensor.shape) or len(targets) != 3 or targets[::2] != (count, 3):
                raise InputError(
                    f"cannot read {path}: in {name}, image {image} and targets {targets} do not fit "
                    f"{count} counts and the sensor's shape {sensor.shape}"
                )
            splits[name] = count
    seed = attributes.get("seed")
    return Store(path, sensor, prior, None if seed is None else int(seed), splits, version)


class WindowDataset(TensorPairs):
    """Pairs for training a grid method: image (1, H, W) and true map (1, cH, cW), float32 in counts.

    Args:
        split: images and truth, read into memory at once.
        ratio: sub-pixel grid ratio c.

    Raises:
        InputError: if the ratio is out of range.
    """

    def __init__(self, split: Split, ratio: int) -> None:
        self.grid = SubPixelGrid(split.sensor.shape, ratio)
        self._images = split.images.astype(np.float32)
        self._targets = split.targets

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        import torch

        cells = self.grid.encode(self._targets[index]).astype(np.float32)
        return torch.tensor(self._images[index, None]), torch.from_numpy(cells[None])
