"""Dense unfolded networks: LISTA, LIHT, LAMP and TiLISTA. Each layer has its own matrices and thresholds.

LISTA: Gregor & LeCun, "Learning fast approximations of sparse coding", ICML 2010:
s <- soft(W s + B z, theta).
LIHT: Wang, Ling & Huang, "Learning deep l0 encoders", AAAI 2016 (arXiv 1509.00153): the same with a hard
threshold.
LAMP: Borgerding, Schniter & Rangan, "AMP-inspired deep networks for sparse linear inverse problems", IEEE TSP
2017 (arXiv 1612.01183): v <- z - G s + (|s|_0 / M) v, s <- soft(s + B v, lambda rms(v)).
TiLISTA: Liu, Chen, Wang & Yin, "ALISTA: Analytic weights are as good as learned weights in LISTA", ICLR 2019,
with the support selection of Chen et al., NeurIPS 2018 (arXiv 1808.10038):
s <- shrink(s + a W (z - G s), theta), where the largest values pass unshrunk.

Differences from the benchmark's code: images are scaled so that a target is about 1. LIHT uses the continuous threshold
of the paper (HELU), because a step function gives its thresholds no gradient, and its W starts at I - Q G like that of
LISTA; from the identity, the map would grow by Q z with every layer. As in the benchmark's code, TiLISTA has one W per
layer, while the paper shares one.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from csist.checks import InputError
from csist.methods.crop import Crop
from csist.methods.layers import UnfoldedMethod, soft_threshold
from csist.physics.sensor import Sensor

BATCH = 256
"""Batch size: a layer reads its matrix once per batch."""

LAYERS = 16
INITIAL_PENALTY = 0.4
"""Initial lambda in counts: soft thresholds start at lambda / L, hard ones at its square root, LAMP's factor at 0.4."""
HELU_RAMP = 0.3
SUPPORT_PER_LAYER = 0.012
SUPPORT_LIMIT = 0.13


def hard_threshold(values: Tensor, threshold: Tensor, ramp: float = HELU_RAMP) -> Tensor:
    """Apply a continuous hard threshold: v where |v| >= t, 0 where |v| <= (1 - ramp) t, linear between.

    Source: Wang, Ling & Huang, AAAI 2016, eq. 6 (HELU).
    """
    threshold = threshold.clamp(min=1e-6)
    size = values.abs()
    opened = ((size / threshold - (1.0 - ramp)) / ramp).clamp(0.0, 1.0)
    return torch.where(size >= threshold, values, torch.sign(values) * threshold * opened)


def select_and_shrink(values: Tensor, threshold: Tensor, count: int) -> Tensor:
    """Apply a soft threshold that leaves the `count` largest values of each row unshrunk if above the threshold."""
    size = values.abs()
    least = size.topk(count, dim=1).values[:, -1:]
    passed = (size > threshold) & (size >= least)
    return torch.where(passed, values, soft_threshold(values, threshold))


class _DenseMethod(UnfoldedMethod):
    """Base class: networks on vectors instead of maps, with a threshold for each cell of each layer.

    Args:
        sensor: sensor of the images.
        ratio: sub-pixel grid ratio.
        layers: number of layers.
    """

    small_options: ClassVar[dict[str, Any]] = {"layers": 2}
    learning_rate: ClassVar[float] = 1e-4
    """Peak learning rate suited to these networks."""
    optimiser: ClassVar[str] = "adam"
    gradient_clip: ClassVar[str | float] = "none"

    def __init__(self, sensor: Sensor, ratio: int, layers: int = LAYERS) -> None:
        super().__init__(sensor, ratio)
        self.batch_size = BATCH
        self.layers = layers
        self.cells, self.pixels = int(np.prod(self.grid.map_shape)), int(np.prod(self.grid.shape))
        self.thresholds = self._layers(torch.full((self.cells,), self._initial_threshold()))

    def _initial_threshold(self) -> float:
        return INITIAL_PENALTY / self.operator.lipschitz / self.input_scale

    def _layers(self, value: Tensor) -> nn.ParameterList:
        """Return one parameter per layer with the same initial value."""
        return nn.ParameterList(nn.Parameter(value.clone()) for _ in range(self.layers))

    def _residual(self, image: Tensor, vector: Tensor) -> Tensor:
        """Return the residual z - G s, (B, pixels)."""
        explained: Tensor = self.operator(vector.view(-1, 1, *self.grid.map_shape))
        return (image - explained).flatten(1)

    def unfold(self, image: Tensor, constrained: int, crop: Crop | None = None) -> tuple[Tensor, list[Tensor]]:
        """Compute the map; these networks have no constraint, and their matrices fit whole images only.

        Raises:
            InputError: if `crop` is given.
        """
        if crop is not None:
            raise InputError(f"{type(self).__name__} cannot be trained on windows: its matrices fit whole images only")
        return self._iterate(image, image.flatten(1) @ self.start.T).view(-1, 1, *self.grid.map_shape), []

    def _iterate(self, image: Tensor, vector: Tensor) -> Tensor:
        raise NotImplementedError


class LISTA(_DenseMethod):
    """Learned ISTA: 21,100,464 parameters at ratio 3 on 11 x 11 px with 16 layers.

    Takes sensor, ratio and layers.
    """

    def __init__(self, sensor: Sensor, ratio: int, layers: int = LAYERS) -> None:
        super().__init__(sensor, ratio, layers)
        self.inputs = self._layers(self.start)
        self.mixers = self._layers(torch.eye(self.cells) - self.start @ self.operator.dense())

    def _shrink(self, values: Tensor, threshold: Tensor) -> Tensor:
        return soft_threshold(values, threshold.clamp(min=0.0))

    def _iterate(self, image: Tensor, vector: Tensor) -> Tensor:
        z = image.flatten(1)
        for mixer, inputs, threshold in zip(self.mixers, self.inputs, self.thresholds, strict=True):
            vector = self._shrink(torch.addmm(z @ inputs.T, vector, mixer.T), threshold)
        return vector


class LIHT(LISTA):
    """Learned iterative hard thresholding: 21,100,464 parameters, like LISTA.

    Takes sensor, ratio and layers.
    """

    def _initial_threshold(self) -> float:
        return math.sqrt(INITIAL_PENALTY) / self.input_scale

    def _shrink(self, values: Tensor, threshold: Tensor) -> Tensor:
        return hard_threshold(values, threshold)


class LAMP(_DenseMethod):
    """Learned approximate message passing: 2,125,728 parameters at ratio 3 on 11 x 11 px with 16 layers.

    Takes sensor, ratio and layers.
    """

    def __init__(self, sensor: Sensor, ratio: int, layers: int = LAYERS) -> None:
        super().__init__(sensor, ratio, layers)
        self.inputs = self._layers(self.operator.dense().T / self.operator.lipschitz)

    def _initial_threshold(self) -> float:
        return INITIAL_PENALTY

    def _iterate(self, image: Tensor, vector: Tensor) -> Tensor:
        onsager = torch.zeros_like(image.flatten(1))
        for inputs, factor in zip(self.inputs, self.thresholds, strict=True):
            active = (vector != 0).to(vector).sum(1, keepdim=True) / self.pixels
            onsager = self._residual(image, vector) + active * onsager
            # The square root has no gradient at a zero residual; the floor is far below one count.
            rms = (onsager.square().mean(1, keepdim=True) + 1e-12).sqrt()
            vector = soft_threshold(vector + onsager @ inputs.T, rms * factor.clamp(min=0.0))
        return vector


class TiLISTA(_DenseMethod):
    """Tied LISTA with support selection: 2,125,744 parameters at ratio 3 on 11 x 11 px with 16 layers.

    Takes sensor, ratio and layers.
    """

    def __init__(self, sensor: Sensor, ratio: int, layers: int = LAYERS) -> None:
        super().__init__(sensor, ratio, layers)
        self.weights = self._layers(self.start)
        self.gains = self._layers(torch.tensor(1.0))

    def _iterate(self, image: Tensor, vector: Tensor) -> Tensor:
        for layer, (weight, gain, threshold) in enumerate(zip(self.weights, self.gains, self.thresholds, strict=True)):
            stepped = vector + gain * (self._residual(image, vector) @ weight.T)
            share = min((layer + 1) * SUPPORT_PER_LAYER, SUPPORT_LIMIT)
            vector = select_and_shrink(stepped, threshold.clamp(min=0.0), max(1, round(share * self.cells)))
        return vector
