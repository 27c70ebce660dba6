"""Averages of the weights, which score better than the last weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class AveragedWeights:
    """Exponential moving average of the parameters, warmed up so that early weights are forgotten.

    After update n the decay is min(`decay`, (1 + n) / (10 + n)).

    Args:
        module: whose parameters are averaged.
        decay: share of the old average that is kept at each update.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.parameters = list(module.parameters())
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are now."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self._to_device()
        torch._foreach_lerp_(self.average, list(self.parameters), 1.0 - decay)

    def _to_device(self) -> None:
        if self.average and self.average[0].device != self.parameters[0].device:
            self.average = [average.to(self.parameters[0].device) for average in self.average]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averages stand in for the parameters inside this context."""
        self._to_device()
        kept = [parameter.detach().clone() for parameter in self.parameters]
        with torch.no_grad():
            for parameter, average in zip(self.parameters, self.average, strict=True):
                parameter.copy_(average)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, old in zip(self.parameters, kept, strict=True):
                    parameter.copy_(old)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs."""
        return {"average": self.average, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.updates = state["updates"]
        for average, saved in zip(self.average, state["average"], strict=True):
            average.copy_(saved)
