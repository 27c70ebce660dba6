"""Safe file access: read errors that name the file, and outputs that appear only once they are complete."""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from csist.checks import InputError

STANDARD_OUTPUT = Path("/dev/stdout")
"""What `-` stands for as an output."""


def one_line(error: BaseException) -> str:
    """Return the message of an exception as a single line."""
    # str() of a KeyError puts the message in quotes.
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(message.split()) or type(error).__name__


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn any exception raised by a parser inside the block into an `InputError` that names the file.

    Third-party readers raise almost any exception on a damaged file (struct, zlib, index, syntax), so this is the
    only place that catches them all. An `InputError` passes unchanged.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"cannot read {path}: there is no such file") from error
    except MemoryError as error:
        raise InputError(f"cannot read {path}: it does not fit into memory") from error
    except Exception as error:
        # The message of a parser is often about its internals: state first what it means for the user.
        raise InputError(
            f"cannot read {path}, it is damaged or not what its suffix says: {one_line(error)[:200]}"
        ) from error


def is_special(path: Path) -> bool:
    """Return whether the path is a device or pipe (/dev/null, /dev/stdout), to be written in place.

    The standard output is one wherever it leads to.
    """
    if path == STANDARD_OUTPUT:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _owner(pid: int | str) -> str:
    """A process of this machine, as it stands in a name."""
    return f"{zlib.crc32(platform.node().encode()):08x}-{pid}"


def _partial_name(path: Path, kind: str = "partial") -> Path:
    # Hidden, in the same folder (a rename must not cross file systems), with the suffix kept, because some
    # writers choose their format by it.
    return path.with_name(f".{path.stem}.{_owner(os.getpid())}.{kind}{path.suffix}")


def _is_alive(pid: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # it is somebody else's, or nobody knows
    return True


def remove_stale(path: Path) -> None:
    """Remove what killed runs on this machine have left of the same output; that of runs alive stays."""
    name = re.compile(
        re.escape(f".{path.stem}.{_owner('')}") + r"(\d{1,9})\.(partial|scratch)" + re.escape(path.suffix)
    )
    with suppress(OSError):
        for left in list(path.parent.iterdir()):
            found = name.fullmatch(left.name)
            if found is not None and int(found[1]) != os.getpid() and not _is_alive(int(found[1])):
                _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """A folder beside an output for what is only needed while it is made; it is gone afterwards."""
    remove_stale(path)
    folder = _partial_name(path, "scratch")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_writable(path: str | Path, suffixes: Sequence[str] = ()) -> Path:
    """Return the path if a file can be written there; call this before any expensive work.

    Args:
        path: file to write; it may exist.
        suffixes: allowed suffixes in lower case with the dot; empty to allow any.

    Raises:
        InputError: if the folder is missing, the path is a folder, is not writable or has another suffix.
    """
    path = Path(path)
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except OSError as error:  # a name that is too long, a file in place of a folder, a folder without permission
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
        # Permission bits do not show read-only disks or over-long names: try it.
        probe.open("xb").close()
        probe.unlink()
    except FileExistsError:
        pass
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or one_line(error)}") from error
    return path


def check_new_folder(path: str | Path) -> Path:
    """Return the path if a folder can be created there.

    Raises:
        InputError: if the path exists and is not an empty folder, or cannot be written.
    """
    path = Path(path)
    if path.is_dir() and not any(path.iterdir()):
        return path
    if path.exists():
        raise InputError(f"cannot write {path}: it already exists, give another name or remove it")
    return check_writable(path)


_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def atomic_path(path: str | Path, folder: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to `path` when the block ends without an error.

    After an error or Ctrl-C the temporary file is removed and an existing file at `path` is unchanged.

    Args:
        path: final path.
        folder: whether to write a folder (created here, empty) instead of a file.

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
    remove_stale(final)
    try:
        if folder:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
        yield partial
        partial.replace(final)
    except BaseException as error:
        _remove(partial)
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise InputError(f"cannot write {path}: {os.strerror(error.errno or 0)}") from error
        raise


def write_text(text: str, path: str | Path) -> None:
    """Write a text file (UTF-8) atomically.

    Raises:
        InputError: if the path cannot be written.
    """
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def natural_key(text: str) -> tuple[object, ...]:
    """Return a sort key that puts image_2 before image_10."""
    parts: list[object] = list(re.split(r"(\d+)", text.lower()))
    parts[1::2] = [int(str(digits)) for digits in parts[1::2]]
    return tuple(parts), text
