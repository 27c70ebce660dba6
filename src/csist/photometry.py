"""Forced photometry: fluxes and their errors at given positions of a frame.

Neighbours whose light overlaps are fitted together, and with them one constant that the measured background may be off
by. This is the linear least-squares problem of PSF photometry (Stetson, PASP 99, 191, 1987) with positions held fixed,
so no peak is needed: where nothing shines the flux is compatible with zero and its error gives an upper limit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.sparse import csc_array, csr_array, hstack
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from scipy.spatial import KDTree

from csist._types import BoolArray, FloatArray, IntArray
from csist.checks import InputError
from csist.frames.background.estimate import Background
from csist.frames.masks.mask import PixelKind, PixelMask, check_frame
from csist.frames.measured import FramePSF, FrameRules, MeasuredFrame, measure_frame
from csist.frames.options import FrameOptions
from csist.frames.photons import with_gain
from csist.frames.psf_estimate import PSFEstimate
from csist.frames.solve import settle_psf
from csist.physics.psf import PSF, by_place, equivalent_sigma, outer_response
from csist.physics.sensor import Sensor
from csist.targets import Flag, Targets
from csist.windows import check_error, leave_out

MARGIN_PX = 2
"""Pixels beyond a target's light that take part in the fit: they hold the constant."""
FAINT_SHARE, FAINT_WING = 1e-3, 0.5
"""Light below both, as a share of the target's brightest pixel and in units of the noise, does not count."""
UPPER_LIMIT_SIGMAS = 3.0
"""Fluxes below so many standard errors are flagged as upper limits."""
SHOT_NOISE_PASSES = 3
"""Fits in which the shot noise of the targets follows from the fluxes of the last one."""
UNNAMED_SIGMAS, UNNAMED_SHARE = 5.0, 0.1
"""Light of a pixel beyond that of the targets, in standard deviations, by which another source is noticed; a share of
the targets' own light, by which their PSF may be wrong, counts as noise."""
CORE_SHARE = 0.2
"""Light of a target, as a share of its brightest pixel, from which a pixel is always used."""
UNNAMED_REACH = 2.5
"""Distance from such pixels, in the PSF's sigma, up to which others are left out with them."""
MOST_UNNAMED, SPOILED_SIGMAS = 50, 2.0
"""Brightest such pixels whose light is followed to the targets, and the flux, in standard errors, that it may add."""
UNNAMED_ROUNDS, FEWEST_BESIDE = 4, 8
"""Most fits for this, and the pixels beside the targets that a constant needs."""
SAME_PX = 1e-5
"""Positions closer than this are one."""
DENSE_SIZE = 600
"""Unknowns up to which the normal matrix is inverted whole; above, its factors are solved in blocks."""
BLOCK = 256


def forced_photometry(
    image: NDArray[np.generic],
    x: ArrayLike,
    y: ArrayLike,
    *,
    psf: PSF | PSFEstimate | float | str | None = None,
    error: ArrayLike | None = None,
    **options: Any,
) -> Targets:
    """Measure the flux of a point target at each of the given positions.

    Args:
        image: (H, W) in counts; NaN pixels are left out.
        x: columns in px, shape (n,).
        y: rows in px, shape (n,).
        error: (H, W) standard deviation of each pixel in counts with all that adds to it, photons of the targets too;
            None if it is not known.
        psf: point spread function, the sigma in px of a Gaussian one, or "auto" or "empirical" to measure it on the
            frame; None for that of the sensor.
        **options: `sensor`, `noise_std` and `box_sides_px` as in `csist.frames.FrameOptions`.

    Returns:
        One target per position, in their order: `intensity` and `intensity_std` in counts. Equal positions are one
        target, whose flux each of them gets. The flag UPPER_LIMIT marks a
        flux below three standard errors (the true one is below intensity + 3 intensity_std at 99.9 %), POOR_FIT one
        that a neighbour without a position has a part in, MASKED and SATURATED such pixels of the target. Where no
        pixel of a target is valid, flux and error are NaN.

    Raises:
        InputError: if the positions are not finite or of different lengths, if the frame cannot be used, if the PSF
            cannot be measured, or if an option is unknown or out of range.

    >>> from csist.physics.sensor import Sensor
    >>> from csist.physics.psf import GaussianPSF
    >>> sky = Sensor(GaussianPSF(1.1), shape=(40, 60), background=20.0, read_noise=1.0)
    >>> frame = sky.observe(Targets(x=[30.2], y=[20.7], intensity=[900.0]), 0)
    >>> found = forced_photometry(frame, [30.2, 10.0], [20.7, 10.0], psf=1.1)
    >>> found.flags.tolist(), bool(abs(found.intensity[0] - 900.0) < 4.0 * found.intensity_std[0])
    ([0, 64], True)
    """
    return measure_frame_at(image, x, y, FrameOptions.of(psf=psf, **options), error)[0]


def measure_frame_at(
    image: NDArray[np.generic],
    x: ArrayLike,
    y: ArrayLike,
    options: FrameOptions,
    error: ArrayLike | None = None,
) -> tuple[Targets, MeasuredFrame, FramePSF]:
    """`forced_photometry` with its options in one object; the frame as it was measured and the PSF are returned, too.

    Args:
        image: (H, W) in counts.
        x: columns in px, shape (n,).
        y: rows in px, shape (n,).
        options: of the frame; its PSF or sensor must be given.
        error: (H, W) standard deviation of each pixel in counts, with all that adds to it; None if it is not known.

    Raises:
        InputError: as `forced_photometry`, and if the PSF is not known.
    """
    columns, rows = check_positions(x, y)
    pixels, rules = check_frame(image), FrameRules.of(options)
    noise_map = check_error(error, pixels.shape)
    if noise_map is not None:
        pixels, noise_map = leave_out(pixels[None], noise_map)[0], noise_map[0]
    psf, frame = settle_psf(pixels, rules, options, noise_map)
    if psf is None:
        raise InputError("fluxes at given positions need the PSF: give psf or sensor (--psf-sigma, --psf, --sensor)")
    frame = measure_frame(pixels, rules, psf.psf, noise_map) if frame is None else frame
    options = with_gain(options, frame, psf.psf)
    return measure_fluxes(frame, columns, rows, psf.psf, options.gain), frame, psf


def check_positions(x: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Columns and rows in px as arrays (n,).

    Raises:
        InputError: if they are not finite or of different lengths.
    """
    columns, rows = (np.atleast_1d(np.asarray(values, dtype=np.float64)) for values in (x, y))
    if columns.shape != rows.shape or columns.ndim != 1:
        raise InputError(f"x and y must be positions of equal number, got shapes {columns.shape} and {rows.shape}")
    if not (np.isfinite(columns).all() and np.isfinite(rows).all()):
        raise InputError("positions must be finite: leave out those that are NaN or infinite")
    return columns, rows


def window_fluxes(
    image: FloatArray, places: FloatArray, sensor: Sensor, noise_std: float, error: FloatArray | None = None
) -> Targets:
    """`forced_photometry` in a window, whose background and noise are those of the sensor.

    Args:
        image: (H, W) in counts; NaN pixels are left out.
        places: x and y in px, shape (n, 2).
        sensor: PSF, background, gain and saturation.
        noise_std: noise in counts of a pixel without targets, before rounding.
        error: (H, W) standard deviation of each pixel in counts; None if it is not known.

    Raises:
        InputError: if the positions are not finite or of different lengths.
    """
    columns, rows = check_positions(places[:, 0], places[:, 1])
    if error is None:
        deviation = np.full(image.shape, max((noise_std**2 + sensor.rounding_variance) ** 0.5, 1e-300))
    else:
        image = leave_out(image[None], error[None])[0]
        deviation = np.where(np.isfinite(error) & (error > 0.0), error, 1.0)
    background = Background(np.full(image.shape, sensor.background), deviation)
    kind = np.where(np.isnan(image), PixelKind.NAN, np.where(image >= sensor.ceiling, PixelKind.SATURATED, 0))
    frame = MeasuredFrame(image, PixelMask(kind.astype(np.uint8), sensor.ceiling), background, False, error)
    return measure_fluxes(frame, columns, rows, sensor.psf, sensor.gain, level_known=True)


def measure_fluxes(
    frame: MeasuredFrame, x: FloatArray, y: FloatArray, psf: PSF, gain: float | None, level_known: bool = False
) -> Targets:
    """`forced_photometry` on a frame whose pixels and background are measured.

    Args:
        frame: the frame.
        x: columns in px, shape (n,).
        y: rows in px, shape (n,).
        psf: point spread function.
        gain: electrons per count; None for no shot noise of the targets.
        level_known: whether the background is exact, so that no constant is fitted with the fluxes.

    Returns:
        One row for each position; equal positions have the flux of the one target there.
    """
    # Two rows at one place, as in catalogues that were merged, are one target.
    _, first, row = np.unique(np.rint(np.stack([x, y]) / SAME_PX), axis=1, return_index=True, return_inverse=True)
    if len(first) < len(x):
        once = measure_fluxes(frame, x[first], y[first], psf, gain, level_known)
        return once[row.ravel()].replace(x=x, y=y)
    flux, error, spoiled = np.full(len(x), np.nan), np.full(len(x), np.nan), np.zeros(len(x), dtype=bool)
    valid = ~(frame.pixels.masked | frame.pixels.saturated)
    gain = gain if frame.error is None else None
    reach = _reach(frame, x, y, psf)
    for members in _overlapping(x, y, reach):
        patch = _light(x[members], y[members], reach[members], psf, valid)
        seen = patch.seen
        if seen.any():
            own = members[seen]
            flux[own], error[own], spoiled[own] = _fit_alone(patch, frame, psf, gain, level_known)
    flags = np.where(flux < UPPER_LIMIT_SIGMAS * error, int(Flag.UPPER_LIMIT), 0)
    flags |= np.where(spoiled, int(Flag.POOR_FIT), 0)
    flags |= _pixel_flags(frame, x, y, psf)
    return Targets(x=x, y=y, intensity=flux, intensity_std=error, flags=flags)


class _Patch(NamedTuple):
    """The valid pixels around some targets, and the targets' light in them.

    Args:
        pixels: (m,) flat indices into the frame.
        light: (m, k) share of the flux of each target that is seen in each pixel.
        seen: (n,) which of the targets have light in a valid pixel; k of them.
    """

    pixels: IntArray
    light: csr_array
    seen: BoolArray


def _reach(frame: MeasuredFrame, x: FloatArray, y: FloatArray, psf: PSF) -> IntArray:
    """Half side (n,) in px of the square in which each position's light matters, by its brightest pixel."""
    outer, (height, width) = outer_response(psf), frame.image.shape
    rows, columns = (np.clip(np.rint(v), 0, n - 1).astype(np.int64) for v, n in ((y, height), (x, width)))
    near = ndimage.maximum_filter(np.nan_to_num(frame.flattened, nan=0.0), 3)[rows, columns]
    share = FAINT_WING * frame.background.noise[rows, columns] * psf.response(0.0, 0.0) / np.maximum(near, 1e-300)
    faint = np.minimum(share, FAINT_SHARE * psf.response(0.0, 0.0))
    return np.asarray(np.searchsorted(-outer, -faint) + MARGIN_PX)


def _overlapping(x: FloatArray, y: FloatArray, reach: IntArray) -> list[IntArray]:
    """Indices of the positions in each set whose pixels overlap, given the half sides (n,) of their squares."""
    if not len(x):
        return []
    positions = np.stack([x, y], axis=1)
    pairs = KDTree(positions).query_pairs(2.0 * float(reach.max()) + 1.0, p=np.inf, output_type="ndarray")
    distance = np.abs(positions[pairs[:, 0]] - positions[pairs[:, 1]]).max(axis=1, initial=0.0)
    pairs = pairs[distance <= reach[pairs].sum(axis=1) + 1.0]
    links = csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(x), len(x)))
    number, labels = connected_components(links, directed=False)
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.searchsorted(labels[order], np.arange(1, number)))


def _light(x: FloatArray, y: FloatArray, reach: IntArray, psf: PSF, valid: BoolArray) -> _Patch:
    """Pixels and light of some targets; pixels outside the frame, or that are not valid, are left out."""
    height, width = valid.shape
    offset = np.arange(-int(reach.max()), int(reach.max()) + 1)
    rows = np.rint(y).astype(np.int64)[:, None, None] + offset[None, :, None]
    columns = np.rint(x).astype(np.int64)[:, None, None] + offset[None, None, :]
    rows, columns = np.broadcast_arrays(rows, columns)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    inside &= np.maximum(np.abs(offset)[:, None], np.abs(offset)) <= reach[:, None, None]
    inside[inside] = valid[rows[inside], columns[inside]]
    target, _, _ = np.nonzero(inside)
    rows, columns = rows[inside], columns[inside]
    response = np.empty(len(target))
    for own, members in by_place(psf, x, y):
        mine = np.isin(target, members)
        response[mine] = own.response((columns - x[target])[mine], (rows - y[target])[mine])
    pixels, place = np.unique(rows * width + columns, return_inverse=True)
    light = csc_array((response, (place, target)), shape=(len(pixels), len(x)))
    seen = np.asarray(light.sum(axis=0)).ravel() > 0.5 * float(psf.response(0.0, 0.0))
    return _Patch(pixels, csr_array(light[:, np.flatnonzero(seen)]), seen)


def _above(frame: MeasuredFrame, pixels: IntArray) -> FloatArray:
    """Counts (m,) above the background of some pixels, flat indices into the frame."""
    return np.asarray(frame.image.ravel()[pixels] - frame.background.level.ravel()[pixels])


def _fit_alone(
    patch: _Patch, frame: MeasuredFrame, psf: PSF, gain: float | None, level_known: bool
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Fluxes and standard errors of the targets of a patch, without the pixels that others, which nobody named, light.

    The light of an unnamed neighbour would raise the constant that is fitted with the fluxes. Where it falls on a
    target itself, nothing tells it from the target's own: the last array says which fluxes it raises.
    """
    flux, error = _fit(patch, frame, gain, level_known)
    share = patch.light.max(axis=1).toarray().ravel() / float(psf.response(0.0, 0.0))
    noise = frame.background.noise.ravel()[patch.pixels]
    above = _above(frame, patch.pixels)
    places = np.stack(np.divmod(patch.pixels, frame.image.shape[1]), axis=1)
    used, reach = np.ones(len(noise), dtype=bool), UNNAMED_REACH * equivalent_sigma(psf)
    for _ in range(UNNAMED_ROUNDS):
        own = patch.light @ np.maximum(flux, 0.0)
        variance = noise**2 + (UNNAMED_SHARE * own) ** 2 + (0.0 if gain is None else own / gain)
        foreign = (share < CORE_SHARE) & (above - own > UNNAMED_SIGMAS * np.sqrt(variance))
        near = np.ones(len(noise), dtype=bool)
        if foreign.any():
            distance = KDTree(places[foreign]).query(places)[0]
            near = (distance > reach + 0.5) | (share >= CORE_SHARE)
        if (near == used).all():
            break
        used = near
        left = _Patch(patch.pixels[used], patch.light[np.flatnonzero(used)], patch.seen)
        # Without pixels beside the targets the constant would be a part of their light.
        lonely = int((used & (share < CORE_SHARE)).sum()) < FEWEST_BESIDE
        flux, error = _fit(left, frame, gain, level_known or lonely)
    raised = np.zeros(len(noise))
    brightest = np.flatnonzero(foreign)[np.argsort(own[foreign] - above[foreign])][:MOST_UNNAMED]
    while brightest.size:
        place = brightest[0]
        spread = np.asarray(psf.response(*(places - places[place]).T[::-1])) / float(psf.response(0.0, 0.0))
        raised = np.maximum(raised, (above - own)[place] * spread)
        brightest = brightest[np.hypot(*(places[brightest] - places[place]).T) > reach]
    power = np.asarray(patch.light.power(2).sum(axis=0)).ravel()
    return flux, error, patch.light.T @ raised > SPOILED_SIGMAS * error * power


def _fit(patch: _Patch, frame: MeasuredFrame, gain: float | None, level_known: bool) -> tuple[FloatArray, FloatArray]:
    """Fluxes and standard errors of the targets of a patch."""
    data = _above(frame, patch.pixels)
    variance = frame.background.noise.ravel()[patch.pixels] ** 2
    number = patch.light.shape[1]
    design = patch.light if level_known else csr_array(hstack([patch.light, csr_array(np.ones((len(data), 1)))]))
    solution = np.zeros(design.shape[1])
    errors = np.full(design.shape[1], np.nan)
    for _ in range(1 if gain is None else SHOT_NOISE_PASSES):
        shot = 0.0 if gain is None else np.maximum(patch.light @ solution[:number], 0.0) / gain
        weighted = design.multiply(1.0 / (variance + shot)[:, None]).tocsr()
        normal = csc_array(design.T @ weighted)
        solution, errors = _solve(normal, weighted.T @ data)
    return solution[:number], errors[:number]


def _solve(normal: csc_array, right: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Solution of the normal equations, and the square root of the diagonal of the inverse."""
    size = normal.shape[0]
    if size <= DENSE_SIZE:
        inverse = np.linalg.pinv(normal.toarray(), hermitian=True)
        return inverse @ right, np.sqrt(np.diag(inverse))
    factors = splu(normal)
    diagonal = np.empty(size)
    for start in range(0, size, BLOCK):
        unit = np.zeros((size, min(BLOCK, size - start)))
        unit[np.arange(start, start + unit.shape[1]), np.arange(unit.shape[1])] = 1.0
        diagonal[start : start + unit.shape[1]] = np.einsum("ij,ij->j", unit, factors.solve(unit))
    return factors.solve(right), np.sqrt(diagonal)


def _pixel_flags(frame: MeasuredFrame, x: FloatArray, y: FloatArray, psf: PSF) -> IntArray:
    """MASKED and SATURATED bits of each position, by the pixels that hold most of its light."""
    reach, (height, width) = int(np.ceil(2.0 * equivalent_sigma(psf) + 0.5)), frame.image.shape
    flags = np.zeros(len(x), dtype=np.int64)
    for number, (column, row) in enumerate(zip(np.rint(x).astype(int), np.rint(y).astype(int), strict=True)):
        part = (
            slice(max(row - reach, 0), max(row + reach + 1, 0)),
            slice(max(column - reach, 0), max(column + reach + 1, 0)),
        )
        outside = not (0 <= row < height and 0 <= column < width)
        if outside or frame.pixels.masked[part].any():
            flags[number] |= int(Flag.MASKED)
        if frame.pixels.saturated[part].any():
            flags[number] |= int(Flag.SATURATED)
    return flags
