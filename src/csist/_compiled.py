"""Numba kernels: how they are compiled, where their machine code is kept, and how one calls another.

Machine code is kept on disk, in a folder whose name is a digest of the sources of all kernels. A function that is
compiled into another is part of that other's machine code, while Numba compares the source of the outer one only;
with the digest an edit in any of the files starts an empty folder, so stale code cannot be loaded.

A kernel that another calls by name is optimised and translated again as part of that other, and again with each
further caller up the chain. `linked` kernels are called through their address instead, and are compiled once.

Numba counts references to arrays, with an atomic operation wherever a kernel names one or a part of one. That takes
up to a third of the time of small inner loops, and threads wait there for each other. Kernels that make no array and
return none are `lean`, and `fused` ones too: they do not count. What they call must be lean as well.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import cgutils, event
from numba.extending import intrinsic

logger = logging.getLogger(__name__)

_numba: Any = numba
_events: Any = event
_cgutils: Any = cgutils
"""Numba, whose type hints leave out what is used here."""

Function = TypeVar("Function", bound=Callable[..., Any])

PACKAGE = Path(__file__).parent
MARKS = (b"@compiled", b"@linked", b"@inner", b"@lean", b"@fused", b"@inlined", b"@intrinsic")
"""What a file with kernels contains."""
PREFIX = "csist-kernels-"
KEPT_FOLDERS = 4
"""Folders of machine code that stay, the last used; older ones belong to sources that have changed since."""

OPTIONS = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
FAST_MATH = {"reassoc", "contract", "arcp", "nsz"}


def kernel_sources(package: Path = PACKAGE) -> list[Path]:
    """Files of a package that define kernels, in order."""
    return sorted(path for path in package.rglob("*.py") if any(mark in path.read_bytes() for mark in MARKS))


def source_key(package: Path = PACKAGE) -> str:
    """Digest of Numba's version and of all sources of kernels of a package."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in kernel_sources(package):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def user_cache_folder() -> Path:
    """Folder of the user in which programs may keep what they can make again."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "csist" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "csist"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "csist"


def candidate_folders(package: Path = PACKAGE) -> list[Path]:
    """Folders that may hold machine code, the preferred first.

    `CSIST_CACHE_DIR` or else `NUMBA_CACHE_DIR` names the only one; without them they are that of the package and that
    of the user.
    """
    given = os.environ.get("CSIST_CACHE_DIR") or _numba.config.CACHE_DIR
    return [Path(given)] if given else [package / "__pycache__", user_cache_folder()]


def open_cache(package: Path = PACKAGE) -> Path | None:
    """The folder of the machine code of these sources, made if need be; None where none can be written.

    With a new one the least recently used of the others are removed. A process that still uses one of those makes it
    anew when it next writes, and compiles what it does not find.
    """
    name = PREFIX + source_key(package)
    for folder in candidate_folders(package):
        target = folder / name
        try:
            is_new = not target.is_dir()
            target.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=target).close()
            os.utime(target)
        except OSError:
            continue
        if is_new:
            remove_old(folder)
        return target
    logger.warning(
        "no folder for compiled code can be written: it is compiled anew in every process. Set CSIST_CACHE_DIR to one"
    )
    return None


def remove_old(folder: Path) -> None:
    """Remove all folders of machine code in `folder` but the `KEPT_FOLDERS` last used."""

    def last_used(path: Path) -> float:
        try:
            return path.stat().st_mtime
        except OSError:  # another process has just removed it
            return 0.0

    for old in sorted(folder.glob(PREFIX + "*"), key=last_used, reverse=True)[KEPT_FOLDERS:]:
        shutil.rmtree(old, ignore_errors=True)


@cache
def cache_folder() -> Path | None:
    """The folder of this process's machine code, or None."""
    return open_cache()


@cache
def is_cache_new() -> bool:
    """Whether that folder was empty when this process first asked."""
    folder = cache_folder()
    return folder is not None and not any(folder.iterdir())


def _decorate(function: Callable[..., Any], is_lean: bool = False, **options: Any) -> Any:
    # Numba's switch of counting has no documentation. Unset, a kernel would take after the first that calls it.
    options |= OPTIONS | {"_nrt": not is_lean}
    folder = cache_folder()
    is_cache_new()  # before anything is written
    if folder is None:
        return _numba.njit(**options)(function)
    before = _numba.config.CACHE_DIR
    _numba.config.CACHE_DIR = str(folder)  # Numba reads it while it decorates
    try:
        return _numba.njit(cache=True, **options)(function)
    finally:
        _numba.config.CACHE_DIR = before


def compiled(function: Function) -> Function:
    """Compile a function with Numba when it is first called; sums may be reordered."""
    kernel: Function = _decorate(function, fastmath=FAST_MATH)
    return kernel


def compiled_exactly(function: Function) -> Function:
    """As `compiled`, with every operation in the order in which it is written."""
    kernel: Function = _decorate(function)
    return kernel


def inner(function: Function) -> Function:
    """As `compiled`, for a function that only kernels call: Python cannot, which saves code that unpacks objects."""
    kernel: Function = _decorate(function, fastmath=FAST_MATH, no_cpython_wrapper=True)
    return kernel


def lean(function: Function) -> Function:
    """As `compiled`, for a function that makes no array and returns none."""
    kernel: Function = _decorate(function, is_lean=True, fastmath=FAST_MATH)
    return kernel


def tuple_type(kind: type, *fields: Any) -> Any:
    """Numba's type of a `NamedTuple` with fields of these types."""
    if len(set(fields)) == 1:
        return _numba.types.NamedUniTuple(fields[0], len(fields), kind)
    return _numba.types.NamedTuple(fields, kind)


def fused(function: Function) -> Function:
    """As `lean`, for inner loops: the optimiser puts it into its callers, so that no arguments are passed."""
    kernel: Function = _decorate(function, is_lean=True, fastmath=FAST_MATH, no_cpython_wrapper=True, forceinline=True)
    return kernel


def inlined(function: Function) -> Function:
    """Make a function part of the one kernel that calls it, before that is compiled: a name for some of its lines."""
    kernel: Function = _numba.njit(inline="always", error_model="numpy", no_cpython_wrapper=True)(function)
    return kernel


def tuple_of(*fields: Any) -> Any:
    """Numba's type of a plain tuple with fields of these types."""
    return _numba.types.BaseTuple.from_types(fields)


_signatures: dict[Any, Any] = {}


def linked(signature: Any, is_lean: bool = False) -> Callable[[Function], Function]:
    """As `inner`, for a function that kernels call through its address; see `calling`.

    Args:
        signature: Numba's, with the types of result and arguments.
        is_lean: whether it makes no array; see `lean`.
    """

    def decorate(function: Function) -> Function:
        kernel: Function = _decorate(function, is_lean=is_lean, fastmath=FAST_MATH, no_cpython_wrapper=True)
        _signatures[kernel] = signature
        return kernel

    return decorate


@cache
def address_of(kernel: Callable[..., Any]) -> int:
    """Address of the machine code of a `linked` kernel, which is compiled if need be and stays in memory."""
    dispatcher: Any = kernel
    signature = _signatures[kernel]
    dispatcher.compile(signature)
    result = dispatcher.overloads[signature.args]
    return int(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))


def calling(kernel: Callable[..., Any]) -> Any:
    """A function `call(address, *arguments)` for use in other kernels, that calls a `linked` kernel at its address.

    Arguments must be of exactly the types with which the kernel was declared. They are not packed into a tuple, which
    would count one more reference to each of their arrays.
    """
    declared = _signatures[kernel]
    returns = declared.return_type

    def type_call(address: Any, *arguments: Any) -> Any:
        given = tuple(_numba.types.unliteral(one) for one in arguments)
        if given != declared.args:
            pairs = zip(declared.args, given, strict=False)
            wrong = [f"argument {n}: {a} declared, {b} given" for n, (a, b) in enumerate(pairs) if a != b]
            raise _numba.errors.TypingError(f"{kernel.__name__} called with other types: {'; '.join(wrong) or given}")

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            pairs = zip(values[1:], signature.args[1:], given, strict=True)
            passed = [context.cast(builder, value, was, becomes) for value, was, becomes in pairs]
            function = context.call_conv.get_function_type(returns, given)
            pointer = builder.inttoptr(values[0], function.as_pointer())
            status, result = context.call_conv.call_function(builder, pointer, returns, given, passed)
            with _cgutils.if_unlikely(builder, status.is_error):
                context.call_conv.return_status_propagate(builder, status)
            return result

        return returns(address, *arguments), generate

    # Numba wants to see how many arguments there are.
    by_number: dict[int, Callable[..., Any]] = {
        3: lambda _, address, a, b, c: type_call(address, a, b, c),
        4: lambda _, address, a, b, c, d: type_call(address, a, b, c, d),
        5: lambda _, address, a, b, c, d, e: type_call(address, a, b, c, d, e),
        6: lambda _, address, a, b, c, d, e, f: type_call(address, a, b, c, d, e, f),
    }
    return intrinsic(by_number[len(declared.args)])


class _Announcer(event.Listener):
    """Logs one line when the first kernel of this process has to be compiled; none if all are on disk."""

    told = False

    def on_start(self, event: Any) -> None:
        module = getattr(event.data["dispatcher"].py_func, "__module__", "") or ""
        if not self.told and module.split(".")[0] == __package__:
            self.told = True
            logger.info(COMPILING)

    def on_end(self, event: Any) -> None:
        pass


COMPILING_TIME = "about half a minute, and up to a few minutes on a slow or busy machine"
COMPILING = f"compiling the solver for this machine (once; {COMPILING_TIME})"
_events.register("numba:compile", _Announcer())
