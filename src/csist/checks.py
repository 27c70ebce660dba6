"""Input checks: each raises a one-line error that names the argument and states the bad value and the fix."""

from __future__ import annotations

import importlib.util
import reprlib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class InputError(ValueError):
    """Invalid value or file given by the user; the message is a single line that can be shown as it is."""


def as_number(value: Any) -> float:
    """A value as a float; NaN if it is no single number: a text, an array, None.

    >>> as_number(2), as_number("2"), as_number(np.ones(2))
    (2.0, nan, nan)
    """
    if isinstance(value, str | bytes) or np.ndim(value):
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def shown(value: object) -> str:
    """A value in one line of a message."""
    return reprlib.repr(value) if isinstance(value, str | bytes) else " ".join(str(value).split())[:80]


def check_positive(name: str, value: float) -> float:
    """Return `value` as a float if it is finite and > 0.

    Raises:
        InputError: if it is not.
    """
    number = as_number(value)
    if not (np.isfinite(number) and number > 0):
        raise InputError(f"{name} must be a finite number > 0, got {shown(value)}")
    return number


def check_not_negative(name: str, value: float) -> float:
    """Return `value` as a float if it is finite and >= 0.

    Raises:
        InputError: if it is not.
    """
    number = as_number(value)
    if not (np.isfinite(number) and number >= 0):
        raise InputError(f"{name} must be a finite number >= 0, got {shown(value)}")
    return number


def check_kind(name: str, value: object, kind: type, way_out: str) -> None:
    """Check that an object, if one is given, is of a class.

    Raises:
        InputError: if it is not; the message ends in the way out.
    """
    if value is not None and not isinstance(value, kind):
        raise InputError(f"{name} must be a {kind.__name__}, got {reprlib.repr(value)}: {way_out}")


def check_workers(workers: int | None) -> None:
    """Check a number of threads or processes; None is as many as there are processors.

    Raises:
        InputError: if it is not a whole number >= 1.
    """
    if workers is not None and not (isinstance(workers, int | np.integer) and workers >= 1):
        raise InputError(f"workers must be a whole number >= 1, got {workers!r}")


def check_packages(what: str, names: Sequence[str], extra: str) -> None:
    """Check that the packages of an extra are installed.

    Args:
        what: feature that needs the packages; opens the error message.
        names: import names of the packages.
        extra: extra of csist that installs them.

    Raises:
        InputError: if one is missing.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{what} needs {' and '.join(missing)} (extra `{extra}`): pip install 'csist[{extra}]'")


def check_ratio(ratio: int) -> int:
    """Return the sub-pixel grid ratio as an int if it is a whole number >= 1.

    Raises:
        InputError: if it is not.
    """
    if int(ratio) != ratio or ratio < 1:
        raise InputError(f"ratio must be a whole number >= 1, got {ratio}")
    return int(ratio)


def check_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Return an image shape (rows, columns) as ints if both are >= 1.

    Raises:
        InputError: if it is not a pair of whole numbers >= 1.
    """
    pair = tuple(shape) if isinstance(shape, Iterable) else ()
    if len(pair) != 2 or any(int(n) != n or n < 1 for n in pair):
        raise InputError(f"shape must be (rows, columns), two whole numbers >= 1, got {shape}")
    return int(pair[0]), int(pair[1])


def check_range(name: str, pair: tuple[float, float], lowest: float) -> tuple[float, float]:
    """Return `pair` as floats if it is (low, high) with lowest <= low <= high.

    Raises:
        InputError: if it is not.
    """
    numbers = [as_number(value) for value in pair] if isinstance(pair, Iterable) else []
    if len(numbers) != 2 or not lowest <= numbers[0] <= numbers[1] < np.inf:
        given = tuple(pair) if isinstance(pair, Iterable) else pair
        raise InputError(f"{name} must be (low, high) with {lowest} <= low <= high, got {given}")
    return numbers[0], numbers[1]


def check_fields(name: str, card: object, known: Iterable[str]) -> None:
    """Check that a card holds known fields only.

    Args:
        name: what the card describes.
        card: the card.
        known: names of the fields it may hold.

    Raises:
        InputError: if it is not a dictionary or holds another field.
    """
    allowed = set(known)
    if not isinstance(card, dict) or set(card) - allowed:
        unknown = sorted(set(card) - allowed) if isinstance(card, dict) else card
        raise InputError(f"a {name} card may hold {', '.join(sorted(allowed))}; got {unknown}")


def suggestion(name: str, known: Iterable[str], otherwise: str) -> str:
    """Return the end of an error message for an unknown name.

    Args:
        name: the unknown one.
        known: those that exist.
        otherwise: what to say where none of them is like it.

    >>> suggestion("noise_sdt", ["noise_std", "psf"], "leave it out")
    'did you mean noise_std?'
    """
    close = get_close_matches(name, list(known), 1)
    return f"did you mean {close[0]}?" if close else otherwise


def check_names(what: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Check that options have known names.

    Args:
        what: what takes the options; opens the error message.
        given: names of the options given.
        known: names of the options that it takes.

    Raises:
        InputError: for the first unknown name, with the closest known one, or all of them.

    >>> check_names("a frame", ["colour"], ["noise_std", "psf"])
    Traceback (most recent call last):
        ...
    csist.checks.InputError: a frame does not take colour: its options are noise_std, psf
    """
    for name in given:
        if name not in known:
            options = f"its options are {', '.join(known)}" if known else "it has no options"
            raise InputError(f"{what} does not take {name}: {suggestion(name, known, options)}")


SMALLEST_SIDE_PX = 3

MAGNITUDES = (1e-100, 1e100)
"""Range of the largest magnitude in an image that is not zero: squares of values outside it underflow or overflow."""


def unmasked(image: Any) -> Any:
    """Return an image as it is; masked arrays, alone or in a list, and astropy's NDData with NaN in masked pixels."""
    if isinstance(image, np.ma.MaskedArray):
        return np.asarray(np.ma.filled(image.astype(np.float64), np.nan))
    if isinstance(image, list | tuple) and any(_is_masked(each) for each in image):
        return [unmasked(each) for each in image]
    if _is_masked(image):
        mask = np.broadcast_to(np.asarray(image.mask, dtype=bool), np.shape(image.data))
        return np.where(mask, np.nan, np.asarray(image.data, dtype=np.float64))
    return image


def _is_masked(image: object) -> bool:
    """Whether something is a masked array, or data with a mask."""
    if isinstance(image, np.ma.MaskedArray):
        return True
    has_data = not isinstance(image, np.ndarray) and isinstance(getattr(image, "data", None), np.ndarray)
    return has_data and isinstance(getattr(image, "mask", None), np.ndarray | np.bool_ | bool)


def check_stack(image: ArrayLike, name: str = "image") -> NDArray[np.float64]:
    """Return an image (H, W) or a stack (N, H, W) as a float64 array (N, H, W), a copy or a view.

    NaN is accepted (masking is the caller's decision); infinities are rejected. Masked pixels become NaN.

    Raises:
        InputError: for other dimensions, sides below 3 px, infinities, values outside `MAGNITUDES` or values that
            are not real numbers.
    """
    array = np.asarray(unmasked(image))
    if array.dtype.kind in "US" and array.ndim == 0:
        raise InputError(
            f"{name} must be an array, got the text {str(image)[:60]!r}: read a file with csist.io.read_image"
        )
    if array.dtype.kind not in "buif":
        raise InputError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.ndim not in (2, 3):
        raise InputError(f"{name} must be (H, W) or a stack (N, H, W), got shape {array.shape}")
    stack = np.asarray(array[None] if array.ndim == 2 else array, dtype=np.float64)
    if min(stack.shape[1:]) < SMALLEST_SIDE_PX:
        raise InputError(f"{name} must be at least 3 x 3 px, got {stack.shape[1]} x {stack.shape[2]}")
    # No array of magnitudes: a frame's check takes as long as two passes over its pixels.
    largest = max(np.fmax.reduce(stack, axis=None, initial=0.0), -np.fmin.reduce(stack, axis=None, initial=0.0))
    if np.isinf(largest):
        raise InputError(f"{name} holds {int(np.isinf(stack).sum())} infinite values: replace them by NaN or a number")
    if largest > 0 and not MAGNITUDES[0] <= largest <= MAGNITUDES[1]:
        low, high = MAGNITUDES
        raise InputError(f"{name} has a largest magnitude of {largest:.3g}: scale it to between {low:g} and {high:g}")
    return stack
