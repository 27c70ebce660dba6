"""Generation of the benchmark datasets: sample scenes, render them, write a store or the published layout."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csist._types import FloatArray
from csist.checks import InputError
from csist.files import check_new_folder, scratch_folder
from csist.io.store import SPLITS, Progress, check_store_path, create_split, load, new_store
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, sample_scene_arrays

Starmap = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterable[Any]]
"""Function that applies another one to each tuple of arguments and yields the results in order, like
`itertools.starmap`."""


LAYOUTS = ("store", "grokcso")


CHUNK = 2000
"""Number of images generated from one child seed; part of the format, because changing it changes every dataset."""


def split_sizes(count: int) -> dict[str, int]:
    """Return the number of images in train, val and test: a tenth each in val and test, at least one from 3 on.

    A single image goes to test, a second one to train.

    Args:
        count: number of images in all.

    >>> split_sizes(100_000), split_sizes(3)
    ({'train': 80000, 'val': 10000, 'test': 10000}, {'train': 1, 'val': 1, 'test': 1})
    """
    test = min(count, max(1, count // 10))
    val = max(1, count // 10) if count >= 3 else 0
    return {"train": count - val - test, "val": val, "test": test}


def storage_type(sensor: Sensor, bits: int | None) -> np.dtype[Any]:
    """Return the smallest type that holds the sensor's values; `bits` is the requested width."""
    if not sensor.quantised:
        return np.dtype(np.float32)
    width = bits or sensor.bits or 16
    width = next(size for size in (8, 16, 32) if width <= size)
    # Without clipping at 0, read noise or a negative background leads to negative counts.
    signed = sensor.bits is None and (sensor.read_noise > 0 or sensor.background < 0)
    return np.dtype(f"{'i' if signed else 'u'}{width // 8}")


def resolve_sensor(
    sensor: Sensor | None, bits: int | str | None, clip: bool, noise_std: float | None
) -> tuple[Sensor, int | None]:
    """Return the sensor described by the options, and the requested storage width."""
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


def check_fit(images: FloatArray, dtype: np.dtype[Any]) -> None:
    """Check that whole counts fit the storage type.

    Raises:
        InputError: if they do not.
    """
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
    """Sample scenes, render them and write a dataset with the splits of `split_sizes`.

    Each split, and each block of 2000 images in it, has its own child seed of `seed`. The same arguments give the same
    bytes, and options of the sensor (noise, bits, clip) change the images but not the scenes.

    Args:
        path: file to write (.h5), or folder for the layout "grokcso".
        count: number of images in all.
        seed: whole number >= 0.
        sensor: camera; None for the benchmark's (Gaussian sigma 0.5 px, 11 x 11 px, no noise).
        prior: scene prior; None for `ScenePrior.csist_100k()`.
        bits: 8, 16 or 32 for whole counts of that width, "float" for unrounded float32, None for the bit depth of the
            sensor (16 if it has none).
        clip: clip at 0 and 2^bits - 1 instead of rejecting values that do not fit.
        noise_std: read noise in counts; None for the sensor's own.
        layout: "store" (HDF5) or "grokcso" (the published PNG + XML).
        progress: called with (images done, images in all).
        starmap: function that generates the blocks of 2000 images; `functools.partial(csist.cluster.starmap, client)`
            generates them on a Dask cluster, with the same result.

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
    sensor, width = resolve_sensor(sensor, bits, clip, noise_std)
    prior = prior or ScenePrior.csist_100k()
    path = Path(path)
    if layout == "grokcso":
        from csist.datasets import grokcso

        check_new_folder(path)
        grokcso.check_storable(sensor)
        with scratch_folder(path) as folder:
            scratch = folder / "scratch.h5"
            first = _part(progress, 0.0, 0.2)
            _generate_store(scratch, int(count), int(seed), sensor, prior, width=width, progress=first, starmap=starmap)
            grokcso.write_grokcso(load(scratch), path, progress=_part(progress, 0.2, 1.0))
        return path
    path = check_store_path(path)
    _generate_store(path, int(count), int(seed), sensor, prior, width=width, progress=progress, starmap=starmap)
    return path


def _generate_store(
    path: Path,
    count: int,
    seed: int,
    sensor: Sensor,
    prior: ScenePrior,
    *,
    width: int | None,
    progress: Progress | None,
    starmap: Starmap,
) -> None:
    dtype = storage_type(sensor, width)
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
    with new_store(path, sensor, prior, seed) as file:
        for name, parts in chunks.items():
            size = parts[-1][1] if parts else 0
            group = create_split(file, name, size, sensor.shape, dtype, prior.count_range[1])
            for start, stop in parts:
                group["image"][start:stop], group["targets"][start:stop], group["count"][start:stop] = next(drawn)
                done += stop - start
                if progress is not None:
                    progress(done, count)


def _draw_chunk(
    prior: ScenePrior, sensor: Sensor, dtype: np.dtype[Any], count: int, seed: np.random.SeedSequence
) -> tuple[NDArray[Any], FloatArray, NDArray[np.int64]]:
    """Return stored images, targets and counts of `count` scenes, see `SplitArrays`.

    Raises:
        InputError: if values do not fit the storage type.
    """
    rng = np.random.default_rng(seed)
    targets, number = sample_scene_arrays(prior, sensor, count, rng)
    x, y, intensity = np.nan_to_num(targets, nan=0.0).transpose(2, 0, 1)
    images = sensor.measure(sensor.render_stack(x, y, intensity), rng)
    check_fit(images, dtype)
    return images.astype(dtype), targets, number


def _part(progress: Progress | None, begin: float, end: float) -> Progress | None:
    """Return a progress callback for one part of a longer task, in units of the whole task."""
    if progress is None:
        return None
    whole = progress
    return lambda done, count: whole(round(count * (begin + (end - begin) * done / count)), count)
