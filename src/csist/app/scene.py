"""Images selected by the settings: a sample frame, simulated windows, or one image of an uploaded file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np

from csist._types import FloatArray
from csist.app.settings import Settings
from csist.checks import InputError
from csist.files import reading
from csist.io import ImageStack, read_image
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, sample_scenes
from csist.targets import Targets
from csist.windows import default_sensor, is_window

UPLOAD_SUFFIXES = (".png", ".tif", ".tiff", ".fits", ".fit", ".fts", ".npy")
"""Accepted upload formats, whose headers state the memory that the file needs."""
LARGEST_UPLOAD_MB, LARGEST_UPLOAD_MPX = 64, 32

WINDOW_SHAPE = (11, 11)


class TooLargeError(InputError):
    """A file above the limits of the app."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Images to unmix, and their metadata.

    Args:
        name: name of the file, or of the simulation, in the table.
        images: (N, H, W) in counts.
        first: index of the first image in its file.
        sensor: sensor of the images; None if it is measured on the image.
        noise_std: noise per pixel in counts; None if it is estimated.
        truths: true targets of each image, if known.
        notes: notes for the user about the file, one line each.
    """

    name: str
    images: FloatArray
    first: int = 0
    sensor: Sensor | None = None
    noise_std: float | None = None
    truths: tuple[Targets, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def windows(self) -> bool:
        """Whether the images are windows rather than frames."""
        return is_window(self.images.shape)


def make_scene(settings: Settings, upload: Path | None = None) -> Scene:
    """Read or simulate the images selected by the settings.

    Args:
        settings: choices of the user.
        upload: uploaded file, for the source "upload".

    Raises:
        InputError: if there is no such file or image.
    """
    if settings.source == "benchmark":
        sensor = _simulated(settings)
        truths = sample_scenes(ScenePrior.csist_100k(), sensor, settings.windows, settings.seed)
        return _observed("benchmark", truths, sensor, settings)
    if settings.source == "build":
        return _observed("group", [build_group(settings)], _simulated(settings), settings)
    if settings.source == "example":
        with resources.as_file(resources.files("csist") / "data" / f"{settings.example}.png") as path:
            return _taken(read_image(path), settings)
    if upload is None:
        raise InputError("there is no file yet: upload one, or choose another source")
    return _taken(open_upload(upload), settings)


def _simulated(settings: Settings) -> Sensor:
    return Sensor(
        psf=GaussianPSF(0.5 if settings.psf_sigma is None else settings.psf_sigma),
        shape=WINDOW_SHAPE,
        background=settings.background or 0.0,
        read_noise=settings.scene_noise,
    )


def _observed(name: str, truths: list[Targets], sensor: Sensor, settings: Settings) -> Scene:
    generator = np.random.default_rng([settings.seed, 1])  # independent of the stream for the positions
    images = np.stack([sensor.observe(truth, generator) for truth in truths])
    noise = settings.scene_noise if settings.noise_std is None else settings.noise_std
    return Scene(name, images, sensor=sensor, noise_std=noise, truths=tuple(truths))


def build_group(settings: Settings) -> Targets:
    """Build a regular polygon of targets, neighbours `separation_px` apart, with random rotation and offset.

    >>> pair = build_group(Settings(count=2, separation_px=0.6, seed=4))
    >>> round(float(np.hypot(*np.diff([pair.x, pair.y]).ravel())), 6)
    0.6
    """
    count = settings.count
    generator = np.random.default_rng([settings.seed, 0])
    radius = 0.0 if count == 1 else 0.5 * settings.separation_px / np.sin(np.pi / count)
    angles = generator.uniform(0.0, 2.0 * np.pi) + 2.0 * np.pi * np.arange(count) / count
    x, y = (0.5 * (side - 1) + generator.uniform(-0.5, 0.5) for side in WINDOW_SHAPE[::-1])
    return Targets(
        x=x + radius * np.cos(angles), y=y + radius * np.sin(angles), intensity=np.full(count, settings.intensity)
    )


def _taken(stack: ImageStack, settings: Settings) -> Scene:
    """Select one image of a file; windows get the default sensor, that of a frame is measured on the frame."""
    if settings.frame >= len(stack):
        raise InputError(f"{stack.name} has no image {settings.frame}: choose one from 0 to {len(stack) - 1}")
    images = stack[settings.frame : settings.frame + 1]
    if np.isnan(images).all():
        raise InputError(f"image {settings.frame} of {stack.name} holds nothing but NaN: choose another one")
    if not is_window(images.shape):
        return Scene(stack.name, images, settings.frame, noise_std=settings.noise_std, notes=stack.notes)
    sensor = default_sensor(images, stack.data.dtype)
    if settings.psf_sigma is not None:
        sensor = replace(sensor, psf=GaussianPSF(settings.psf_sigma))
    if settings.background is not None:
        sensor = replace(sensor, background=settings.background)
    return Scene(stack.name, images, settings.frame, sensor, settings.noise_std, notes=stack.notes)


def open_upload(path: Path) -> ImageStack:
    """Open an uploaded file, after checking the memory that its images need.

    Raises:
        InputError: if the file has another format, is too large, damaged or not an image. The message names the file
            without the folder, which belongs to the server.
    """
    try:
        if path.suffix.lower() not in UPLOAD_SUFFIXES:
            raise InputError(f"cannot read {path}: upload a PNG, TIFF, FITS or NPY file")
        if path.stat().st_size > LARGEST_UPLOAD_MB * 2**20:
            raise TooLargeError(f"{path} is larger than {LARGEST_UPLOAD_MB} MB: use the command csist unmix")
        with reading(path):
            pixels = _COUNTERS[path.suffix.lower()](path)
        if pixels > LARGEST_UPLOAD_MPX * 10**6:
            raise TooLargeError(
                f"{path} holds {pixels / 1e6:.0f} million pixels, above the limit of {LARGEST_UPLOAD_MPX} million: "
                "use the command csist unmix"
            )
        return read_image(path)
    except InputError as error:
        raise type(error)(str(error).replace(str(path), path.name)) from error


def _png_pixels(path: Path) -> int:
    from PIL import UnidentifiedImageError

    # Read only the header: Pillow's own check would report a decompression bomb, with a limit that is not the app's.
    header = path.read_bytes()[:24]
    if header[12:16] != b"IHDR":
        raise UnidentifiedImageError("not a PNG file")
    return int.from_bytes(header[16:20], "big") * int.from_bytes(header[20:24], "big")


def _tiff_pixels(path: Path) -> int:
    from tifffile import TiffFile

    with TiffFile(path) as file:
        return sum(int(np.prod(page.shape)) for page in file.pages)


def _fits_pixels(path: Path) -> int:
    import warnings

    try:
        from astropy.io import fits
    except ImportError:
        return 0  # reading the file reports the missing package

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # reading the file reports them
        with path.open("rb") as file, fits.open(file, memmap=False) as units:
            return max((int(np.prod(unit.shape)) for unit in units if unit.is_image), default=0)


def _npy_pixels(path: Path) -> int:
    return int(np.load(path, mmap_mode="r", allow_pickle=False).size)


_COUNTERS: dict[str, Callable[[Path], int]] = {
    ".png": _png_pixels,
    ".tif": _tiff_pixels,
    ".tiff": _tiff_pixels,
    ".fits": _fits_pixels,
    ".fit": _fits_pixels,
    ".fts": _fits_pixels,
    ".npy": _npy_pixels,
}


def describe_upload(stack: ImageStack) -> str:
    """Describe the content of a file in words."""
    count, rows, columns = stack.shape
    images = "one image" if count == 1 else f"{count} images"
    return f"{stack.name}: {images} of {columns} x {rows} px"
