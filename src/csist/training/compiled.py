"""Training with kernels that torch.compile makes for this network and this machine."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from csist.checks import InputError
from csist.io import one_line
from csist.methods.base import GridMethod


def compile_for_training(method: GridMethod) -> None:
    """Have the method compiled at its next call, in place; its state keeps its names.

    An unfolded network's stages are compiled one by one: they share their code, so one compilation serves all.

    Raises:
        InputError: if this machine cannot compile.
    """
    try:
        torch.compile(torch.neg)(torch.ones(2))
    except Exception as error:  # the compiler's own errors are of many kinds
        raise InputError(
            f"cannot compile here, which needs a C++ compiler and Python's headers: leave it out ({one_line(error)})"
        ) from error
    for part in getattr(method, "stages", [method]):
        # Sizes are fixed in each phase of a training: code for exactly these is faster than code for any.
        part.compile(dynamic=False)


def uncompiled() -> AbstractContextManager[None]:
    """In this context nothing is compiled: for batches of other sizes, each of which would be compiled anew."""
    context: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return context
