"""Files, folders and videos of `csist unmix`, opened and unmixed block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csist.checks import InputError
from csist.cli.unmix.blocks import Block
from csist.cli.unmix.settings import Settings
from csist.cli.unmix.windows import solve_windows

if TYPE_CHECKING:
    from csist.io import ImageStack
    from csist.io.sequences import FrameSequence


@dataclass(frozen=True, eq=False)
class OpenFile:
    """File of images whose blocks are unmixed lazily."""

    shape: tuple[int, int, int]
    """Shape (N, H, W); N is 0 if the file does not state the number of images."""
    notes: Sequence[str]
    """Notes for the user, one line each; more may be added while blocks are read."""
    blocks: Iterator[Block]


def open_file(path: Path, name: str, settings: Settings) -> OpenFile:
    """Open a file of images, or a folder or video as a sequence, to be unmixed in this process.

    Raises:
        InputError: if it cannot be read.
    """
    from csist.io import image_kind, read_image
    from csist.io.sequences import sequence_of_folder, sequence_of_video

    stack: ImageStack | FrameSequence
    if path.is_dir():
        stack = sequence_of_folder(path)
    else:
        stack = sequence_of_video(path, name) if image_kind(path) == "video" else read_image(path, name)
    return OpenFile(stack.shape, stack.notes, _solve_file(stack, settings))


def check_frames(stack: ImageStack, method: str) -> None:
    """Read all frames once to find infinities and frames without any value.

    Raises:
        InputError: if a frame cannot be used, or the method does not support frames.
    """
    import numpy as np

    from csist.unmixing import check_frame_method

    check_frame_method(method)
    for index, frame in enumerate(stack):
        if np.isnan(frame).all():
            raise InputError(f"{stack.path}: frame {index} holds nothing but NaN, remove it")


def _solve_file(stack: ImageStack | FrameSequence, settings: Settings) -> Iterator[Block]:
    """Unmix all images of a file or sequence; a file with invalid values fails before its first image is unmixed."""
    from csist.cli.unmix.frames import solve_sequence
    from csist.io import ImageStack
    from csist.io.sequences import sequence_of_stack
    from csist.unmixing import check_frame_method
    from csist.windows import WINDOW_SIDE_PX, is_window

    if not isinstance(stack, ImageStack):
        if is_window(stack.shape):
            raise InputError(
                f"{stack.path} holds windows of {stack.shape[1]} x {stack.shape[2]} px, but a sequence needs frames "
                f"larger than {WINDOW_SIDE_PX} px: leave out --sequence, or save them as one .npy stack"
            )
        check_frame_method(settings.method)
        yield from solve_sequence(stack, settings)
        return

    if is_window(stack.shape):
        yield from solve_windows(stack, settings)
        return
    check_frames(stack, settings.method)
    yield from solve_sequence(sequence_of_stack(stack), settings)
