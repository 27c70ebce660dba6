"""Rows of numbers that the compiler keeps in registers: values of Numba kernels for chains that step together.

A loop over an array's last axis loads and stores every intermediate result, because the compiler cannot know that no
two arrays overlap. A `Row` is a value: what is computed from rows stays in registers until `put` stores it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.ir
import numba
import numpy as np
from numba import extending
from numba.core import cgutils
from numba.core.typing import templates

from csist._compiled import FAST_MATH, inner

_numba: Any = numba
_extending: Any = extending
_cgutils: Any = cgutils
_templates: Any = templates
_ir: Any = llvmlite.ir
"""Numba and LLVM, whose type hints leave out what is used here."""

WIDTH = 32
"""Numbers in a row, in single precision: two to eight registers. Fewer would leave the processor waiting."""

Row = Any
"""A row, for type hints."""

ALIGNMENT = 64
"""Bytes of a cache line."""

LARGEST_WHOLE = 2.0**30
"""Numbers further from zero count as this where a row becomes whole numbers."""

_SINGLE, _INDEX = _ir.FloatType(), _ir.IntType(32)
_VECTOR, _INTEGERS = _ir.VectorType(_SINGLE, WIDTH), _ir.VectorType(_INDEX, WIDTH)


def intrinsic(function: Callable[..., Any]) -> Any:
    """Make a function that kernels call, from one that says of which types it is and how it becomes LLVM's code."""
    return _extending.intrinsic(function)


class RowType(_numba.types.Type):  # type: ignore[misc]
    """Numba's type of a row."""

    def __init__(self) -> None:
        super().__init__(name=f"Row{WIDTH}")


ROW = RowType()


@_extending.register_model(RowType)
class _RowModel(_extending.models.PrimitiveModel):  # type: ignore[misc]
    """A row as LLVM's vector."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _spread(builder: Any, number: Any) -> Any:
    """LLVM's vector of equal numbers."""
    first = builder.insert_element(_ir.Constant(_VECTOR, _ir.Undefined), number, _ir.Constant(_INDEX, 0))
    return builder.shuffle_vector(first, _ir.Constant(_VECTOR, _ir.Undefined), _ir.Constant(_INTEGERS, [0] * WIDTH))


def _define(instruction: str, *symbols: Callable[..., Any]) -> None:
    """Let operators work on two rows, and on a row and a number in single precision."""
    single = _numba.types.float32

    class Cases(_templates.ConcreteTemplate):  # type: ignore[misc]
        cases = [_templates.signature(ROW, *pair) for pair in ((ROW, ROW), (ROW, single), (single, ROW))]  # noqa: RUF012

    def lower(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
        pairs = zip(values, signature.args, strict=True)
        rows = [value if kind == ROW else _spread(builder, value) for value, kind in pairs]
        return getattr(builder, instruction)(*rows, flags=sorted(FAST_MATH))

    for symbol in symbols:
        _templates.infer_global(symbol)(Cases)
        for case in Cases.cases:
            _extending.lower_builtin(symbol, *case.args)(lower)


_define("fadd", operator.add, operator.iadd)
_define("fsub", operator.sub, operator.isub)
_define("fmul", operator.mul, operator.imul)
_define("fdiv", operator.truediv, operator.itruediv)


def _address(context: Any, builder: Any, kinds: Sequence[Any], values: Sequence[Any]) -> Any:
    """Address of a row in an array, from the types and values of the array and the place."""
    kind, place = kinds
    array = context.make_array(kind)(context, builder, values[0])
    places = _cgutils.unpack_tuple(builder, values[1])
    whole = [context.cast(builder, one, old, _numba.types.intp) for one, old in zip(places, place.types, strict=True)]
    address = _cgutils.get_item_pointer(context, builder, kind, array, whole, wraparound=False)
    return builder.bitcast(address, _VECTOR.as_pointer())


@intrinsic
def take(_: Any, array: Any, place: Any) -> Any:
    """The row of a C-contiguous array in single precision whose first number is at a place (a tuple)."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(_address(context, builder, signature.args, values), align=4)

    return ROW(array, place), generate


@intrinsic
def put(_: Any, array: Any, place: Any, row: Any) -> Any:
    """Store a row from a place of an array on."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[2], _address(context, builder, signature.args[:2], values[:2]), align=4)
        return context.get_dummy_value()

    return _numba.types.void(array, place, row), generate


@intrinsic
def spread(_: Any, number: Any) -> Any:
    """A row of equal numbers."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _spread(builder, context.cast(builder, values[0], signature.args[0], _numba.types.float32))

    return ROW(number), generate


def _llvm(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    """One of LLVM's own functions of vectors."""
    kind = "f32" if arguments[-1] == _VECTOR else "i32"
    declared = _ir.FunctionType(result, arguments)
    return _cgutils.get_or_insert_function(builder.module, declared, f"llvm.{name}.v{WIDTH}{kind}")


def _calling_llvm(name: str, rows: int) -> Any:
    """A function of rows that LLVM has for vectors."""

    def function(_: Any, *arguments: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.call(_llvm(builder, name, _VECTOR, *[_VECTOR] * rows), values)

        return ROW(*arguments), generate

    by_number: dict[int, Callable[..., Any]] = {
        1: lambda _, row: function(_, row),
        2: lambda _, row, other: function(_, row, other),
    }
    return intrinsic(by_number[rows])


def _reducing(name: str) -> Any:
    """A function of a row that gives a whole number; NaN counts as 0, so that what is made of it is finite."""

    def function(_: Any, row: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            # LLVM's own conversion that saturates goes number by number.
            nothing, limit = (_ir.Constant(_VECTOR, [value] * WIDTH) for value in (0.0, LARGEST_WHOLE))
            row = builder.select(builder.fcmp_ordered("ord", values[0], nothing), values[0], nothing)
            for called, bound in (("minnum", limit), ("maxnum", builder.fneg(limit))):
                row = builder.call(_llvm(builder, called, _VECTOR, _VECTOR, _VECTOR), [row, bound])
            whole = builder.fptosi(row, _INTEGERS)
            found = builder.call(_llvm(builder, f"vector.reduce.{name}", _INDEX, _INTEGERS), [whole])
            return builder.sext(found, _ir.IntType(64))

        return _numba.types.int64(row), generate

    return intrinsic(function)


floor_of = _calling_llvm("floor", 1)
"""The largest whole numbers that are not above those of a row."""
root_of = _calling_llvm("sqrt", 1)
"""Square roots of a row."""
larger_of = _calling_llvm("maxnum", 2)
"""The larger numbers of two rows."""
smaller_of = _calling_llvm("minnum", 2)
"""The smaller numbers of two rows."""
least_of = _reducing("smin")
"""The least of a row of whole numbers."""
largest_of = _reducing("smax")
"""The largest of a row of whole numbers."""


@intrinsic
def sum_of(_: Any, row: Any) -> Any:
    """Sum of a row."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        function = _llvm(builder, "vector.reduce.fadd", _SINGLE, _SINGLE, _VECTOR)
        return builder.call(function, [_ir.Constant(_SINGLE, 0.0), values[0]], fastmath=sorted(FAST_MATH))

    return _numba.types.float32(row), generate


@intrinsic
def where_equal(_: Any, row: Any, number: Any, chosen: Any, other: Any) -> Any:
    """A row with the numbers of `chosen` where `row` is equal to a number, and those of `other` elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        level = _spread(builder, context.cast(builder, values[1], signature.args[1], _numba.types.float32))
        return builder.select(builder.fcmp_ordered("==", values[0], level), values[2], values[3])

    return ROW(row, number, chosen, other), generate


@intrinsic
def where_above(_: Any, row: Any, least: Any, chosen: Any, other: Any) -> Any:
    """A row with the numbers of `chosen` where `row` is above `least`, and those of `other` elsewhere and at NaN."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", values[0], values[1]), values[2], values[3])

    return ROW(row, least, chosen, other), generate


@inner
def aligned(shape: Any) -> Any:
    """An array in single precision, not filled, that begins where a cache line does: then no row lies in one more."""
    number = 1
    for length in shape:
        number *= length
    room = np.empty(number + ALIGNMENT // 4, np.float32)
    first = (-room.ctypes.data % ALIGNMENT) // 4
    return room[first : first + number].reshape(shape)
