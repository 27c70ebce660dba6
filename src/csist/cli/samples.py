"""`csist samples`: copy the sample frames of the package."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from csist.checks import InputError
from csist.cli.output import make_console


def samples(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Folder to copy to; created if missing.")] = Path(
        "samples"
    ),
) -> None:
    """Copy three real thermal frames (320 x 256 px, CC0) to a folder, to try csist on."""
    from csist.files import atomic_path, check_writable
    from csist.io import sample_frames

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}, give the name of a folder") from error
    for source in sample_frames().values():
        target = check_writable(folder / source.name)
        with atomic_path(target) as partial:
            shutil.copyfile(source, partial)
        make_console().print(target, soft_wrap=True, highlight=False)
