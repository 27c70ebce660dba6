"""One file, folder or video of `csist unmix`, opened and unmixed block by block."""

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
    """A file of images, and the blocks in which it is unmixed while they are asked for."""

    shape: tuple[int, int, int]
    """(N, H, W); N is 0 where the file does not say how many there are."""
    notes: Sequence[str]
    """What the user should know, one line each; more may come while blocks are asked for."""
    blocks: Iterator[Block]


def open_file(path: Path, name: str, settings: Settings) -> OpenFile:
    """A file's images, or the sequence that a folder or video is, to be unmixed in this process.

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
    """Read all frames once, which finds infinities, and refuse one without a value.

    Raises:
        InputError: if one cannot be used, or the method is not for frames.
    """
    import numpy as np

    from csist.unmixing import check_frame_method

    check_frame_method(method)
    for index, frame in enumerate(stack):
        if np.isnan(frame).all():
            raise InputError(f"{stack.path}: frame {index} holds nothing but NaN, remove it")


def _solve_file(stack: ImageStack | FrameSequence, settings: Settings) -> Iterator[Block]:
    """All images of a file or sequence; what is wrong with a file's values shows before the first one is unmixed."""
    from csist.cli.unmix.frames import solve_sequence
    from csist.io import ImageStack
    from csist.io.sequences import sequence_of_stack
    from csist.unmixing import check_frame_method
    from csist.windows import WINDOW_SIDE_PX, is_window

    if not isinstance(stack, ImageStack):
        if is_window(stack.shape):
            raise InputError(
                f"{stack.path} holds windows of {stack.shape[1]} x {stack.shape[2]} px, a sequence needs frames larger "
                f"than {WINDOW_SIDE_PX} px: leave out --sequence, or save them as one .npy stack"
            )
        check_frame_method(settings.method)
        yield from solve_sequence(stack, settings)
        return

    if is_window(stack.shape):
        yield from solve_windows(stack, settings)
        return
    check_frames(stack, settings.method)
    yield from solve_sequence(sequence_of_stack(stack), settings)
