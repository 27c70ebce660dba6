"""Blocks of unmixed images in `csist unmix`, and the names and table rows that describe them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csist._types import BoolArray
    from csist.cli.unmix.measured import Measured
    from csist.frames.result import FrameModel
    from csist.plots import View
    from csist.sequences.result import Track
    from csist.targets import Targets

GROUP_PLACE = ("column", "row", "peaks", "significance")
"""Columns with the position of a group in a frame, which the table of groups lacks for windows."""
GROUP_EXTENT = ("long_px", "short_px", "angle_deg")
"""Columns with the size of a group's brightest extended source or streak; blank for points, absent for windows."""


@dataclass(frozen=True, eq=False)
class Solved:
    """Results of consecutive images, as returned by a worker.

    Args:
        targets: one `Targets` per image.
        groups: rows of the table of groups.
        masked: number of masked pixels.
        model: background and light of a frame, for its figure; None for windows and for a frame without a value.
        psf: summary of a PSF that was measured on these images alone.
        masks: pixels (H, W) of a frame that are not ordinary, by kind; kinds without pixels are left out.
        measured: what the images were unmixed with; None for images without a value.
    """

    targets: list[Targets]
    groups: list[dict[str, Any]]
    masked: int
    model: FrameModel | None = None
    psf: dict[str, Any] | None = None
    masks: dict[str, BoolArray] = field(default_factory=dict)
    measured: Measured | None = None

    @property
    def kinds(self) -> dict[str, int]:
        """Number of pixels of each kind."""
        return {kind: int(mask.sum()) for kind, mask in self.masks.items()}


@dataclass(frozen=True, eq=False)
class Block:
    """Results of consecutive images of a file."""

    start: int
    targets: list[Targets]
    groups: list[dict[str, Any]]
    masked: int
    view: Callable[[int], View | None]
    """Function that returns the view of an image, given its index in the block; None for a frame without a value."""
    name: str | None = None
    """Name of the image in sequences that name each frame."""
    psf: dict[str, Any] | None = None
    """Summary of the measured PSF, in the first block of a file."""
    kinds: dict[str, int] = field(default_factory=dict)
    """Number of pixels of a frame of each kind that is not ordinary."""
    measured: Measured | None = None
    """What a frame, or the windows of a file in its first block, were unmixed with."""
    tracks: list[Track] | None = None
    """Tracks of a joint posterior, their frames counted from the start of the block; None without one."""


def in_file(block: Block, origin: tuple[int, int, int]) -> Block:
    """A block in the coordinates of the whole file.

    Args:
        block: some images of a file, of which a part was read.
        origin: (frame, x, y) in the file of the first pixel of that part.
    """
    first, x, y = origin
    if origin == (0, 0, 0):
        return block
    offsets = {"frame": first, "column": x, "row": y}
    rows = [{key: value + offsets[key] if key in offsets else value for key, value in row.items()}
            for row in block.groups]  # fmt: skip
    targets = [each.shifted(x, y) for each in block.targets]
    tracks = None if block.tracks is None else [track.shifted(x, y) for track in block.tracks]
    return replace(block, start=first + block.start, targets=targets, groups=rows, tracks=tracks)


def above_score(block: Block, least: float | None) -> Block:
    """A block without the targets whose score is below the least one; None keeps all."""
    if least is None:
        return block
    return replace(block, targets=[each[~(each.score < least)] for each in block.targets])


def image_name(name: str, kind: str, index: int, count: int) -> str:
    """Return the display name of image `index` in a file of `count` images (0 if unknown); `kind` is the noun."""
    return name if count == 1 else f"{name}, {kind} {index}"


def empty_text(places: Sequence[int], kind: str) -> str:
    """Which images of a file have no value and so no targets; `kind` is what one is called."""
    if len(places) == 1:
        return f"{kind} {places[0]} contains only NaN: it has no targets"
    return f"{kind} {min(places)} and {len(places) - 1} more contain only NaN: they have no targets"


def group_row(group: Any) -> dict[str, Any]:
    """Return the row of a group in the table of groups."""
    place = {name: getattr(group, name) for name in GROUP_PLACE if hasattr(group, name)}
    source = {}
    if hasattr(group, "sources"):
        brightest = group.sources[0] if group.sources else None
        source = {name: getattr(brightest, name, float("nan")) for name in GROUP_EXTENT}
        source |= {"p_extended": group.extended_probability, "p_streak": group.streak_probability}
    return {
        **place,
        "count": int(group.count),
        "chi_squared": float(group.chi_squared),
        "degrees_of_freedom": int(group.degrees_of_freedom),
        "flags": int(group.flags),
        **source,
        **_probabilities(group),
    }


def joint_row(frame: int, number: int, group: Any) -> dict[str, Any]:
    """Return the row of a group that was solved in several frames together, under the first of them."""
    return {
        "frame": frame,
        "group": number,
        "count": int(group.count),
        "flags": int(group.flags),
        **_probabilities(group),
    }


def _probabilities(group: Any) -> dict[str, float]:
    return {f"p_{k}": float(value) for k, value in enumerate(group.count_probability)}


def psf_row(sigma_px: float, sigma_px_std: float, sources: int) -> dict[str, Any]:
    """Return the summary of a measured PSF."""
    return {"sigma_px": sigma_px, "sigma_px_std": sigma_px_std, "sources": sources}
