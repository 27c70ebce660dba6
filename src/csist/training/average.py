"""Averages of the weights, which score better than the last weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class AveragedWeights:
    """Exponential moving average of the parameters, warmed up so that early weights are forgotten.

    After update n the decay is min(`decay`, (1 + n) / (10 + n)). Weights between those that a training started from
    and its own last ones score better than both where the start was a trained network (Wortsman et al., CVPR 2022).

    Args:
        module: whose parameters are averaged.
        decay: share of the old average that is kept at each update.
        start_share: share of the parameters as they are now in those that are applied.
    """

    def __init__(self, module: nn.Module, decay: float, start_share: float = 0.0) -> None:
        self.parameters = list(module.parameters())
        self.start = [parameter.detach().clone() for parameter in self.parameters]
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.decay = decay
        self.start_share = start_share
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
            self.start = [start.to(self.parameters[0].device) for start in self.start]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averages, with their share of the start, stand in for the parameters inside this context."""
        self._to_device()
        kept = [parameter.detach().clone() for parameter in self.parameters]
        with torch.no_grad():
            for parameter, average, start in zip(self.parameters, self.average, self.start, strict=True):
                parameter.copy_(torch.lerp(average, start, self.start_share))
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
