"""Parts that the unfolded networks share: thresholds, the linear start, the stages' common steps.

Maps and images are (B, 1, rows, columns) tensors. Inside a network both are divided by one fixed scale, so
that a target is about 1; what comes in and goes out is in counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from csist._types import FloatArray
from csist.grid import SubPixelGrid, encode_arrays, least_squares_start
from csist.methods.base import GridMethod
from csist.methods.crop import Crop, with_dark
from csist.methods.operator import SteeringOperator
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, simulate

INPUT_SCALE = 235.0
"""Counts that the networks see as 1: the middle of the benchmark's intensities."""

START_PAIRS = 4000
"""Fewest training pairs behind the linear start; 16 a pixel where that is more."""

START_SEED = 20_250_519


def soft_threshold(values: Tensor, threshold: Tensor | float) -> Tensor:
    """sign(v) max(|v| - t, 0), element by element; a negative threshold enlarges."""
    return torch.sign(values) * torch.relu(values.abs() - threshold)


_start_wanted: ContextVar[bool] = ContextVar("_start_wanted", default=True)


@contextmanager
def without_start() -> Iterator[None]:
    """Networks built in this context get a zero start: for those whose state is loaded next."""
    token = _start_wanted.set(False)
    try:
        yield
    finally:
        _start_wanted.reset(token)


@lru_cache(maxsize=8)
def _start_matrix(card: str, ratio: int) -> FloatArray:
    sensor = Sensor.from_card(json.loads(card))
    grid = SubPixelGrid(sensor.shape, ratio)
    n = max(START_PAIRS, 16 * sensor.shape[0] * sensor.shape[1])
    images, targets = simulate(ScenePrior.csist_100k(), sensor, n, np.random.default_rng(START_SEED))
    return least_squares_start(images - sensor.background, encode_arrays(grid, targets).astype(np.float64))


def start_matrix(sensor: Sensor, ratio: int) -> FloatArray:
    """Q (cells, pixels) of this sensor, from benchmark scenes with a fixed seed; zeros in `without_start`."""
    if not _start_wanted.get():
        grid = SubPixelGrid(sensor.shape, ratio)
        return np.zeros((int(np.prod(grid.map_shape)), int(np.prod(grid.shape))))
    return _start_matrix(json.dumps(sensor.to_card()), ratio)


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """No automatic half precision inside: for sums where targets nearly cancel."""
    if torch.is_autocast_enabled(device_type):
        with torch.autocast(device_type, enabled=False):
            yield
    else:
        yield


class UnfoldedMethod(GridMethod):
    """Base of the unfolded networks: scaling, the linear start, and the constraint terms of the loss.

    A subclass implements `unfold`, on scaled images and maps.

    Args:
        sensor: the sensor whose images are unmixed.
        ratio: sub-pixel grid ratio.
        input_scale: counts that the network sees as 1.
    """

    start: Tensor

    small_options: ClassVar[dict[str, Any]] = {"stages": 2}
    """Options of a small version, for quick tests."""
    constraint_weight: ClassVar[float] = 0.01
    """Weight of the sum of the mean squared residuals in the published loss."""
    learning_rate: ClassVar[float] = 1.5e-3
    optimiser: ClassVar[str] = "muon"
    gradient_clip: ClassVar[str | float] = "running"

    def __init__(self, sensor: Sensor, ratio: int, input_scale: float = INPUT_SCALE) -> None:
        super().__init__(sensor, ratio)
        self.input_scale = input_scale
        self.operator = SteeringOperator(sensor, ratio)
        start = torch.as_tensor(start_matrix(sensor, ratio), dtype=torch.float32)
        self.register_buffer("start", start.contiguous())

    def linear_start(self, image: Tensor) -> Tensor:
        """s0 = Q z, (B, 1, cH, cW)."""
        with full_precision(image.device.type):
            return (image.flatten(1) @ self.start.T).view(-1, 1, *self.grid.map_shape)

    def unfold(self, image: Tensor, constrained: int, crop: Crop | None = None) -> tuple[Tensor, list[Tensor]]:
        """The map, and each stage's residual of its constraint for the first `constrained` samples.

        Args:
            image: (B, 1, H, W), scaled.
            constrained: 0 asks for no residuals: the list is then empty.
            crop: where given, only these windows of the map are computed; a dark one comes first, and is one of the
                constrained ones.
        """
        raise NotImplementedError

    def begin(self, image: Tensor, crop: Crop | None) -> tuple[Tensor, Tensor, SteeringOperator]:
        """The start s0, the measurement z and the operator G of an unfolding: of whole images, or of windows.

        Of windows, a dark one comes first.
        """
        cells = self.linear_start(image)
        if crop is None:
            return cells, image, self.operator
        return with_dark(crop.map(cells)), with_dark(crop.image(image)), crop.operator

    def _scaled(self, image: Tensor) -> Tensor:
        return (image - self.sensor.background) / self.input_scale

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 1, cH, cW) of intensities in counts from images (B, 1, H, W) in counts."""
        return self.unfold(self._scaled(image), 0)[0] * self.input_scale

    def forward_with_residuals(
        self, image: Tensor, share: float = 1.0, crop: Crop | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The map and the residuals that the published loss punishes, in counts; for training.

        Args:
            image: (B, 1, H, W) in counts.
            crop: where given, both are of these windows only.
            share: part of the batch, its first samples, whose residuals are computed. The mean over a part is
                an unbiased estimate of the mean over the batch and costs less.
        """
        count = min(len(image), max(1, round(share * len(image))))
        first = 0 if crop is None else 1  # the dark window teaches nothing by itself
        cells, residuals = self.unfold(self._scaled(image), count + first, crop)
        cells, residuals = cells[first:], [residual[first:] for residual in residuals]
        return cells * self.input_scale, [residual * self.input_scale for residual in residuals]

    def loss_terms(
        self, image: Tensor, truth: Tensor, share: float = 1.0, crop: Crop | None = None
    ) -> tuple[Tensor, Tensor]:
        """(discrepancy, constraint) in counts^2, mean (s_N - s)^2 and 0.01 sum_k mean (F~(F(r_k)) - r_k)^2.

        Arguments are those of `GridMethod.loss_terms`.

        Source: Zhang & Ghanem, ISTA-Net, CVPR 2018, eq. 11-12.
        """
        part = 1.0 if crop is None else crop.part
        found, residuals = self.forward_with_residuals(image, share, crop)
        constraint = sum(((residual**2).mean() for residual in residuals), image.new_zeros(()))
        discrepancy = ((found - (truth if crop is None else crop.map(truth))) ** 2).mean()
        return part * discrepancy, part * self.constraint_weight * constraint


class StagedMethod(UnfoldedMethod):
    """Base of the unfolded networks whose stages are modules, `stages`, so that training can begin with the first ones.

    Args:
        sensor: the sensor whose images are unmixed.
        ratio: sub-pixel grid ratio.
        input_scale: counts that the network sees as 1.
    """

    stages: nn.ModuleList

    def __init__(self, sensor: Sensor, ratio: int, input_scale: float = INPUT_SCALE) -> None:
        super().__init__(sensor, ratio, input_scale)
        self.active_stages: int | None = None
        """Stages that are computed, the first ones; None for all."""

    def working_stages(self) -> list[Any]:
        """The stages that are computed."""
        return list(self.stages)[: self.active_stages]

    @torch.no_grad()
    def hold_back(self, count: int) -> None:
        """Turn the untrained stages behind the first `count` ones into the identity: their gradient step becomes 0.

        For stages that start as the identity: with them the network then gives the same map as without.
        """
        for stage in list(self.stages)[count:]:
            nn.init.zeros_(stage.get_parameter("step"))


def convolution(inputs: int, outputs: int, bias: bool = False) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps the size, Xavier-normal weights, zero bias."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
    nn.init.xavier_normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def gradient_step(
    operator: SteeringOperator, cells: Tensor, image: Tensor, step: Tensor, crop: Crop | None = None
) -> Tensor:
    """The map after a gradient step, r = s - rho G^T (G s - z), in full precision."""
    with full_precision(image.device.type):
        if crop is None:
            return cells - step * operator.adjoint(operator(cells) - image)
        dark = cells[:1]  # the same beside the window, which the operator of the window takes for zero
        return cells - step * (operator.adjoint(operator(cells - dark) - image) + dark * crop.flat_response)


def convolve(layer: nn.Conv2d, features: Tensor, crop: Crop | None) -> Tensor:
    """What a 3 x 3 convolution gives for whole images, with zeros around, or for windows, with what is beside them."""
    if crop is None:
        whole: Tensor = layer(features)
        return whole
    return functional.conv2d(crop.surround(features), layer.weight, layer.bias, groups=layer.groups)


def to_map(layer: nn.Conv2d, features: Tensor, crop: Crop | None = None) -> Tensor:
    """The last convolution of a stage, from features to a map, in full precision."""
    with full_precision(features.device.type):
        return convolve(layer, features.to(layer.weight.dtype), crop)


def with_constrained(values: Tensor, shrunk: Tensor, constrained: int) -> Tensor:
    """`shrunk`, and below it the first `constrained` of `values`: one pass through the layers for both."""
    return torch.cat([shrunk, values[:constrained]]) if constrained else shrunk
