"""Files without loss: errors that name the file, outputs that appear under their name only when complete."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from csist.checks import InputError


def one_line(error: BaseException) -> str:
    """What an exception says, as one line."""
    # A KeyError puts its message in quotes.
    said = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(said.split()) or type(error).__name__


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn whatever a parser raises inside the block into one `InputError` that names the file.

    Readers of foreign formats answer a damaged file with almost any exception (struct, zlib, index, syntax),
    so this is the one place that catches them all; an `InputError` passes unchanged.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"cannot read {path}: there is no such file") from error
    except MemoryError as error:
        raise InputError(f"cannot read {path}: it does not fit into the memory") from error
    except Exception as error:
        said = one_line(error)
        # A parser's own message is often about itself: say first what that means for the user.
        raise InputError(f"cannot read {path}, it is damaged or not what its suffix says: {said[:200]}") from error


def is_special(path: Path) -> bool:
    """Whether the path is a device or pipe (/dev/null, /dev/stdout): written in place, never replaced."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _partial_name(path: Path) -> Path:
    # Hidden, in the same folder (a rename must not cross file systems), with the suffix kept, because some
    # writers choose their format by it.
    return path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")


def check_writable(path: str | Path, suffixes: Sequence[str] = ()) -> Path:
    """Return the path if a file can be written there; call it before the work begins.

    Args:
        path: file to be written; it may exist.
        suffixes: endings allowed, lower case with the dot; none for any.

    Raises:
        InputError: if its folder is missing, it is a folder itself, it cannot be written or ends otherwise.
    """
    path = Path(path)
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except OSError as error:  # a name too long, a file where a folder is meant, a folder that is closed
        raise InputError(f"cannot write {path}: {error.strerror or one_line(error)}") from error
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"cannot write {path}: its name must end in {' or '.join(suffixes)}")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder, give the name of a file in it")
    if is_special(path):
        return path
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {path.parent} does not exist, create it first")
    probe = _partial_name(path)
    try:
        # Permission bits do not tell of read-only disks or over-long names: try it.
        probe.open("xb").close()
        probe.unlink()
    except FileExistsError:
        pass
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or one_line(error)}") from error
    return path


def check_new_folder(path: str | Path) -> Path:
    """Return the path if a folder can be made there.

    Raises:
        InputError: if there is something already (an empty folder is fine) or it cannot be written.
    """
    path = Path(path)
    if path.is_dir() and not any(path.iterdir()):
        return path
    if path.exists():
        raise InputError(f"cannot write {path}: it exists already, give another name or remove it")
    return check_writable(path)


_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def atomic_path(path: str | Path, folder: bool = False) -> Iterator[Path]:
    """A temporary name beside `path` to write to, renamed to `path` when the block ends without an error.

    After an error or Ctrl-C nothing is left behind and an older file of that name is untouched.

    Args:
        path: the final name.
        folder: whether a folder is written (made here, empty) instead of a file.

    Raises:
        InputError: if the path cannot be written or the disk is full.
    """
    path = Path(path)
    check_new_folder(path) if folder else check_writable(path)
    if is_special(path):
        yield path
        return
    final = Path(os.path.realpath(path))
    partial = _partial_name(final)
    try:
        if folder:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
        yield partial
        partial.replace(final)
    except BaseException as error:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise InputError(f"cannot write {path}: {os.strerror(error.errno or 0)}") from error
        raise


def write_text(text: str, path: str | Path) -> None:
    """Write a text file (UTF-8), complete or not at all.

    Raises:
        InputError: if the path cannot be written.
    """
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def natural_key(text: str) -> tuple[object, ...]:
    """Sort key under which image_2 comes before image_10."""
    parts: list[object] = list(re.split(r"(\d+)", text.lower()))
    parts[1::2] = [int(str(digits)) for digits in parts[1::2]]
    return tuple(parts), text
