"""Scenes: where targets may lie, how bright and how many, and how to draw them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csist._compiled import compiled_exactly
from csist._types import FloatArray
from csist.checks import InputError, check_not_negative, check_range
from csist.physics.psf import RAYLEIGH_PER_SIGMA, pixel_kernel
from csist.physics.sensor import Sensor
from csist.targets import Targets

INTENSITY_LAWS = ("uniform", "log-uniform")


@dataclass(frozen=True)
class ScenePrior:
    """What is known of a group of targets before the image is seen.

    Args:
        count_range: smallest and largest number of targets in a group, all equally probable.
        intensity_range: bounds of the flux in counts; None ties them to the noise through `snr_range`.
        snr_range: bounds of the flux in units of its own standard error for a single target in white noise
            (matched filter); used where `intensity_range` is None.
        intensity_law: "uniform" or "log-uniform" between the bounds.
        min_separation_px: smallest distance of two targets of a group.
        single_pixel: the whole group lies inside one pixel, itself anywhere in the image; else anywhere.

    Raises:
        InputError: if a bound is out of order.

    >>> ScenePrior.csist_100k().intensity_range
    (220.0, 250.0)
    """

    count_range: tuple[int, int] = (1, 10)
    intensity_range: tuple[float, float] | None = None
    snr_range: tuple[float, float] = (4.0, 1e5)
    intensity_law: str = "log-uniform"
    min_separation_px: float = 0.1
    single_pixel: bool = False

    def __post_init__(self) -> None:
        low, high = self.count_range
        if not (int(low) == low and int(high) == high and 0 <= low <= high):
            raise InputError(
                f"count_range must be (low, high) whole numbers with 0 <= low <= high, got {self.count_range}"
            )
        object.__setattr__(self, "count_range", (int(low), int(high)))
        if self.intensity_law not in INTENSITY_LAWS:
            raise InputError(f"intensity_law must be one of {', '.join(INTENSITY_LAWS)}, got {self.intensity_law!r}")
        lowest = np.nextafter(0.0, 1.0) if self.intensity_law == "log-uniform" else 0.0
        if self.intensity_range is not None:
            object.__setattr__(self, "intensity_range", check_range("intensity_range", self.intensity_range, lowest))
        object.__setattr__(self, "snr_range", check_range("snr_range", self.snr_range, np.nextafter(0.0, 1.0)))
        check_not_negative("min_separation_px", self.min_separation_px)

    @classmethod
    def csist_100k(cls) -> ScenePrior:
        """The benchmark's own law: 1-5 targets of 220-250 counts in one pixel, at least 0.52 R apart (sigma 0.5 px)."""
        return cls(
            count_range=(1, 5),
            intensity_range=(220.0, 250.0),
            intensity_law="uniform",
            min_separation_px=0.52 * RAYLEIGH_PER_SIGMA * 0.5,
            single_pixel=True,
        )

    @classmethod
    def flat(cls) -> ScenePrior:
        """Next to no knowledge: 1-10 targets anywhere, flux log-uniform between 4 and 100,000 standard errors."""
        return cls()

    @classmethod
    def named(cls, name: str) -> ScenePrior:
        """The prior called `flat` or `csist-100k`, or the one that a JSON file holds.

        Raises:
            InputError: if it is neither.
        """
        known = {"flat": cls.flat, "csist-100k": cls.csist_100k}
        key = name.lower().replace("_", "-")
        if key in known:
            return known[key]()
        if not Path(name).is_file():
            raise InputError(f"unknown prior {name!r}: use flat, csist-100k or the path of a JSON file")
        try:
            return cls.from_card(json.loads(Path(name).read_text()))
        except ValueError as error:
            raise InputError(f"cannot read the prior {name}: {error}") from error

    def to_card(self) -> dict[str, Any]:
        """A JSON-ready description."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_card(cls, card: dict[str, Any]) -> ScenePrior:
        """The prior that a card describes; a field that is left out takes its default.

        Raises:
            InputError: if a field is unknown or has a wrong value.
        """
        known = set(cls.__dataclass_fields__)
        if not isinstance(card, dict) or set(card) - known:
            odd = sorted(set(card) - known) if isinstance(card, dict) else card
            raise InputError(f"a prior card may hold {', '.join(sorted(known))}; got {odd}")
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in card.items()}
        return cls(**fields)


MOST_ATTEMPTS = 50_000_000
"""Candidates tried for one group before the separation is called impossible."""


@compiled_exactly
def draw_separated(
    positions: FloatArray, extent: FloatArray, min_separation_px: float, rng: np.random.Generator
) -> int:
    """Fill positions (groups, count, 2) uniformly on the part of [0, extent)^count where all pairs keep apart.

    Points are added one at a time and the candidate is thrown away WHOLE as soon as a pair is too close. That
    is plain rejection sampling (take a uniform configuration or draw a new one), only stopped early, so the
    accepted ones are exactly uniform on the allowed set; re-drawing just the last point would not be.
    Returns the number of candidates thrown away, or -1 if a group was given up.
    """
    groups, count, _ = positions.shape
    limit = min_separation_px**2
    rejected = 0
    for group in range(groups):
        placed, attempts = 0, 0
        while placed < count:
            x, y = rng.random() * extent[0], rng.random() * extent[1]
            clear = True
            for other in range(placed):
                dx, dy = positions[group, other, 0] - x, positions[group, other, 1] - y
                if dx * dx + dy * dy < limit:
                    clear = False
                    break
            if clear:
                positions[group, placed, 0], positions[group, placed, 1] = x, y
                placed += 1
            else:
                placed = 0
                attempts += 1
                if attempts > MOST_ATTEMPTS:
                    return -1
        rejected += attempts
    return rejected


def sample_scene_arrays(
    prior: ScenePrior, sensor: Sensor, n: int, rng: np.random.Generator
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Draw n scenes as one padded array.

    Returns:
        targets (n, Kmax, 3) with columns x, y, intensity, padded with NaN, and count (n,).

    Raises:
        InputError: if the prior's separation cannot be kept.
    """
    intensity_range = prior.intensity_range or flux_bounds(prior, sensor)
    low, high = prior.count_range
    count = rng.integers(low, high + 1, n)
    targets = np.full((n, high, 3), np.nan)
    rows, columns = sensor.shape
    extent = np.array([1.0, 1.0] if prior.single_pixel else [columns, rows], dtype=np.float64)
    for k in range(max(low, 1), high + 1):
        chosen = np.flatnonzero(count == k)
        positions = np.empty((len(chosen), k, 2))
        if draw_separated(positions, extent, prior.min_separation_px, rng) < 0:
            raise InputError(
                f"{k} targets at least {prior.min_separation_px} px apart do not fit into {extent[0]} x {extent[1]} px:"
                " "
                "lower count_range or min_separation_px"
            )
        targets[chosen, :k, :2] = positions - 0.5
    if prior.single_pixel:
        pixel = np.stack([rng.integers(0, columns, n), rng.integers(0, rows, n)], axis=1)
        targets[:, :, :2] += pixel[:, None, :]
    uniform = rng.random((n, high))
    if prior.intensity_law == "log-uniform":
        flux = np.exp(np.log(intensity_range[0]) + uniform * np.log(intensity_range[1] / intensity_range[0]))
    else:
        flux = intensity_range[0] + uniform * (intensity_range[1] - intensity_range[0])
    targets[:, :, 2] = np.where(np.arange(high) < count[:, None], flux, np.nan)
    return targets, count


def flux_bounds(prior: ScenePrior, sensor: Sensor, noise_std: float | None = None) -> tuple[float, float]:
    """Bounds of the flux in counts: the prior's own, or its `snr_range` times the error of a lone target's flux.

    Args:
        prior: scene prior.
        sensor: gives the PSF, and the noise where `noise_std` is None.
        noise_std: noise of a pixel in counts.

    Raises:
        InputError: if the noise is needed and zero.
    """
    if prior.intensity_range is not None:
        return prior.intensity_range
    noise = float(np.sqrt(sensor.noise_variance())) if noise_std is None else noise_std
    if noise <= 0:
        raise InputError("the noise is 0, so a prior tied to it is undefined: give noise_std or intensity_range")
    error = noise / np.sqrt((pixel_kernel(sensor.psf) ** 2).sum())
    return prior.snr_range[0] * error, prior.snr_range[1] * error


def targets_from_arrays(targets: FloatArray, count: NDArray[np.int64]) -> list[Targets]:
    """One `Targets` an image from padded arrays (n, Kmax, 3) and counts (n,)."""
    return [Targets(x=t[:k, 0], y=t[:k, 1], intensity=t[:k, 2]) for t, k in zip(targets, count, strict=True)]


def sample_scenes(prior: ScenePrior, sensor: Sensor, n: int, seed: int | np.random.Generator) -> list[Targets]:
    """Draw n scenes; the same seed gives the same scenes.

    Args:
        prior: law of the scenes.
        sensor: gives the shape of the image in px, and the noise where the prior's intensities are tied to it.
        n: number of scenes.
        seed: seed or generator.

    Returns:
        The true targets of each scene, one `Targets` an image.

    Raises:
        InputError: if the prior's separation cannot be kept.
    """
    return targets_from_arrays(*sample_scene_arrays(prior, sensor, n, np.random.default_rng(seed)))


def simulate(prior: ScenePrior, sensor: Sensor, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Measured images (n, H, W) and the padded targets (n, Kmax, 3) behind them."""
    targets, _ = sample_scene_arrays(prior, sensor, n, rng)
    x, y, intensity = np.moveaxis(np.nan_to_num(targets), 2, 0)
    return sensor.measure(sensor.render_stack(x, y, intensity), rng), targets
