"""Generation of datasets of sequences: groups that move together through the frames of a window."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from csist.checks import InputError
from csist.datasets.generate import CHUNK, check_fit, resolve_sensor, storage_type
from csist.io.store import SPLITS, Progress, check_store_path, create_split, new_store
from csist.physics.sensor import Sensor
from csist.trajectories import MotionPrior, sample_trajectory_arrays

SHARE = 0.15
"""Fraction of the trajectories in val, and in test."""


def sequence_split_sizes(trajectories: int) -> dict[str, int]:
    """Return the numbers of trajectories in train, val and test: 70, 15 and 15 %, at least one each from three on.

    A single trajectory goes to test, a second one to train.

    Args:
        trajectories: number of trajectories in all.

    >>> sequence_split_sizes(5000), sequence_split_sizes(3)
    ({'train': 3500, 'val': 750, 'test': 750}, {'train': 1, 'val': 1, 'test': 1})
    """
    test = min(trajectories, max(1, round(SHARE * trajectories)))
    val = max(1, round(SHARE * trajectories)) if trajectories >= 3 else 0
    return {"train": trajectories - val - test, "val": val, "test": test}


def generate_sequences(
    path: str | Path,
    trajectories: int = 5000,
    seed: int = 0,
    *,
    sensor: Sensor | None = None,
    motion: MotionPrior | None = None,
    bits: int | str | None = None,
    clip: bool = False,
    noise_std: float | None = None,
    progress: Progress | None = None,
) -> Path:
    """Sample trajectories, render their frames and write a store with the splits of `sequence_split_sizes`.

    Each split, and each block of 100 trajectories in it (at 20 frames), has its own child seed of `seed`. The same
    arguments give the same bytes, and options of the sensor change the images but not the trajectories.

    Args:
        path: file to write (.h5).
        trajectories: number of trajectories in all.
        seed: whole number >= 0.
        sensor: camera; None for the benchmark's (Gaussian sigma 0.5 px, 11 x 11 px, no noise).
        motion: motion prior; None for `MotionPrior()`.
        bits: 8, 16 or 32 for whole counts of that width, "float" for unrounded float32, None for the bit depth of the
            sensor.
        clip: clip at 0 and 2^bits - 1 instead of rejecting values that do not fit.
        noise_std: read noise in counts; None for the sensor's own.
        progress: called with (images done, images in all).

    Returns:
        The path.

    Raises:
        InputError: if an argument is out of range, values do not fit or the path cannot be written.
    """
    if int(trajectories) != trajectories or trajectories < 1:
        raise InputError(f"trajectories must be a whole number >= 1, got {trajectories}")
    sensor, width = resolve_sensor(sensor, bits, clip, noise_std)
    motion = motion or MotionPrior()
    path, dtype = check_store_path(path), storage_type(sensor, width)
    sizes, frames = sequence_split_sizes(int(trajectories)), motion.frames
    children = np.random.SeedSequence(seed).spawn(len(SPLITS))
    done, most = 0, motion.start.count_range[1]
    with new_store(path, sensor, motion.start, int(seed), motion) as file:
        for (name, size), child in zip(sizes.items(), children, strict=True):
            group = create_split(file, name, size * frames, sensor.shape, dtype, most, sequences=True)
            for start, stop, grandchild in _parts(size, max(1, CHUNK // frames), child):
                rng = np.random.default_rng(grandchild)
                targets, count = sample_trajectory_arrays(motion, sensor, stop - start, rng)
                targets = targets.reshape(-1, most, 3)
                x, y, intensity = np.nan_to_num(targets, nan=0.0).transpose(2, 0, 1)
                images = sensor.measure(sensor.render_stack(x, y, intensity), rng)
                check_fit(images, dtype)
                rows = slice(start * frames, stop * frames)
                group["image"][rows], group["targets"][rows] = images.astype(dtype), targets
                group["count"][rows] = np.repeat(count, frames)
                group["trajectory"][rows] = np.repeat(np.arange(start, stop), frames)
                group["frame"][rows] = np.tile(np.arange(frames), stop - start)
                done += len(images)
                if progress is not None:
                    progress(done, int(trajectories) * frames)
    return path


def _parts(size: int, step: int, seed: np.random.SeedSequence) -> Iterator[tuple[int, int, np.random.SeedSequence]]:
    """Yield (first, last + 1, seed) of each block of at most `step` trajectories of a split."""
    starts = range(0, size, step)
    for start, child in zip(starts, seed.spawn(len(starts)), strict=True):
        yield start, min(start + step, size), child
