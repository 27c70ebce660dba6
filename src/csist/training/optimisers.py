"""What turns gradients into steps: Adam, or Muon for hidden convolution kernels beside it, and clipping.

Muon (Jordan, 2024, https://kellerjordan.github.io/posts/muon/) makes the momentum of a matrix orthogonal before it is
applied. A kernel (out, in, k, k) is taken as the matrix (out, in k k); the first and last layers of a stage, whose
matrices have one row or column a pixel, and everything else are left to Adam.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from csist.checks import InputError
from csist.training.config import OPTIMISERS

MUON_PEAK = 4.0
"""Learning rate of the kernels over that of Adam's parameters. With 1.5e-3 it is 0.006, which stayed stable with
DISTA-Net where 0.02 broke down after some 19 thousand samples."""

LEAST_CHANNELS = 16
"""Kernels with fewer inputs or outputs are not hidden ones."""

RUNNING_FACTOR = 2.0
"""A gradient is cut down to so many times the running mean of its norm."""

RUNNING_SHARE = 0.01
"""Share of a new norm in the running mean."""


def is_hidden_kernel(parameter: Tensor) -> bool:
    """Whether a parameter is a convolution kernel between layers, larger than one pixel."""
    return parameter.ndim == 4 and min(parameter.shape[:2]) >= LEAST_CHANNELS and parameter.shape[2] > 1


def make_optimiser(name: str, parameters: Iterable[nn.Parameter], peak: float) -> torch.optim.Optimizer:
    """An optimiser whose parameter groups hold their largest learning rate under "peak".

    Args:
        name: one of `OPTIMISERS`.
        parameters: of the network.
        peak: largest learning rate of Adam's parameters; that of Muon's kernels is `MUON_PEAK` times this.

    Raises:
        InputError: if the name is unknown, or Muon has no kernel to work on or is not in this PyTorch.
    """
    every = list(parameters)
    if name not in OPTIMISERS:
        raise InputError(f"optimiser must be one of {', '.join(OPTIMISERS)}, got {name!r}")
    if name == "adam":
        return torch.optim.Adam([{"params": every, "lr": peak, "peak": peak}])
    return MuonAdam(every, peak)


class MuonAdam(torch.optim.Optimizer):
    """Muon for hidden convolution kernels and Adam for the rest, as one optimiser.

    Args:
        parameters: of the network.
        peak: largest learning rate of Adam's parameters.

    Raises:
        InputError: if there is no hidden kernel, or this PyTorch has no Muon.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], peak: float) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise InputError(
                f"PyTorch {torch.__version__} has no Muon: install 2.9 or newer, or train with optimiser adam "
                "(--optimiser adam)"
            )
        every = list(parameters)
        kernels = [parameter for parameter in every if is_hidden_kernel(parameter)]
        others = [parameter for parameter in every if not is_hidden_kernel(parameter)]
        if not kernels:
            raise InputError(
                f"this network has no kernels of {LEAST_CHANNELS} or more channels for Muon: train with optimiser adam "
                "(--optimiser adam)"
            )
        groups = [{"params": group, "lr": rate, "peak": rate} for group, rate in (
            (kernels, MUON_PEAK * peak), (others, peak),
        ) if group]  # fmt: skip
        super().__init__(groups, {})
        self._kernels = kernels
        self._matrices = [nn.Parameter(_as_matrix(kernel, kernel)) for kernel in kernels]
        self._parts: dict[str, torch.optim.Optimizer] = {
            "muon": torch.optim.Muon(
                self._matrices, lr=MUON_PEAK * peak, weight_decay=0.0, momentum=0.95, nesterov=True, ns_steps=5,
                adjust_lr_fn="original",
            )
        }  # fmt: skip
        if others:
            self._parts["adam"] = torch.optim.Adam(others, lr=peak)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both; parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for matrix, kernel in zip(self._matrices, self._kernels, strict=True):
            # Looked up anew each time: the kernel's memory may have moved, to another device for instance.
            matrix.data = _as_matrix(kernel, kernel)
            matrix.grad = None if kernel.grad is None else _as_matrix(kernel.grad, kernel)
        for group, part in zip(self.param_groups, self._parts.values(), strict=True):
            part.param_groups[0]["lr"] = group["lr"]
            part.step()
        for matrix, kernel in zip(self._matrices, self._kernels, strict=True):
            matrix.grad = None
            if matrix.data_ptr() != kernel.data_ptr():
                order = _order(kernel)
                ordered = kernel.permute(order)
                ordered.copy_(matrix.view(ordered.shape))
        return loss

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on with the same bits."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state."""
        for name, part in self._parts.items():
            part.load_state_dict(state_dict[name])


def _order(kernel: Tensor) -> tuple[int, ...]:
    """Order of a kernel's dimensions in memory, outputs first."""
    return (0, 2, 3, 1) if kernel.is_contiguous(memory_format=torch.channels_last) else (0, 1, 2, 3)


def _as_matrix(values: Tensor, kernel: Tensor) -> Tensor:
    """Values of a kernel's shape as (out, in k k), columns in the order of the kernel's memory; a view where it can be.

    The order does not matter to Muon.
    """
    return values.detach().permute(_order(kernel)).flatten(1)


class GradientClip:
    """Cuts gradients down that are much larger than usual, or than a fixed norm.

    Args:
        limit: "running" for `RUNNING_FACTOR` times the running mean of the norms, a number for that norm, "none".
    """

    def __init__(self, limit: str | float) -> None:
        self.limit = limit
        self.running_norm: float | None = None

    @torch.no_grad()
    def __call__(self, gradients: Sequence[Tensor]) -> float:
        """Scale gradients in place, all by one factor, to the largest norm allowed; answers with the norm before."""
        norm = float(torch.stack(torch._foreach_norm(list(gradients))).norm())
        largest = self._largest(norm)
        if norm > largest and math.isfinite(norm):
            torch._foreach_mul_(list(gradients), largest / norm)
        return norm

    def _largest(self, norm: float) -> float:
        if isinstance(self.limit, float | int):
            return float(self.limit)
        if self.limit == "none" or not math.isfinite(norm):
            return math.inf
        before = norm if self.running_norm is None else self.running_norm
        largest = RUNNING_FACTOR * before
        self.running_norm = before + RUNNING_SHARE * (min(norm, largest) - before)
        return largest

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs."""
        return {"running_norm": self.running_norm}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.running_norm = state["running_norm"]
