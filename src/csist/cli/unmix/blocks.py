"""What `csist unmix` has of some images at a time, and the names and rows it is told by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csist.frames.result import FrameModel
    from csist.plots import View
    from csist.targets import Targets

GROUP_PLACE = ("column", "row", "peaks", "significance")
"""Where a group of a frame is; columns of the table of groups that windows do not have."""


@dataclass(frozen=True, eq=False)
class Solved:
    """What was found in some consecutive images, as a worker sends it back.

    Args:
        targets: one `Targets` per image.
        groups: rows of the table of groups.
        masked: number of masked pixels.
        model: background and light of a frame, for its picture; None for windows and for a frame without a value.
        psf: what was found out about the PSF on these images alone.
    """

    targets: list[Targets]
    groups: list[dict[str, Any]]
    masked: int
    model: FrameModel | None = None
    psf: dict[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Block:
    """Some consecutive images of a file, unmixed."""

    start: int
    targets: list[Targets]
    groups: list[dict[str, Any]]
    masked: int
    view: Callable[[int], View | None]
    """Picture of an image, by its place in the block; None of a frame without a value."""
    name: str | None = None
    """Of the image, where a sequence has one for each frame."""
    psf: dict[str, Any] | None = None
    """What was found out about the PSF; the first block of a file has it."""


def image_name(name: str, kind: str, index: int, count: int) -> str:
    """Name for people of an image of a file of `count`, 0 where that is not known; `kind` is what it is called."""
    return name if count == 1 else f"{name}, {kind} {index}"


def count_text(targets: Targets) -> str:
    """How many targets, in words."""
    return f"{len(targets)} target{'' if len(targets) == 1 else 's'}"


def group_row(group: Any) -> dict[str, Any]:
    """Columns of the table of groups, from what a solver knows of one."""
    probability = {f"p_{k}": float(value) for k, value in enumerate(group.count_probability)}
    place = {name: getattr(group, name) for name in GROUP_PLACE if hasattr(group, name)}
    return {
        **place,
        "count": int(group.count),
        "chi_squared": float(group.chi_squared),
        "degrees_of_freedom": int(group.degrees_of_freedom),
        "flags": int(group.flags),
        **probability,
    }


def psf_row(sigma_px: float, sigma_px_std: float, sources: int) -> dict[str, Any]:
    """What is told of a measured PSF."""
    return {"sigma_px": sigma_px, "sigma_px_std": sigma_px_std, "sources": sources}
