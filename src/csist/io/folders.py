"""Folders of images as a stream of stacks, file by file, so that no more than one file is in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from csist.checks import InputError
from csist.files import natural_key
from csist.io.formats import FORMATS, ReadOptions, image_kind, split_selector
from csist.io.images import ImageStack, read_image


class FrameReader:
    """The files of an input, read one by one as they are asked for; it can be gone through more than once.

    Args:
        path: an image file, or a folder whose images (in sub-folders too) are taken in natural order.
        options: what of each file is read; None for all.

    Raises:
        InputError: if the path does not exist or a folder holds no image.
    """

    def __init__(self, path: str | Path, options: ReadOptions | None = None) -> None:
        self.path = Path(path)
        self.options = options or ReadOptions()
        self._notes: dict[str, list[str]] = {}
        if not self.path.is_dir():
            if not split_selector(self.path)[0].exists():
                raise InputError(f"there is no file or folder {self.path}")
            self.files = [(self.path.name, self.path)]
            return
        found = [file for file in self.path.rglob("*") if file.is_file()]
        relative = [(file.relative_to(self.path), file) for file in found]
        visible = [(name, file) for name, file in relative if not any(part.startswith(".") for part in name.parts)]
        images = [(name.as_posix(), file) for name, file in visible if image_kind(file)]
        if not images:
            raise InputError(f"the folder {self.path} holds no image: {FORMATS} can be read")
        self.files = sorted(images, key=lambda item: natural_key(item[0]))
        if len(visible) > len(images):
            others = sorted({file.suffix or file.name for _, file in visible if not image_kind(file)})
            shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
            self._notes[f"{len(visible) - len(images)} other files left out ({shown})"] = []

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[ImageStack]:
        return (self.read(place) for place in range(len(self)))

    def read(self, place: int) -> ImageStack:
        """The images of one file.

        Args:
            place: of the file, in order.

        Raises:
            InputError: if it is bad.
        """
        name, path = self.files[place]
        stack = read_image(path, name, self.options)
        for note in stack.notes:
            names = self._notes.setdefault(note, [])
            if name not in names:
                names.append(name)
        return stack

    @property
    def notes(self) -> list[str]:
        """What the user should know about the files read so far, one line for each kind of note."""
        lines = []
        for note, names in self._notes.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            lines.append(f"{names[0]}{more}: {note}" if names else f"{self.path}: {note}")
        return lines


def missing_numbers(names: Sequence[str]) -> str | None:
    """Where the numbers in the names of images in order, which else rise by one, leave some out; None if nowhere.

    >>> missing_numbers(["sky_08.tif", "sky_09.tif", "sky_12.tif", "sky_13.tif"])
    'sky_12.tif comes after sky_09.tif: 2 images are missing'
    >>> missing_numbers(["sky_1.tif", "sky_5.tif", "sky_9.tif"]) is None
    True
    """
    parts = [re.split(r"(\d+)", Path(name).stem) for name in names]
    if len({tuple(part[::2]) for part in parts}) != 1 or len(parts[0]) < 3:
        return None
    numbers = np.array([[int(digits) for digits in part[1::2]] for part in parts], dtype=np.float64)
    running = np.flatnonzero(np.ptp(numbers, axis=0) > 0.0)
    if len(running) != 1:
        return None
    steps = np.diff(numbers[:, running[0]])
    gaps = np.flatnonzero(steps > 1.0)
    if not len(gaps) or 2 * (steps == 1.0).sum() <= len(steps):
        return None
    missing, first = int((steps[gaps] - 1.0).sum()), int(gaps[0])
    more = f", with {len(gaps) - 1} more gap{'s' if len(gaps) > 2 else ''}" if len(gaps) > 1 else ""
    what = "images are" if missing > 1 else "image is"
    return f"{names[first + 1]} comes after {names[first]}{more}: {missing} {what} missing"


def read_frames(path: str | Path, options: ReadOptions | None = None) -> FrameReader:
    """The images of a file or folder: an iterable of `ImageStack`, read one file at a time.

    Args:
        path: an image file or a folder of them.
        options: what of each file is read; None for all.

    Raises:
        InputError: if the path does not exist or a folder holds no image; while iterating, if a file is bad.
    """
    return FrameReader(path, options)
