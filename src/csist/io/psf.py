"""Files of point spread functions: images, photutils' grids (FITS) and PSFEx models (.psf)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import RectBivariateSpline

from csist._types import FloatArray
from csist.checks import InputError, check_packages
from csist.files import reading
from csist.io.fits import check_headers
from csist.io.formats import ReadOptions, image_kind
from csist.io.images import read_image
from csist.physics.psf import PSF, FieldPSF, SampledPSF

STDPSF_OVERSAMPLING = 4
PSFEX_NODES = 7
"""Nodes along an axis at which a PSFEx model is evaluated."""
LEAST_PSFEX_OVERSAMPLING = 2


def read_psf(path: str | Path, oversampling: int = 1) -> PSF:
    """Read a PSF: an image with odd sides, a grid of PSFs of photutils, or a PSFEx model.

    Grids are the FITS files that `photutils.psf.GriddedPSFModel.read` takes (a cube with the keywords DET_YX and
    OVERSAMP, or NXPSFS and NYPSFS of one detector); they state their own oversampling, as an image with the keyword
    OVERSAMP does.

    Args:
        path: image of any format that `read_image` reads, or a .psf file.
        oversampling: samples per pixel of an image; 1 takes what its FITS header states.

    Raises:
        InputError: if the file cannot be read or is no PSF.
    """
    path = Path(path)
    if path.suffix.lower() == ".psf":
        return _read_psfex(path)
    if image_kind(path) == "fits" and path.is_file():
        units = _units(path)
        grid = _read_grid(path, *units[0])
        if grid is not None:
            return grid
        oversampling = _stated_oversampling(units) if oversampling == 1 else oversampling
    stack = read_image(path)
    if len(stack) != 1:
        raise InputError(f"cannot use the PSF {path}: it holds {len(stack)} images, give one")
    try:
        return SampledPSF(stack[0], oversampling)
    except InputError as error:
        raise InputError(f"cannot use the PSF {path}: {error}") from error


def _units(path: Path) -> list[tuple[dict[str, Any], Any]]:
    """Header and data of each unit of a FITS file."""
    check_packages(f"the PSF {path.name}", ["astropy"], "astro")
    from astropy.io import fits

    with reading(path), path.open("rb") as file:
        check_headers(file, path, ReadOptions())
        with fits.open(file, memmap=False) as units:
            return [(dict(unit.header), unit.data) for unit in units]


def _stated_oversampling(units: list[tuple[dict[str, Any], Any]]) -> int:
    """Samples per pixel by the header of the first image of a FITS file; 1 where it states none."""
    stated = next((header.get("OVERSAMP", 1) for header, data in units if data is not None), 1)
    return int(stated) if isinstance(stated, int | float) and stated >= 1 else 1


def _read_grid(path: Path, header: dict[str, Any], data: Any) -> FieldPSF | None:
    """A grid of PSFs, from header and data of the first unit of a FITS file; None if it is something else."""
    positions = {int(key[6:]): str(header[key]) for key in header if re.fullmatch(r"DET_YX\d+", key)}
    if data is None or np.ndim(data) not in (2, 3) or not (positions or "NXPSFS" in header):
        return None
    cube = np.asarray(data, dtype=np.float64).reshape(-1, *np.shape(data)[-2:])
    try:
        if positions:
            # Written as "(y, x)".
            pairs = [[float(part) for part in positions[k].strip("() ").split(",")] for k in sorted(positions)]
            places, oversampling = np.array(pairs)[:, ::-1], int(header["OVERSAMP"])
        else:
            x, y = (
                [float(header[f"{key}{k:02d}"]) - 1.0 for k in range(1, int(header[count]) + 1)]
                for key, count in (("IPSFX", "NXPSFS"), ("JPSFY", "NYPSFS"))
            )
            places, oversampling = np.array([(column, row) for row in y for column in x]), STDPSF_OVERSAMPLING
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"cannot use the PSF {path}: the positions of its grid cannot be read ({error})") from error
    return _gridded(path, places, cube, oversampling)


def _gridded(path: Path, places: FloatArray, cube: FloatArray, oversampling: int) -> FieldPSF:
    """A field PSF of arrays (n, h, w) at positions (n, 2), which must form a rectangle."""
    x, y = np.unique(places[:, 0]), np.unique(places[:, 1])
    if len(places) != len(cube) or len(x) * len(y) != len(cube):
        raise InputError(
            f"cannot use the PSF {path}: its {len(cube)} arrays and {len(places)} positions form no rectangular grid; "
            "a file of several detectors has to be split"
        )
    arrays = np.empty((len(y), len(x), *cube.shape[1:]))
    arrays[np.searchsorted(y, places[:, 1]), np.searchsorted(x, places[:, 0])] = cube
    try:
        return FieldPSF(x, y, arrays, oversampling)
    except InputError as error:
        raise InputError(f"cannot use the PSF {path}: {error}") from error


def _read_psfex(path: Path) -> FieldPSF:
    """A PSFEx model: images that are the coefficients of a polynomial in the position (Bertin, ASPC 442, 435, 2011).

    It varies with the position in the image alone. Its sampling step need not divide a pixel, so it is resampled.
    """
    tables = [(header, data) for header, data in _units(path) if data is not None and "PSF_SAMP" in header]
    if not tables:
        raise InputError(f"cannot use the PSF {path}: it is not a PSFEx model, no table states PSF_SAMP")
    header, data = tables[0]
    with reading(path):
        images = np.asarray(data["PSF_MASK"][0], dtype=np.float64)
        step = float(header["PSF_SAMP"])
        axes = int(header.get("POLNAXIS", 0))
        names = [str(header[f"POLNAME{k}"]) for k in range(1, axes + 1)]
        degree = int(header.get("POLDEG1", 0)) if axes else 0
        zero = [float(header[f"POLZERO{k}"]) for k in range(1, axes + 1)]
        scale = [float(header[f"POLSCAL{k}"]) for k in range(1, axes + 1)]
    images = images.reshape(-1, *images.shape[-2:])
    if axes not in (0, 2) or any(name.upper().rsplit("_", 1)[0] not in ("X", "Y", "XWIN", "YWIN") for name in names):
        raise InputError(
            f"cannot use the PSF {path}: it varies with {', '.join(names)}, only the position is supported"
        )
    if len(images) != (degree + 1) * (degree + 2) // 2 or not 0.0 < step < 10.0 or min([1.0, *scale]) <= 0.0:
        raise InputError(f"cannot use the PSF {path}: {len(images)} images do not suit a polynomial of degree {degree}")
    oversampling = max(LEAST_PSFEX_OVERSAMPLING, int(np.ceil(1.0 / step - 1e-6)))
    fine = np.array([_resampled(image, step, oversampling) for image in images])
    if not degree:
        return FieldPSF(np.zeros(1), np.zeros(1), fine[None, :1], oversampling)
    nodes = np.linspace(-0.5, 0.5, PSFEX_NODES)
    powers = [(i, j) for j in range(degree + 1) for i in range(degree + 1 - j)]
    terms = np.array([[[u**i * v**j for i, j in powers] for u in nodes] for v in nodes])
    # PSFEx counts pixels from 1.
    x, y = (zero[k] - 1.0 + scale[k] * nodes for k in range(2))
    try:
        return FieldPSF(x, y, np.einsum("vup,phw->vuhw", terms, fine), oversampling)
    except InputError as error:
        raise InputError(f"cannot use the PSF {path}: {error}") from error


def _resampled(image: FloatArray, step: float, oversampling: int) -> FloatArray:
    """An image sampled every `step` px, centred on its middle pixel, sampled anew `oversampling` times a pixel."""
    rows, columns = (step * (np.arange(n) - n // 2) for n in image.shape)
    half = [int(np.floor(min(-axis[0], axis[-1]) * oversampling)) for axis in (rows, columns)]
    fine = [np.arange(-n, n + 1) / oversampling for n in half]
    return np.asarray(RectBivariateSpline(rows, columns, image)(fine[0], fine[1]))
