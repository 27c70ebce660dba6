"""Images selected by the settings: a sample frame, simulated windows, or one image of an uploaded file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from csist._types import FloatArray
from csist.app.settings import Settings
from csist.app.uploads import open_upload
from csist.checks import InputError
from csist.frames.options import MEASURED_PSFS
from csist.instrument import Instrument
from csist.io import ImageStack, read_image, sample_frames
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, sample_scenes
from csist.targets import Targets
from csist.windows import is_window

WINDOW_SHAPE = (11, 11)


@dataclass(frozen=True, eq=False)
class Scene:
    """Images to unmix, and their metadata.

    Args:
        name: name of the file, or of the simulation, in the table.
        images: (N, H, W) in counts.
        first: index of the first image in its file.
        total: number of images of the file.
        sensor: sensor of the images; None if it is measured on the image.
        sensor_has_psf: whether the PSF of the sensor is that of the images.
        noise_std: noise per pixel in counts; None if it is estimated.
        truths: true targets of each image, if known.
        notes: notes for the user about the file, one line each.
        errors: (N, H, W) standard deviation of each pixel in counts; None if it is not known.
        psf_known: how the PSF of windows is known.
    """

    name: str
    images: FloatArray
    first: int = 0
    total: int = 1
    sensor: Sensor | None = None
    sensor_has_psf: bool = True
    noise_std: float | None = None
    truths: tuple[Targets, ...] | None = None
    notes: tuple[str, ...] = ()
    errors: FloatArray | None = field(default=None, repr=False)
    psf_known: str = "stated"

    @property
    def windows(self) -> bool:
        """Whether the images are windows rather than frames."""
        return is_window(self.images.shape)

    @property
    def sequence(self) -> bool:
        """Whether the images are consecutive frames, whose targets are linked into tracks."""
        return not self.windows and len(self.images) > 1

    def image_name(self, place: int) -> str:
        """Return the name of an image, with its number if its file has several.

        >>> Scene("clip.mp4", np.zeros((1, 20, 20)), first=4, total=9).image_name(0)
        'clip.mp4, image 4'
        """
        return self.name if self.total == 1 else f"{self.name}, image {self.first + place}"


@dataclass(frozen=True)
class Files:
    """Uploaded files of a user.

    Args:
        image: image, stack or video.
        error: standard deviation of each pixel.
        mask: not 0 where a pixel is left out.
    """

    image: Path | None = None
    error: Path | None = None
    mask: Path | None = None


def make_scene(settings: Settings, files: Files | None = None) -> Scene:
    """Read or simulate the images selected by the settings.

    Args:
        settings: choices of the user.
        files: uploaded files, for the source "upload".

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
        return _taken(read_image(sample_frames()[settings.example]), settings)
    if files is None or files.image is None:
        raise InputError("there is no file yet: upload one, or choose another source")
    return _taken(open_upload(files.image, files.error, files.mask), settings)


def _simulated(settings: Settings) -> Sensor:
    _check_stated(settings)
    return Sensor(
        psf=settings.stated_psf or GaussianPSF(0.5),
        shape=WINDOW_SHAPE,
        background=settings.background or 0.0,
        **_detector_values(settings, read_noise=settings.scene_noise),
    )


def _detector_values(settings: Settings, **values: float) -> dict[str, Any]:
    """Return the fields of a sensor that are stated, in place of these values."""
    stated = {name: getattr(settings, name) for name in ("gain", "read_noise", "saturation")}
    return values | {name: value for name, value in stated.items() if value is not None}


def _check_stated(settings: Settings) -> None:
    """Check that the PSF of windows is not to be measured.

    Raises:
        InputError: if it is.
    """
    if settings.psf in MEASURED_PSFS:
        raise InputError("the PSF can be measured on frames, not on windows: choose a Gaussian and state its sigma")


def _observed(name: str, truths: list[Targets], sensor: Sensor, settings: Settings) -> Scene:
    generator = np.random.default_rng([settings.seed, 1])  # independent of the stream for the positions
    images = np.stack([sensor.observe(truth, generator) for truth in truths])
    noise = sensor.pixel_noise if settings.noise_std is None else settings.noise_std
    return Scene(
        name, images, total=len(images), sensor=sensor, noise_std=noise, truths=tuple(truths), psf_known="as simulated"
    )


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
    """Select images of a file; their sensor is the one that `csist unmix` would use, by form, file and header."""
    if settings.frame >= len(stack):
        raise InputError(f"{stack.name} has no image {settings.frame}: choose one from 0 to {len(stack) - 1}")
    part = slice(settings.frame, settings.frame + settings.frames)
    images, errors = stack[part], stack.errors(part)
    for number, image in enumerate(images, settings.frame):
        if np.isnan(image).all():
            raise InputError(f"image {number} of {stack.name} has no valid pixel: choose another one")
    instrument = Instrument(
        psf=settings.stated_psf,
        background=settings.background,
        noise_std=settings.noise_std,
        detector=_detector_values(settings),
    )
    notes = (*stack.notes, *instrument.notes(stack, "values in the form override it"))
    scene = Scene(stack.name, images, settings.frame, len(stack), notes=notes, errors=errors)
    if scene.windows:
        _check_stated(settings)
        sensor = instrument.window_sensor(stack, images, stack.data.dtype)
        stated = stack.sensor is not None or instrument.psf is not None
        known = "stated" if stated else "assumed: state it if it is known"
        return replace(scene, sensor=sensor, noise_std=instrument.window_noise(stack, sensor), psf_known=known)
    options = instrument.frame_options(stack)
    return replace(scene, sensor=options.sensor, sensor_has_psf=options.sensor_has_psf, noise_std=options.noise_std)
