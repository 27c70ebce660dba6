"""Scenes: priors on the number, positions and fluxes of targets, and exact sampling from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csist._compiled import compiled_exactly
from csist._types import FloatArray
from csist.checks import InputError, check_fields, check_kind, check_not_negative, check_range
from csist.grid import READ_OUT_THRESHOLD, SubPixelGrid
from csist.physics.psf import RAYLEIGH_PER_SIGMA, pixel_kernel
from csist.physics.sensor import Sensor
from csist.targets import Targets

INTENSITY_LAWS = ("uniform", "log-uniform")

LIGHT_ROOM = 10.0
"""Largest flux of a target in units of the light that a window shows: a saturated one has more than it shows."""


@dataclass(frozen=True)
class ScenePrior:
    """Prior distribution of a group of targets.

    Args:
        count_range: smallest and largest number of targets in a group, all equally probable.
        intensity_range: bounds of the flux in counts; None ties them to the noise through `snr_range`.
        snr_range: bounds of the flux in units of the standard error of the flux of a single target in white noise
            (matched filter); used if `intensity_range` is None.
        intensity_law: distribution between the bounds, "uniform" or "log-uniform".
        min_separation_px: smallest distance between two targets of a group in px.
        single_pixel: whether all targets of a group lie inside one pixel, which may be any pixel of the image.

    Raises:
        InputError: if a bound or the law is invalid.

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
        low, high = check_range("count_range", self.count_range, 0)
        if not (int(low) == low and int(high) == high):
            raise InputError(f"count_range must be (low, high), whole numbers, got {self.count_range}")
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
        """Return the benchmark's prior: 1-5 targets of 220-250 counts in one pixel, 0.52 R apart (sigma 0.5 px)."""
        return cls(
            count_range=(1, 5),
            intensity_range=(220.0, 250.0),
            intensity_law="uniform",
            min_separation_px=0.52 * RAYLEIGH_PER_SIGMA * 0.5,
            single_pixel=True,
        )

    @classmethod
    def flat(cls) -> ScenePrior:
        """Return a weak prior: 1-10 targets anywhere, flux log-uniform between 4 and 100,000 standard errors."""
        return cls()

    @classmethod
    def named(cls, name: str) -> ScenePrior:
        """The prior called `flat` or `csist-100k`; `csist.io.cards.read_prior` takes files, too.

        Raises:
            InputError: if there is none of that name.
        """
        known = {"flat": cls.flat, "csist-100k": cls.csist_100k}
        key = name.lower().replace("_", "-")
        if key not in known:
            raise InputError(f"unknown prior {name!r}: use flat or csist-100k")
        return known[key]()

    def to_card(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_card(cls, card: dict[str, Any]) -> ScenePrior:
        """Build the prior that a card describes; fields that are left out take their defaults.

        Raises:
            InputError: if a field is unknown or has a wrong value.
        """
        check_fields("prior", card, cls.__dataclass_fields__)
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in card.items()}
        return cls(**fields)


def as_prior(prior: ScenePrior | str | None) -> ScenePrior | None:
    """The prior, also by its name; None for none.

    Raises:
        InputError: if it is neither.
    """
    if isinstance(prior, str):
        return ScenePrior.named(prior)
    check_kind("prior", prior, ScenePrior, "ScenePrior.flat() and ScenePrior.csist_100k() are some")
    return prior


MOST_ATTEMPTS = 50_000_000
"""Configurations tried for one group before the separation is considered impossible."""


@compiled_exactly
def draw_separated(
    positions: FloatArray, extent: FloatArray, min_separation_px: float, rng: np.random.Generator
) -> int:
    """Fill positions (groups, count, 2) uniformly on the part of [0, extent)^count where all pairs are separated.

    Points are added one at a time, and the whole configuration is rejected as soon as a pair is too close. This is
    rejection sampling of configurations with early stopping, so that the accepted ones are exactly uniform on the
    allowed set; redrawing only the last point would bias them. Returns the number of rejected configurations, or -1 if
    no valid one was found for a group.
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
        Targets (n, Kmax, 3) with columns x, y, intensity, padded with NaN, and counts (n,).

    Raises:
        InputError: if the prior's minimum separation is impossible.
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
                f"{k} targets at least {prior.min_separation_px} px apart do not fit into "
                f"{extent[0]} x {extent[1]} px: lower count_range or min_separation_px"
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
    """Return the bounds of the flux in counts.

    They are the prior's `intensity_range`, or its `snr_range` times the standard error of the flux of a single target.

    Args:
        prior: scene prior.
        sensor: sensor with the PSF, and with the noise if `noise_std` is None.
        noise_std: standard deviation of the pixel noise in counts.

    Raises:
        InputError: if the bounds depend on the noise and the noise is 0.
    """
    if prior.intensity_range is not None:
        return prior.intensity_range
    noise = float(np.sqrt(sensor.noise_variance())) if noise_std is None else noise_std
    if noise <= 0:
        raise InputError(
            "the noise is 0, so that a prior in units of the noise is undefined: give noise_std or intensity_range"
        )
    error = noise / np.sqrt((pixel_kernel(sensor.psf) ** 2).sum())
    return prior.snr_range[0] * error, prior.snr_range[1] * error


def suited(grid: SubPixelGrid, prior: ScenePrior | None, sensor: Sensor) -> SubPixelGrid:
    """The grid with the read-out threshold for the faintest targets of a prior, in the proportion of the published one.

    Args:
        grid: the grid.
        prior: scene prior; where it is None, or depends on a noise that is 0, the threshold stays.
        sensor: of the images.

    >>> suited(SubPixelGrid((11, 11), 3), ScenePrior(intensity_range=(22.0, 40.0)), Sensor()).threshold
    5.0
    """
    if prior is None or (prior.intensity_range is None and not sensor.noise_variance() > 0.0):
        return grid
    faintest, published = (flux_bounds(of, sensor)[0] for of in (prior, ScenePrior.csist_100k()))
    return replace(grid, threshold=READ_OUT_THRESHOLD * faintest / published)


def with_room_for_light(prior: ScenePrior, data: FloatArray, sensor: Sensor, noise_std: float) -> ScenePrior:
    """The prior, with a largest SNR that the brightest target of a window does not exceed.

    A star may be more than 1e5 times as bright as the noise. Bound to less flux, it would be split into several.

    Args:
        prior: scene prior.
        data: (h, w) background-subtracted counts of the window, NaN where masked.
        sensor: with the PSF.
        noise_std: of a pixel in counts.
    """
    if prior.intensity_range is not None:
        return prior
    low, high = prior.snr_range
    largest = flux_bounds(prior, sensor, noise_std)[1]
    light = float(np.nansum(np.maximum(data, 0.0)))
    return replace(prior, snr_range=(low, high * max(1.0, LIGHT_ROOM * light / largest)))


def targets_from_arrays(targets: FloatArray, count: NDArray[np.int64]) -> list[Targets]:
    """Return one `Targets` per image from padded arrays (n, Kmax, 3) and counts (n,)."""
    return [Targets(x=t[:k, 0], y=t[:k, 1], intensity=t[:k, 2]) for t, k in zip(targets, count, strict=True)]


def sample_scenes(prior: ScenePrior, sensor: Sensor, n: int, seed: int | np.random.Generator) -> list[Targets]:
    """Draw n scenes; the same seed gives the same scenes.

    Args:
        prior: scene prior.
        sensor: sensor with the image shape in px, and with the noise if the prior's intensities depend on it.
        n: number of scenes.
        seed: seed or generator.

    Returns:
        The true targets, one `Targets` per image.

    Raises:
        InputError: if the prior's minimum separation is impossible.
    """
    return targets_from_arrays(*sample_scene_arrays(prior, sensor, n, np.random.default_rng(seed)))


def simulate(prior: ScenePrior, sensor: Sensor, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return simulated images (n, H, W) and their padded true targets (n, Kmax, 3)."""
    targets, _ = sample_scene_arrays(prior, sensor, n, rng)
    x, y, intensity = np.moveaxis(np.nan_to_num(targets), 2, 0)
    return sensor.measure(sensor.render_stack(x, y, intensity), rng), targets
