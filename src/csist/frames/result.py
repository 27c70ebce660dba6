"""The result of unmixing a frame: targets, groups and what they were measured against, all from the one fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from csist._types import BoolArray, FloatArray
from csist.frames.background.estimate import Background, BackgroundSource
from csist.frames.groups import FrameGroup
from csist.frames.masks.mask import PixelMask
from csist.frames.measured import FramePSF
from csist.frames.nothing import reason_for_nothing
from csist.frames.shapes.source import ExtendedSource
from csist.physics.psf import PSF, equivalent_sigma
from csist.targets import Flag, Targets

if TYPE_CHECKING:
    from csist.frames.psf_estimate import PSFEstimate

WIDE = int(Flag.EXTENDED | Flag.STREAK)
"""Flags of targets that are no points."""

Number = TypeVar("Number", bound=np.generic)

Region = tuple[slice, slice]
"""Rows and columns of a frame."""


@dataclass(frozen=True, eq=False)
class ModelPart:
    """Background and targets of a frame, or of a tile of it.

    Args:
        region: rows and columns on which the background was measured.
        own: rows and columns that the part stands for; its margin belongs to other parts.
        background: of `region`.
        psf: point spread function of the targets.
        targets: in frame coordinates.
        sources: the extended sources and streaks among them, in frame coordinates.
    """

    region: Region
    own: Region
    background: BackgroundSource
    psf: PSF
    targets: Targets
    sources: tuple[ExtendedSource, ...] = ()


@dataclass(frozen=True, eq=False)
class FrameModel:
    """Background and light of a frame, drawn when asked for.

    Args:
        shape: (rows, columns) of the frame.
        parts: whose `own` regions cover the frame, but for tiles without a valid pixel.
    """

    shape: tuple[int, int]
    parts: Sequence[ModelPart] = field(repr=False)

    def background(self) -> Background:
        """Level and noise of each pixel; NaN in tiles without a valid pixel."""
        if len(self.parts) == 1 and self.parts[0].own == whole_region(self.shape):
            return self.parts[0].background.spread()
        level, noise = np.full(self.shape, np.nan), np.full(self.shape, np.nan)
        for part, spread in self._spread():
            level[part.own], noise[part.own] = (own_values(part, values) for values in (spread.level, spread.noise))
        return Background(level, noise)

    def draw(self) -> FloatArray:
        """Background and targets (H, W) in counts; NaN in tiles without a valid pixel."""
        image = np.full(self.shape, np.nan)
        for part, spread in self._spread():
            image[part.own] = own_values(part, spread.level)
        for part in self.parts:
            add_light(image, part.targets[(part.targets.flags & WIDE) == 0], part.psf)
            for source in part.sources:
                source.add_to(image)
        return image

    def compact(self) -> FrameModel:
        """The same model with the background as its boxes only: small enough to be sent to another process."""
        return replace(self, parts=[replace(part, background=part.background.compact()) for part in self.parts])

    def _spread(self) -> Iterator[tuple[ModelPart, Background]]:
        return ((part, part.background.spread()) for part in self.parts)


@dataclass(frozen=True)
class Detection:
    """How the targets of a frame were found.

    Args:
        detector: "contrast", "matched" or "crowded".
        reason: why it was used, in a few words.
        threshold: significance in standard deviations that a peak must have.
    """

    detector: str
    reason: str
    threshold: float


@dataclass(frozen=True, eq=False, repr=False)
class FrameResult:
    """What `csist.unmix_frame` found in a frame.

    Everything comes from the one fit that gave the targets. A very large frame is unmixed in tiles; of these the boxes
    of the background are kept, and `background`, `noise`, `model` and `residual` are assembled tile by tile each time
    they are asked for, so that no more than the array itself is in memory.

    Args:
        image: (H, W) in counts, as it was unmixed.
        targets: in frame coordinates. `score` is the unmixer's own score times that of the peak that a target belongs
            to: in clutter the probability that the peak is a target, in noise z / (z + threshold), z its significance.
            Of the crowded detector it is the probability that a target lies within 0.25 px. `group` holds the number
            of the group.
        groups: what is known of each group, the most significant first.
        pixels: which pixels were usable.
        frame_psf: the PSF and how it is known; of a frame in tiles whose PSF was guessed tile by tile, the median.
        detection: how the targets were found.
        drawing: background and light.
        gain: electrons per count by which the photons of the targets were part of the noise, stated or measured on
            bright sources, or 1 of photon numbers; None if they were not, or are in a stated error of each pixel.
    """

    image: FloatArray
    targets: Targets
    groups: list[FrameGroup]
    pixels: PixelMask
    frame_psf: FramePSF
    detection: Detection
    drawing: FrameModel
    gain: float | None = None

    def __repr__(self) -> str:
        rows, columns = self.image.shape
        return (
            f"FrameResult of {columns} x {rows} px, groups: {len(self.groups)}, "
            f"PSF sigma {equivalent_sigma(self.psf):.3g} px ({self.psf_origin}), "
            f"detector {self.detector} ({self.detection.reason})\n{self.targets}"
        )

    @property
    def psf(self) -> PSF:
        """The point spread function that the targets were fitted with."""
        return self.frame_psf.psf

    @property
    def threshold(self) -> float:
        """Significance in standard deviations that a peak must have."""
        return self.detection.threshold

    @property
    def detector(self) -> str:
        """The detector that was used: "contrast", "matched" or "crowded"."""
        return self.detection.detector

    @property
    def psf_origin(self) -> str:
        """How the PSF is known: "given", "measured" on isolated sources, or "guessed" from the widths of the spots."""
        return self.frame_psf.origin

    @property
    def psf_error(self) -> float:
        """Error of the PSF that the fit allowed for, as a share of the light in a window's brightest pixel."""
        return self.frame_psf.error

    @property
    def psf_estimate(self) -> PSFEstimate | None:
        """The measurement of the PSF; None if it was not measured."""
        return self.frame_psf.estimate

    @property
    def psf_assumption(self) -> str:
        """What was assumed of a PSF that is neither given nor measured, in a few words; empty where nothing was."""
        return self.frame_psf.assumption

    @property
    def empty_reason(self) -> str:
        """Why there are no targets, in one line; empty where there are some."""
        if len(self.targets):
            return ""
        return reason_for_nothing(self.image, self.pixels, self.frame_psf, self.threshold, len(self.groups))

    @property
    def background(self) -> FloatArray:
        """(H, W) background in counts."""
        return self.drawing.background().level

    @property
    def noise(self) -> FloatArray:
        """(H, W) standard deviation of a pixel in counts."""
        return self.drawing.background().noise

    @property
    def mask(self) -> BoolArray:
        """(H, W) pixels that were left out: all kinds but valid and saturated."""
        return self.pixels.masked

    @property
    def saturated(self) -> BoolArray:
        """(H, W) pixels at the ceiling, which were used as lower bounds."""
        return self.pixels.saturated

    @property
    def pixel_counts(self) -> dict[str, int]:
        """Number of pixels of each kind of `PixelKind` but the valid ones, by lower-case name."""
        return self.pixels.counts

    @property
    def ceiling(self) -> float:
        """Level in counts at which the frame clips; infinite if it does not."""
        return self.pixels.ceiling

    def model(self) -> FloatArray:
        """Background and targets (H, W) in counts, drawn with the PSF of the fit."""
        return self.drawing.draw()

    def residual(self) -> FloatArray:
        """Image minus model (H, W) in counts, the model clipped at the ceiling as the image is; NaN where masked."""
        residual = self.image - np.minimum(self.model(), self.ceiling)
        residual[self.mask] = np.nan
        return residual


def whole_region(shape: tuple[int, int]) -> Region:
    """All rows and columns of a frame."""
    return slice(0, shape[0]), slice(0, shape[1])


def add_light(image: FloatArray, targets: Targets, psf: PSF) -> None:
    """Add targets to an image (H, W), each drawn within its PSF's radius only: a frame is large."""
    reach = int(np.ceil(psf.reach_px)) + 1
    for x, y, intensity in zip(targets.x, targets.y, np.nan_to_num(targets.intensity), strict=True):
        row, column = max(round(float(y)) - reach, 0), max(round(float(x)) - reach, 0)
        part = image[row : max(round(float(y)) + reach + 1, 0), column : max(round(float(x)) + reach + 1, 0)]
        if part.size:
            dy, dx = row + np.arange(part.shape[0]) - y, column + np.arange(part.shape[1]) - x
            part += intensity * psf.at(x, y).response(dx[None, :], dy[:, None])


def own_values(part: ModelPart, values: NDArray[Number]) -> NDArray[Number]:
    """The values of a part's region (h, w) that belong to the part itself."""
    (top, left), (rows, columns) = (each.start for each in part.region), part.own
    return values[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
