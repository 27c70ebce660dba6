"""Training with kernels that torch.compile makes for this network and this machine."""

from __future__ import annotations

import torch
from torch import nn

from csist.checks import InputError
from csist.files import one_line
from csist.methods.base import GridMethod
from csist.methods.layers import UnfoldedMethod


def check_compiler() -> None:
    """Compile almost nothing, on the CPU.

    Raises:
        InputError: if that does not work here.
    """
    try:
        torch.compile(torch.neg)(torch.ones(2))
    except Exception as error:  # the compiler's own errors are of many kinds
        raise InputError(
            "cannot compile here, which needs a C++ compiler and Python's headers: train without --compile "
            f"({one_line(error)[:200]})"
        ) from error


def compile_for_training(method: GridMethod) -> None:
    """Have what the loss calls compiled at its next call, in place; the state keeps its names.

    Of a network whose stages are modules each stage is compiled by itself: they share their code, and so what was
    compiled for one.
    """
    # Sizes are fixed in each phase of a training: code for exactly these is faster than code for any.
    stages = getattr(method, "stages", None)
    if isinstance(stages, nn.ModuleList):
        for stage in stages:
            stage.compile(dynamic=False)
    elif isinstance(method, UnfoldedMethod):
        method.unfold = torch.compile(method.unfold, dynamic=False)  # type: ignore[method-assign]
    else:
        method.compile(dynamic=False)
