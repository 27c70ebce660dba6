"""Folders of images as a stream of stacks, file by file, so that no more than one file is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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
        for name, path in self.files:
            stack = read_image(path, name, self.options)
            for note in stack.notes:
                names = self._notes.setdefault(note, [])
                if name not in names:
                    names.append(name)
            yield stack

    @property
    def notes(self) -> list[str]:
        """What the user should know about the files read so far, one line for each kind of note."""
        lines = []
        for note, names in self._notes.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            lines.append(f"{names[0]}{more}: {note}" if names else f"{self.path}: {note}")
        return lines


def read_frames(path: str | Path, options: ReadOptions | None = None) -> FrameReader:
    """The images of a file or folder: an iterable of `ImageStack`, read one file at a time.

    Args:
        path: an image file or a folder of them.
        options: what of each file is read; None for all.

    Raises:
        InputError: if the path does not exist or a folder holds no image; while iterating, if a file is bad.
    """
    return FrameReader(path, options)
