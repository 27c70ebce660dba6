"""Pictures of `csist unmix`: the most interesting image, one of each image, and the annotated video of a sequence.

Model and residual of each image, as files of numbers, are made from the same blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from csist.checks import InputError
from csist.cli.unmix.blocks import Block
from csist.words import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from csist.cli.unmix.files import OpenFile
    from csist.cli.unmix.report import Tally
    from csist.plots import View
    from csist.targets import Targets

VIEWS_KEPT = 4
"""Largest number of windows in one figure."""


class Picture:
    """Something that is drawn from the blocks of a run."""

    def add(self, opened: OpenFile, block: Block, image: str) -> None:
        """Take the images of a block.

        Args:
            opened: the file of the block.
            block: results of some images.
            image: name of the images in the table.
        """
        raise NotImplementedError

    def finish(self, tally: Tally) -> None:
        """Write what is written at the end, and put into the summary what it shows."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Release what is open."""


@contextmanager
def pictures(
    plot: Path | None,
    folder: Path | None,
    video: Path | None,
    *,
    images: Mapping[str, Path | None],
    metadata: Mapping[str, Any],
) -> Iterator[list[Picture]]:
    """The pictures that are asked for, made while the blocks come.

    Args:
        plot: file of the picture of the most interesting image; None for none.
        folder: folder of the pictures of all images; None for none.
        video: file of the annotated video; None for none.
        images: files of the "model" and the "residual" of all images; None for none.
        metadata: of the run, for these.

    Raises:
        InputError: if one cannot be written.
    """
    made: list[Picture] = [] if plot is None else [BestPicture(plot)]
    made += [] if folder is None else [PictureFolder(folder)]
    made += [] if video is None else [Video(video)]
    made += [ImageFile(kind, path, metadata) for kind, path in images.items() if path is not None]
    with ExitStack() as stack:
        for each in made:
            stack.enter_context(each)
        yield made


class BestPicture(Picture):
    """One picture: the windows with the most targets, or the frame with the most certain pair.

    Args:
        path: of the picture.

    Raises:
        InputError: if it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        from csist.plots import check_picture

        self.path = check_picture(path)
        self._windows: list[tuple[int, View]] = []
        self._frame: tuple[float, View] | None = None

    def add(self, opened: OpenFile, block: Block, image: str) -> None:
        """Keep the images that are shown if nothing better comes."""
        del image
        from csist.windows import is_window

        for index, targets in enumerate(block.targets):
            if is_window(opened.shape):
                if len(self._windows) < VIEWS_KEPT or len(targets) > self._windows[-1][0]:
                    self._keep_window(len(targets), block.view(index))
            elif self._frame is None or _interest(targets) > self._frame[0]:
                view = block.view(index)
                self._frame = self._frame if view is None else (_interest(targets), view)

    def _keep_window(self, count: int, view: View | None) -> None:
        if view is not None:
            self._windows.append((count, view))
            self._windows.sort(key=lambda each: -each[0])
            del self._windows[VIEWS_KEPT:]

    def finish(self, tally: Tally) -> None:
        """Draw the frame or the windows that were kept, if any.

        Raises:
            InputError: if the picture cannot be written.
        """
        from csist.plots import save_figure, window_gallery

        views = [self._frame[1]] if self._frame is not None else [view for _, view in self._windows]
        if not views:
            return
        save_figure(window_gallery(views) if self._frame is None else _frame_figure(views[0]), self.path)
        tally.pictures.append(f"{self.path} shows {'; '.join(view.title for view in views)}")


def _interest(targets: Targets) -> float:
    """Rank a frame for the picture: the highest second-best score in a group, or 0.01 times the best score."""
    import numpy as np

    most = 0.01 * float(np.nan_to_num(targets.score).max(initial=0.0))
    for group in np.unique(targets.group[targets.group >= 0]):
        scores = np.sort(np.nan_to_num(targets.score[targets.group == group]))
        most = max(most, float(scores[-2])) if len(scores) > 1 else most
    return most


def _frame_figure(view: View) -> Any:
    from csist.plots import frame_panel

    return frame_panel(view.image, view.targets, view.model, view.truth, view.title, masks=view.masks)


class PictureFolder(Picture):
    """A picture of each image, written as soon as it is unmixed.

    Args:
        folder: a new or empty folder.

    Raises:
        InputError: if it cannot be written, or holds something.
    """

    def __init__(self, folder: Path) -> None:
        from csist.files import check_new_folder

        self.folder = check_new_folder(folder)
        self._names: dict[str, str] = {}
        self._written = 0

    def add(self, opened: OpenFile, block: Block, image: str) -> None:
        """Write the pictures of a block.

        Raises:
            InputError: if one cannot be written.
        """
        from csist.plots import save_figure, window_gallery
        from csist.windows import is_window

        self.folder.mkdir(exist_ok=True)
        for index in range(len(block.targets)):
            view = block.view(index)
            if view is None:
                continue
            number = "" if opened.shape[0] == 1 else f"-{block.start + index:05d}"
            path = self.folder / f"{self._stem(image)}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_figure(window_gallery([view]) if is_window(opened.shape) else _frame_figure(view), path)
            self._written += 1

    def finish(self, tally: Tally) -> None:
        """Say how many pictures there are."""
        tally.pictures.append(f"{self.folder} holds {counted(self._written, 'picture')}")

    def _stem(self, image: str) -> str:
        """File name for an image, in the folder and without a suffix; with it where two images would have the same."""
        parts = [part for part in Path(image).parts if part not in {"..", Path(image).anchor}]
        plain = Path(*parts).with_suffix("").as_posix()
        if self._names.setdefault(plain, image) == image:
            return plain
        return Path(*parts).as_posix()


class Video(Picture):
    """The annotated video of a sequence: targets as circles, tracks as trails.

    Args:
        path: of the video.

    Raises:
        InputError: if it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        from csist.io.movies import check_movie

        self.path = check_movie(path)
        self._open = ExitStack()
        self._add: Callable[[NDArray[np.uint8]], None] | None = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Complete the video, or remove it after an error."""
        self._open.__exit__(kind, error, at)

    def finish(self, tally: Tally) -> None:
        """Say that there is a video; it is complete when it is closed."""
        if self._add is not None:
            tally.pictures.append(f"{self.path} shows the frames with targets and tracks")

    def add(self, opened: OpenFile, block: Block, image: str) -> None:
        """Draw the frames of a block.

        Raises:
            InputError: if the file holds one image only.
        """
        from csist.io.movies import movie_writer
        from csist.plots.movie import Annotator
        from csist.tracks.link import Linker

        if opened.shape[0] == 1:
            raise InputError(f"--video is for a stack, a sequence or a video, {image} is one image: use --plot")
        if self._add is None:
            self._annotator, self._linker = Annotator(opened.shape[1:]), Linker()
            self._add = self._open.enter_context(movie_writer(self.path, self._annotator.sides, opened.rate))
        for index, targets in enumerate(block.targets):
            view = block.view(index)
            number = block.start + index
            joint = bool((targets.track >= 0).any())
            tracks = targets.track if joint else self._linker.update(number, targets)
            self._add(self._annotator.draw(number, None if view is None else view.image, targets, tracks.tolist()))


class ImageFile(Picture):
    """Model or residual of each image of a file; an image without a value is NaN everywhere.

    Args:
        kind: "model" (targets and background) or "residual" (the image less the model).
        path: of the file.
        metadata: of the run.

    Raises:
        InputError: if it cannot be written.
    """

    def __init__(self, kind: str, path: Path, metadata: Mapping[str, Any]) -> None:
        from csist.io.cubes import ImageWriter

        self._kind, self._writer = kind, ImageWriter(path, metadata)

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Complete the file, or leave none after an error."""
        self._writer.__exit__(kind, error, at)

    def add(self, opened: OpenFile, block: Block, image: str) -> None:
        """Draw the images of a block."""
        del image
        import numpy as np

        if self._writer.wcs is None and opened.sky is not None:
            self._writer.wcs = opened.sky()
        for index in range(len(block.targets)):
            view = block.view(index)
            if view is None:
                self._writer.append(np.full(opened.shape[1:], np.nan))
            else:
                self._writer.append(view.model if self._kind == "model" else view.image - view.model)
