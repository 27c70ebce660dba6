"""ISTA-Net and ISTA-Net+: ISTA with a learned transform in place of the fixed sparsity of the map.

Zhang & Ghanem, "ISTA-Net: Interpretable Optimization-Inspired Deep Network for Image Compressive Sensing",
CVPR 2018 (arXiv 1706.07929). A stage takes the gradient step of eq. 6, r = s - rho G^T (G s - z), and the
proximal step of eq. 8, s = F~(soft(F(r), theta)); ISTA-Net+ predicts the residual instead (eq. 13),
s = r + G(F~(soft(F(D(r)), theta))). The symmetry constraint F~(F(r)) = r (ISTA-Net+: = D(r)) is in the loss.

Differs from the authors' code: G is applied as a separable operator, never as the product G^T G; images are
scaled so that a target is about 1; the trained step starts at 1/L instead of 0.5, which on this operator
(L = 8.6 at ratio 3) would let an untrained ISTA-Net+ amplify its input a hundredfold; an untrained stage is the plain
gradient step (see `identity`), not a random transform of it, unless `start="xavier"`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from csist.methods.crop import Crop
from csist.methods.identity import check_start, pass_through
from csist.methods.layers import (
    StagedMethod,
    convolution,
    gradient_step,
    soft_threshold,
    to_map,
    with_constrained,
)
from csist.methods.operator import SteeringOperator
from csist.methods.published import check_stages, laid, matched, stages_in
from csist.physics.sensor import Sensor

CHANNELS = 32
INITIAL_THRESHOLD = 0.01

PUBLISHED_KEYS = {
    "lambda_step": "step",
    "soft_thr": "threshold",
    "conv_D": "lift.weight",
    "conv1_forward": "forward_first.weight",
    "conv2_forward": "forward_second.weight",
    "conv1_backward": "backward_first.weight",
    "conv2_backward": "backward_second.weight",
    "conv_G": "drop.weight",
}
"""Names within a stage `fcs.N` of the benchmark's weight files, and ours within `stages.N`."""


class ISTANetStage(nn.Module):
    """One iteration.

    Args:
        residual: ISTA-Net+: transforms work on `CHANNELS` channels and predict a correction of r.
        step: rho before training.
    """

    def __init__(self, residual: bool, step: float) -> None:
        super().__init__()
        inner = CHANNELS if residual else 1
        self.step = nn.Parameter(torch.tensor(step))
        self.threshold = nn.Parameter(torch.tensor(INITIAL_THRESHOLD))
        self.lift = convolution(1, CHANNELS) if residual else nn.Identity()
        self.forward_first = convolution(inner, CHANNELS)
        self.forward_second = convolution(CHANNELS, CHANNELS)
        self.backward_first = convolution(CHANNELS, CHANNELS)
        self.backward_second = convolution(CHANNELS, inner)
        self.drop = convolution(CHANNELS, 1) if residual else None

    @torch.no_grad()
    def start_as_identity(self) -> None:
        """Make this stage the plain gradient step: a transform that its mirror undoes, or no correction at all."""
        if self.drop is not None:
            self.drop.weight.zero_()
            return
        pass_through((self.forward_first, self.forward_second), (self.backward_first, self.backward_second))
        self.threshold.zero_()

    def forward(
        self, cells: Tensor, image: Tensor, operator: SteeringOperator, constrained: int
    ) -> tuple[Tensor, Tensor | None]:
        """The next map, and the residual of the symmetry for the first `constrained` samples."""
        stepped = gradient_step(operator, cells, image, self.step)
        lifted = self.lift(stepped)
        features = self.forward_second(functional.relu(self.forward_first(lifted)))
        both = with_constrained(features, soft_threshold(features, self.threshold), constrained)
        hidden = functional.relu(self.backward_first(both))
        back = to_map(self.backward_second, hidden) if self.drop is None else self.backward_second(hidden)
        symmetry = back[cells.shape[0] :] - lifted[:constrained] if constrained else None
        found = back[: cells.shape[0]]
        return (found if self.drop is None else stepped + to_map(self.drop, found)), symmetry


class ISTANet(StagedMethod):
    """ISTA-Net: 171,090 parameters with 9 stages, whatever the ratio.

    Args:
        sensor: the sensor whose images are unmixed.
        ratio: sub-pixel grid ratio.
        stages: number of iterations.
        initial_step: rho before training; None for 1/L, the published code has 0.5.
        start: weights before training: "identity", with which the untrained network is plain gradient descent, or
            "xavier", random ones as published.

    Raises:
        InputError: if `start` is unknown.
    """

    residual: ClassVar[bool] = False

    def __init__(
        self,
        sensor: Sensor,
        ratio: int,
        stages: int = 9,
        initial_step: float | None = None,
        start: str = "identity",
    ) -> None:
        check_start(start)
        super().__init__(sensor, ratio)
        step = 1.0 / self.operator.lipschitz if initial_step is None else initial_step
        stages_made = [ISTANetStage(self.residual, step) for _ in range(stages)]
        if start == "identity":
            for stage in stages_made:
                stage.start_as_identity()
        self.stages = nn.ModuleList(stages_made)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def unfold(self, image: Tensor, constrained: int, crop: Crop | None = None) -> tuple[Tensor, list[Tensor]]:
        """The map and the residuals of the symmetry, one per stage."""
        cells, image, operator = self.begin(image, crop)
        residuals = []
        for stage in self.working_stages():
            cells, residual = stage(cells, image, operator, constrained)
            if residual is not None:
                residuals.append(residual)
        return cells, residuals

    @staticmethod
    def published_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Options with which a network takes these tensors, if they have the authors' names; else none."""
        stages = stages_in(state)
        return {"stages": stages} if stages else {}

    def translate_published(self, state: Mapping[str, Tensor], transposed: bool = False) -> dict[str, Tensor]:
        """This network's state from the benchmark's (keys `fcs.0.lambda_step` and so on), which sees counts.

        The network has no bias: scaling its input scales its map, if the threshold is scaled too.

        Args:
            state: tensors of their file; it holds no Q, so the present one is kept.
            transposed: whether their maps were indexed [x, y], see `DISTANet.translate_published`.

        Raises:
            InputError: if the keys are not theirs, or the number of stages differs.
        """
        names = [key for key in PUBLISHED_KEYS if self.residual or key not in ("conv_D", "conv_G")]
        translated = {"start": self.start}
        network = "ISTA-Net+" if self.residual else "ISTA-Net"
        for match, value in matched(state, rf"fcs\.(\d+)\.({'|'.join(names)})", network):
            _, stage, name = match.groups()
            tensor = laid(value, transposed)
            translated[f"stages.{stage}.{PUBLISHED_KEYS[name]}"] = (
                tensor / self.input_scale if name == "soft_thr" else tensor
            )
        check_stages(stages_in(state), len(self.stages))
        return translated


class ISTANetPlus(ISTANet):
    """ISTA-Net+: 336,978 parameters with 9 stages, whatever the ratio.

    Args:
        sensor: the sensor whose images are unmixed.
        ratio: sub-pixel grid ratio.
        stages: number of iterations; default 9 up to ratio 3, 6 above.
        initial_step: rho before training; None for 1/L, the published code has 0.5.
        start: as of `ISTANet`; the correction of an identity starts at zero.

    Raises:
        InputError: if `start` is unknown.
    """

    residual = True

    def __init__(
        self,
        sensor: Sensor,
        ratio: int,
        stages: int | None = None,
        initial_step: float | None = None,
        start: str = "identity",
    ) -> None:
        super().__init__(sensor, ratio, (9 if ratio <= 3 else 6) if stages is None else stages, initial_step, start)
