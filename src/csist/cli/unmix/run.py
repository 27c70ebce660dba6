"""The files of `csist unmix`, one after the other: a bad one does not stop the others, and finished rows are kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from csist.checks import InputError
from csist.cli.output import INTERNAL_ERROR, InterruptedRunError, complain, show_traceback, uninterrupted
from csist.cli.unmix.files import OpenFile, open_file
from csist.cli.unmix.pictures import Picture
from csist.cli.unmix.report import Tally, groups_table
from csist.cli.unmix.settings import Settings
from csist.cluster import ClusterError
from csist.words import counted

if TYPE_CHECKING:
    from distributed import Client

    from csist.cli.unmix.blocks import Block
    from csist.io import TableWriter

Item = TypeVar("Item")


def input_files(inputs: Sequence[Path], tally: Tally, sequence: bool) -> list[tuple[str, Path]]:
    """Return (name in the table, path) of every image file; duplicate names are replaced by the path as typed.

    With `sequence`, a folder is one item.
    """
    from csist.io import read_frames

    found: list[tuple[str, Path]] = []
    for given in inputs:
        reader = read_frames(given)
        if given.is_dir():
            tally.folders.append(folder_text(given, reader.files))
        if sequence and given.is_dir():
            found.append((given.resolve().name, given))
            continue
        for line in reader.notes:
            name, _, text = line.rpartition(": ")
            tally.note(text, name)
        found += reader.files
    paths = [os.path.realpath(path) for _, path in found]
    for place, (_, path) in enumerate(found):
        if paths[place] in paths[:place]:
            raise InputError(f"{path} is given twice: leave one out")
    names = [name for name, _ in found]
    return [(name if names.count(name) == 1 else str(path), path) for name, path in found]


def folder_text(folder: Path, files: Sequence[tuple[str, Path]]) -> str:
    """What a folder holds, in words.

    Args:
        folder: as it was typed.
        files: (path in the folder, path) of each image and video.
    """
    from csist.io import image_kind

    videos = sum(image_kind(path) == "video" for _, path in files)
    counts = {"image file": len(files) - videos, "video": videos}
    held = " and ".join(counted(number, what) for what, number in counts.items() if number)
    depth = max(name.count("/") for name, _ in files)
    return f"{folder}: {held}" + (f", sub-folders {depth} deep" if depth else "")


def unmix_files(
    files: Sequence[tuple[str, Path]],
    openers: Iterable[Callable[[], OpenFile]],
    table: TableWriter,
    tally: Tally,
    report: Callable[[str, float, float], None],
    drawn: Sequence[Picture],
) -> None:
    """Unmix file by file; if there are several, a bad file is reported and the others continue.

    Raises:
        InputError: if the only file is bad, or all files are.
    """
    from csist.windows import is_window

    for place, ((name, path), open_next) in enumerate(zip(files, openers, strict=True)):
        report(name, place, len(files))
        for opened, block in _unless_bad(_blocks_of(open_next, name, tally), path, len(files) == 1, tally):
            shape = opened.shape
            with uninterrupted():  # table, groups and summary must cover the same images
                image = _image_name(path, name, block.name, len(files) > 1)
                table.shape = (max(shape[0], block.start + len(block.targets)), *shape[1:])
                for index, targets in enumerate(block.targets):
                    number = block.start + index
                    table.append(image, number, targets, opened.columns(number, targets))
                    if tally.tracks is not None:
                        tally.frames[name, number] = partial(opened.columns, number)
                tally.add(block, image, name, is_window(shape))
            # The pictures of a frame share its model, which is drawn for the first of them.
            shown = replace(block, view=lru_cache(maxsize=1)(block.view))
            for each in drawn:
                each.add(opened, shown, image)
            done = (block.start + len(block.targets)) / shape[0] if shape[0] else 0.0
            report(name, place + min(done, 1.0), len(files))
    if len(tally.failed) == len(files) and not tally.images:  # an earlier table is worth more than an empty one
        raise InputError(f"none of the {len(files)} files can be unmixed, see the reasons above")


def _blocks_of(open_next: Callable[[], OpenFile], name: str, tally: Tally) -> Iterator[tuple[OpenFile, Block]]:
    """Yield (the file, block) for each block of a file, and add its notes to the summary."""
    from csist.windows import is_window

    opened = open_next()
    tally.note_all(opened.notes, name)
    if not is_window(opened.shape):
        tally.note_all(tally.frame_notes, name)
    for block in opened.blocks:
        yield opened, block
    tally.note_all(opened.notes, name)  # reading frames may have added notes
    for path, reason in opened.failed:
        tally.note(f"{reason}: its frame is empty", name)
        tally.failed.append({"path": str(path), "error": reason})
    tally.files += 1


def _unless_bad(blocks: Iterator[Item], path: Path, alone: bool, tally: Tally) -> Iterator[Item]:
    """Yield the blocks of a file up to an error, which ends the run only if there is no other file.

    Raises:
        ClusterError: always, because the other files would fail too.
    """
    try:
        yield from blocks
    except ClusterError:
        raise
    except Exception as error:
        message = _file_message(path, error)
        if alone:
            raise (InputError if isinstance(error, InputError) else RuntimeError)(message) from error
        complain(message)
        tally.failed.append({"path": str(path), "error": message})


def openers(
    files: Sequence[tuple[str, Path]], settings: Settings, client: Client | None
) -> Iterator[Callable[[], OpenFile]]:
    """Return a function for each file, in order, that opens it to be unmixed here or on the cluster."""
    if client is None:
        return (partial(open_file, path, name, settings) for name, path in files)
    from csist.cli.unmix.cluster import open_on_cluster

    return open_on_cluster(client, files, settings)


def _image_name(path: Path, name: str, own: str | None, several: bool) -> str:
    """Return the image name in the table: of the file or of an image in a folder, prefixed if there are several."""
    if own is None or not path.is_dir():
        return name
    return f"{name}/{own}" if several else own


def _file_message(path: Path, error: Exception) -> str:
    """Return one line that names the file and states what is wrong with it."""
    from csist.files import one_line

    message = one_line(error)
    if isinstance(error, MemoryError):
        message = "it does not fit into memory"
    elif not isinstance(error, InputError | OSError):
        show_traceback()
        message = f"{INTERNAL_ERROR}: {type(error).__name__}: {message}"
    return message if str(path) in message else f"{path}: {message}"


def save_partial(error: BaseException, writer: TableWriter, output: Path, tally: Tally, groups: Path | None) -> None:
    """After an error, keep completed rows in files named as partial, and say so in the error."""
    kept = writer.partial_path != output and writer.partial_path.exists()
    if kept and not tally.images:
        writer.partial_path.unlink(missing_ok=True)
        kept = False
    where = f"the {tally.images} images done so far are in {writer.partial_path}" if kept else "nothing was written"
    if not isinstance(error, KeyboardInterrupt):
        if kept and isinstance(error, InputError | RuntimeError | ClusterError):
            raise type(error)(f"{error}; {where}") from error
        return
    if kept and groups is not None:
        from csist.files import write_text

        partial = groups.with_name(groups.name + ".partial")
        write_text(groups_table(tally.groups).to_csv(index=False, lineterminator="\n"), partial)
        where += f" and {partial}"
    raise InterruptedRunError(f"interrupted: {where}") from error
