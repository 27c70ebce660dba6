"""FISTA-Net: FISTA with a learned transform that all iterations share.

Xiang, Dong & Yang, "FISTA-Net: Learning a Fast Iterative Shrinkage Thresholding Network for Inverse Problems
in Imaging", IEEE TMI 40(5), 2021 (arXiv 2008.02683): gradient step from the point ahead, proximal step
s = relu(r + G(F~(soft(F(D(r)), theta)))), momentum. Step, threshold and momentum of iteration k follow from
two scalars each: mu_k = sp(w k + b), theta_k = sp(w k + b), rho_k = (sp(w k + b) - sp(b)) / sp(w k + b), sp
the softplus.

Differs from the authors' code: G is applied as a separable operator, never as the product G^T G; images are
scaled so that a target is about 1. An untrained iteration is FISTA's own, without a correction by the learned
transform and with the step 1/L in all of them; `start="xavier"` gives the published random weights and steps (0.74 in
the first iteration where 2/L = 0.23 is the most that converges). Four convolutions that the benchmark's release builds
and never calls exist only with `published_code=True`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from csist.checks import InputError
from csist.methods.crop import Crop
from csist.methods.identity import check_start
from csist.methods.layers import (
    INPUT_SCALE,
    UnfoldedMethod,
    convolution,
    convolve,
    gradient_step,
    soft_threshold,
    to_map,
    with_constrained,
)
from csist.methods.published import check_stages, laid, matched, stages_in
from csist.physics.sensor import Sensor

CHANNELS = 32
INITIAL_STEP = (-0.2, 0.1)
INITIAL_THRESHOLD = (-0.5, -2.0)
INITIAL_MOMENTUM = (0.5, 0.0)
UNUSED_CONVOLUTIONS = 4

PUBLISHED_CONVOLUTIONS = {
    "conv_D": "lift",
    "conv1_forward": "forward_first",
    "conv4_forward": "forward_second",
    "conv1_backward": "backward_first",
    "conv4_backward": "backward_second",
    "conv_G": "drop",
    "conv2_forward": "unused.0",
    "conv3_forward": "unused.1",
    "conv2_backward": "unused.2",
    "conv3_backward": "unused.3",
}
"""Convolutions of the benchmark's weight files, which stand there once as `bb` and once for each stage, and ours."""

PUBLISHED_SCALARS = {"w": "slope", "b": "offset", "mu": "step", "theta": "threshold", "rho": "momentum"}
PUBLISHED_NAME = rf"(?:bb|fcs\.\d+)\.({'|'.join(PUBLISHED_CONVOLUTIONS)})\.(weight|bias)|(w|b)_(mu|theta|rho)"


class FISTANet(UnfoldedMethod):
    """FISTA-Net: 37,607 parameters, whatever the ratio and the number of stages.

    Args:
        sensor: the sensor whose images are unmixed.
        ratio: sub-pixel grid ratio.
        stages: number of iterations.
        published_code: the released form, for the authors' weight files: counts are not scaled, and the release's four
            unused convolutions are held, too (74,599 parameters).
        start: weights before training: "identity", with which the untrained network is plain FISTA of non-negative
            maps, or "xavier", random ones and steps as published.

    Raises:
        InputError: if `start` is unknown.
    """

    small_options: ClassVar[dict[str, Any]] = {"stages": 3}
    """Options of a small version, for quick tests; the momentum of two stages is never used."""

    def __init__(
        self, sensor: Sensor, ratio: int, stages: int = 7, published_code: bool = False, start: str = "identity"
    ) -> None:
        check_start(start)
        super().__init__(sensor, ratio, 1.0 if published_code else INPUT_SCALE)
        self.stages = stages
        self.published_code = published_code
        self.lift = convolution(1, CHANNELS, bias=True)
        self.forward_first = convolution(CHANNELS, CHANNELS, bias=True)
        self.forward_second = convolution(CHANNELS, CHANNELS, bias=True)
        self.backward_first = convolution(CHANNELS, CHANNELS, bias=True)
        self.backward_second = convolution(CHANNELS, CHANNELS, bias=True)
        self.drop = convolution(CHANNELS, 1, bias=True)
        if published_code:
            self.unused = nn.ModuleList(convolution(CHANNELS, CHANNELS, bias=True) for _ in range(UNUSED_CONVOLUTIONS))
        for name, (slope, offset) in (
            ("step", INITIAL_STEP),
            ("threshold", INITIAL_THRESHOLD),
            ("momentum", INITIAL_MOMENTUM),
        ):
            self.register_parameter(f"{name}_slope", nn.Parameter(torch.tensor(slope)))
            self.register_parameter(f"{name}_offset", nn.Parameter(torch.tensor(offset)))
        if start == "identity":
            self.start_as_identity()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def start_as_identity(self) -> None:
        """Make every iteration FISTA's own, without a correction, with the step 1/L."""
        nn.init.zeros_(self.drop.weight)
        nn.init.zeros_(self.drop.bias)  # type: ignore[arg-type]
        self.get_parameter("step_slope").zero_()
        self.get_parameter("step_offset").fill_(math.log(math.expm1(1.0 / self.operator.lipschitz)))

    def _at(self, name: str, stage: int) -> Tensor:
        """softplus(slope k + offset)."""
        slope, offset = self.get_parameter(f"{name}_slope"), self.get_parameter(f"{name}_offset")
        return functional.softplus(slope * stage + offset)

    def unfold(self, image: Tensor, constrained: int, crop: Crop | None = None) -> tuple[Tensor, list[Tensor]]:
        """The map and the residuals of the symmetry, one per stage."""
        cells, image, operator = self.begin(image, crop)
        ahead = cells
        residuals = []
        for stage in range(self.stages):
            stepped = gradient_step(operator, ahead, image, self._at("step", stage), crop)
            lifted = convolve(self.lift, stepped, crop)
            features = convolve(self.forward_second, functional.relu(convolve(self.forward_first, lifted, crop)), crop)
            shrunk = soft_threshold(features, self._at("threshold", stage))
            both = with_constrained(features, shrunk, constrained)
            back = convolve(self.backward_second, functional.relu(convolve(self.backward_first, both, crop)), crop)
            if constrained:
                residuals.append(back[image.shape[0] :] - lifted[:constrained])
            before, cells = cells, functional.relu(stepped + to_map(self.drop, back[: image.shape[0]], crop))
            weight = 1.0 - self._at("momentum", 0) / self._at("momentum", stage)
            ahead = cells + weight * (cells - before)
        return cells, residuals

    @staticmethod
    def published_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Options with which a network takes these tensors, if they have the authors' names; else none."""
        stages = stages_in(state)
        return {"published_code": True, "stages": stages} if stages else {}

    def translate_published(self, state: Mapping[str, Tensor], transposed: bool = False) -> dict[str, Tensor]:
        """This network's state from the benchmark's (keys `bb.conv_D.weight`, `w_mu` and so on).

        Args:
            state: tensors of their file; it holds no Q, so the present one is kept.
            transposed: whether their maps were indexed [x, y], see `DISTANet.translate_published`.

        Raises:
            InputError: if the keys are not theirs, this network is not built as theirs, its number of iterations
                differs, or the iterations do not share their convolutions.
        """
        translated = {"start": self.start}
        for match, value in matched(state, PUBLISHED_NAME, "FISTA-Net"):
            _, convolution_name, kind, scalar, of = match.groups()
            if scalar is None:
                name = f"{PUBLISHED_CONVOLUTIONS[convolution_name]}.{kind}"
            else:
                name = f"{PUBLISHED_SCALARS[of]}_{PUBLISHED_SCALARS[scalar]}"
            # A bias of one number stays a vector.
            tensor = value if kind == "bias" else laid(value, transposed)
            if name in translated and not torch.equal(translated[name], tensor):
                raise InputError(f"the iterations of these weights differ in {convolution_name}, FISTA-Net's share it")
            translated[name] = tensor
        if not self.published_code:
            raise InputError(
                "these are the authors' weights, which take counts: build the method with published_code=True"
            )
        check_stages(stages_in(state), self.stages)
        return translated
