"""DISTA-Net: ISTA-Net whose transform and threshold follow each sample.

Han et al., "DISTA-Net: Dynamic Closely-Spaced Infrared Small Target Unmixing", ICCV 2025 (arXiv 2505.19148).
A stage takes the gradient step r = s - rho G^T (G s - z), then the dynamic transform: features of r, mixed
with the response of r to a 3 x 3 kernel that two linear layers make from the last map. The dynamic threshold
module answers with a threshold for every feature; a mirrored pair of convolutions goes back to a map.

Differs from the authors' code: there, the kernels of a batch are applied across samples (kernel j acts on
channel j of every sample, so that only batches of 1 or 64 run) and are cut off from the gradient, which
leaves 77 % of the weights untrained. Here each sample has its own kernel, as the paper writes it, one sample
gets the same answer in every batch, and all weights learn. There, images are not scaled and the trained step
starts at 0.5; here it starts at 1/L (L = 8.6 at ratio 3), with which the loss after 100 steps is a quarter
lower. There, all weights start random; here, an untrained stage is the plain gradient step (see `identity`), from which
training takes a fraction of the samples. `published_code=True` gives the released form, `start="xavier"` their weights
before training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from csist.checks import InputError
from csist.methods.crop import Crop
from csist.methods.identity import check_start, pass_through
from csist.methods.layers import (
    INPUT_SCALE,
    StagedMethod,
    convolution,
    convolve,
    gradient_step,
    soft_threshold,
    to_map,
    with_constrained,
)
from csist.methods.operator import SteeringOperator
from csist.methods.published import check_stages, laid, matched, stages_in
from csist.physics.sensor import Sensor

CHANNELS = 64
HIDDEN = 256
PUBLISHED_STEP = 0.5
INITIAL_THRESHOLD = 0.01

PUBLISHED_KEYS = {
    "lambda_step": "step",
    "conv1_forward": "forward_first.weight",
    "conv2_forward": "forward_second.weight",
    "conv1_backward": "backward_first.weight",
    "conv2_backward": "backward_second.weight",
    "w1.weight": "kernel_maker.0.weight",
    "w1.bias": "kernel_maker.0.bias",
    "w2.weight": "kernel_maker.1.weight",
    "w2.bias": "kernel_maker.1.bias",
    "att.convl.weight": "threshold.spread.weight",
    "att.convl.bias": "threshold.spread.bias",
    "att.conv0_s.weight": "threshold.near.weight",
    "att.conv0_s.bias": "threshold.near.bias",
    "att.conv1_s.weight": "threshold.far.weight",
    "att.conv1_s.bias": "threshold.far.bias",
    "att.conv_squeeze.weight": "threshold.select.weight",
    "att.conv_squeeze.bias": "threshold.select.bias",
    "att.conv_m.weight": "threshold.expand.weight",
    "att.conv_m.bias": "threshold.expand.bias",
}
"""Names within a stage `fcs.N` of the authors' weight files, and ours within `stages.N`."""

PUBLISHED_NAME = r"fcs\.(\d+)\.(" + "|".join(map(re.escape, PUBLISHED_KEYS)) + ")"


class DynamicThreshold(nn.Module):
    """A threshold for every feature, from two scales of the features themselves: x times a learned mask of x.

    The threshold has the sign of x times that of the mask, so it can be negative and then enlarges.

    Args:
        channels: number of features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.near = nn.Conv2d(channels, channels // 2, 1)
        self.far = nn.Conv2d(channels, channels // 2, 1)
        self.select = nn.Conv2d(2, 2, 3, padding=1)
        self.expand = nn.Conv2d(channels // 2, channels, 1)

    def forward(self, features: Tensor, crop: Crop | None = None) -> Tensor:
        """Thresholds, shaped like the features (B, C, rows, columns)."""
        near, far = self.near(features), self.far(convolve(self.spread, features, crop))
        mean = (near.sum(1, keepdim=True) + far.sum(1, keepdim=True)) / features.shape[1]
        most = torch.maximum(near.amax(1, keepdim=True), far.amax(1, keepdim=True))
        masks = convolve(self.select, torch.cat([mean, most], 1), crop).sigmoid()
        mask: Tensor = self.expand(near * masks[:, :1] + far * masks[:, 1:])
        return features * mask


def convolve_each(cells: Tensor, kernels: Tensor, crop: Crop | None = None) -> Tensor:
    """Each map (B, 1, rows, columns) correlated with its own 3 x 3 kernel (B, 3, 3), as by `convolve`."""
    rows, columns = cells.shape[-2:]
    padded = functional.pad(cells, (1, 1, 1, 1)) if crop is None else crop.surround(cells)
    taps = [
        padded[..., i : i + rows, j : j + columns] * kernels[:, i, j, None, None, None]
        for i in range(3)
        for j in range(3)
    ]
    return sum(taps[1:], taps[0])


class DISTANetStage(nn.Module):
    """One iteration.

    Args:
        cells: number of cells of a map.
        dynamic_transform: whether the transform has its dynamic branch.
        dynamic_threshold: whether each feature has its own threshold, or all share one trained scalar.
        dynamic_weight: weight of the dynamic branch, 0 to 1.
        published_code: kernels act across the batch and get no gradient, as released.
        step: rho before training.
    """

    def __init__(
        self,
        cells: int,
        dynamic_transform: bool,
        dynamic_threshold: bool,
        dynamic_weight: float,
        published_code: bool,
        step: float,
    ) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.tensor(step))
        self.forward_first = convolution(1, CHANNELS)
        self.forward_second = convolution(CHANNELS, CHANNELS)
        self.backward_first = convolution(CHANNELS, CHANNELS)
        self.backward_second = convolution(CHANNELS, 1)
        self.kernel_maker = None
        if dynamic_transform:
            self.kernel_maker = nn.Sequential(nn.Linear(cells, HIDDEN), nn.Linear(HIDDEN, 9))
        self.threshold: DynamicThreshold | nn.Parameter
        if dynamic_threshold:
            self.threshold = DynamicThreshold(CHANNELS)
        else:
            self.threshold = nn.Parameter(torch.tensor(INITIAL_THRESHOLD))
        self.dynamic_weight = dynamic_weight
        self.published_code = published_code

    @torch.no_grad()
    def start_as_identity(self) -> None:
        """Make this stage the plain gradient step; all but the last layers of the dynamic parts stay random."""
        static = 1.0 if self.kernel_maker is None else 1.0 - self.dynamic_weight
        pass_through(
            (self.forward_first, self.forward_second), (self.backward_first, self.backward_second), share=static
        )
        if isinstance(self.threshold, DynamicThreshold):
            self.threshold.expand.weight.zero_()
            nn.init.zeros_(self.threshold.expand.bias)  # type: ignore[arg-type]
        else:
            self.threshold.zero_()

    def _dynamic(self, kernels: Tensor, stepped: Tensor, crop: Crop | None) -> Tensor:
        """The dynamic branch, (B, 1, rows, columns); as released (B, 64, rows, columns) for a batch of 64."""
        if self.published_code and len(kernels) > 1:
            return functional.conv2d(stepped, kernels[:, None].detach(), padding=1).sigmoid()
        return convolve_each(stepped, kernels.detach() if self.published_code else kernels, crop).sigmoid()

    def forward(
        self, cells: Tensor, image: Tensor, operator: SteeringOperator, constrained: int, crop: Crop | None
    ) -> tuple[Tensor, Tensor | None]:
        """The next map, and the residual of the symmetry for the first `constrained` samples."""
        stepped = gradient_step(operator, cells, image, self.step, crop)
        features = convolve(self.forward_second, functional.relu(convolve(self.forward_first, stepped, crop)), crop)
        if self.kernel_maker is not None:
            whole = cells if crop is None else crop.embed(cells)
            kernels = self.kernel_maker(whole.flatten(1)).view(-1, 3, 3)
            static = (1.0 - self.dynamic_weight) * features
            features = static + self.dynamic_weight * self._dynamic(kernels, stepped, crop)
        threshold = self.threshold(features, crop) if isinstance(self.threshold, nn.Module) else self.threshold
        both = with_constrained(features, soft_threshold(features, threshold), constrained)
        back = to_map(self.backward_second, functional.relu(convolve(self.backward_first, both, crop)), crop)
        symmetry = back[cells.shape[0] :] - stepped[:constrained] if constrained else None
        return back[: cells.shape[0]], symmetry


class DISTANet(StagedMethod):
    """DISTA-Net: 2,179,104 parameters at ratio 3 on 11 x 11 px.

    Args:
        sensor: the sensor whose images are unmixed.
        ratio: sub-pixel grid ratio.
        stages: number of iterations; default 6, and 4 from ratio 7 on, as published.
        dynamic_transform: ablation: False leaves the plain transform.
        dynamic_threshold: ablation: False leaves one trained threshold per stage.
        dynamic_weight: weight of the dynamic branch, 0 to 1.
        published_code: the released form, for the authors' weight files: counts are not scaled, and kernels
            are applied across the batch, without gradient. Runs with batches of 1 or 64 only.
        initial_step: rho before training; None for 1/L, or 0.5 with `published_code`.
        start: weights before training: "identity", with which the untrained network is plain gradient descent, or
            "xavier", random ones as published. None for identity where a static branch can carry it, else xavier: with
            `published_code`, whose branches are mixed across the batch, and with `dynamic_weight=1`.

    Raises:
        InputError: if dynamic_weight is not between 0 and 1, or `start` unknown or not possible.
    """

    def __init__(
        self,
        sensor: Sensor,
        ratio: int,
        stages: int | None = None,
        *,
        dynamic_transform: bool = True,
        dynamic_threshold: bool = True,
        dynamic_weight: float = 0.3,
        published_code: bool = False,
        initial_step: float | None = None,
        start: str | None = None,
    ) -> None:
        if not 0.0 <= dynamic_weight <= 1.0:
            raise InputError(f"dynamic_weight must be between 0 and 1, got {dynamic_weight}")
        carried = not published_code and not (dynamic_transform and dynamic_weight == 1.0)
        if check_start(start or ("identity" if carried else "xavier")) == "identity" and not carried:
            raise InputError(
                "start='identity' needs a static branch of each sample's own: give start='xavier' with "
                "published_code=True or dynamic_weight=1"
            )
        super().__init__(sensor, ratio, 1.0 if published_code else INPUT_SCALE)
        count = (6 if ratio < 7 else 4) if stages is None else stages
        cells = self.grid.map_shape[0] * self.grid.map_shape[1]
        default = PUBLISHED_STEP if published_code else 1.0 / self.operator.lipschitz
        step = default if initial_step is None else initial_step
        stages_made = [
            DISTANetStage(cells, dynamic_transform, dynamic_threshold, dynamic_weight, published_code, step)
            for _ in range(count)
        ]
        if carried and start != "xavier":
            for stage in stages_made:
                stage.start_as_identity()
        self.stages = nn.ModuleList(stages_made)
        self.published_code = published_code
        if published_code:
            self.batch_size = 1
            self.exportable = False
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def unfold(self, image: Tensor, constrained: int, crop: Crop | None = None) -> tuple[Tensor, list[Tensor]]:
        """The map and the residuals of the symmetry, one per stage.

        Raises:
            InputError: if `published_code` is set and the batch is neither 1 nor 64, or `crop` given.
        """
        if self.published_code and crop is not None:
            raise InputError("published_code=True cannot be trained on windows: leave window out")
        if self.published_code and len(image) not in (1, CHANNELS):
            raise InputError(f"published_code=True runs with batches of 1 or {CHANNELS} only, got {len(image)}")
        cells, image, operator = self.begin(image, crop)
        residuals = []
        for stage in self.working_stages():
            cells, residual = stage(cells, image, operator, constrained, crop)
            if residual is not None:
                residuals.append(residual)
        return cells, residuals

    @staticmethod
    def published_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Options with which a network takes these tensors, if they have the authors' names; else none."""
        stages = stages_in(state)
        return {"published_code": True, "stages": stages} if stages else {}

    def translate_published(self, state: Mapping[str, Tensor], transposed: bool = False) -> dict[str, Tensor]:
        """This network's state from the authors' (keys `fcs.0.lambda_step` and so on).

        A framework that wraps the network puts one prefix, such as `generator.`, before all keys: it is dropped.

        Args:
            state: tensors of their file; it holds no Q, so the present one is kept.
            transposed: whether their maps were indexed [x, y], as their label files are: kernels and linear
                layers are then transposed to work on [y, x]. The benchmark's scenes do not change when x and y
                are exchanged, so weights taken as they are serve as well; only then are the maps theirs.

        Raises:
            InputError: if the keys are not theirs, this network is not built as theirs, or its number of stages
                or of cells differs.
        """
        rows, columns = self.grid.map_shape
        translated = {"start": self.start}
        for match, value in matched(state, PUBLISHED_NAME, "DISTA-Net"):
            _, stage, name = match.groups()
            if name == "w1.weight" and value.ndim == 2 and value.shape[1] != rows * columns:
                raise InputError(
                    f"these weights are for maps of {value.shape[1]} cells, this method's have {rows} x {columns}: "
                    "give the ratio and the image shape that they were trained for"
                )
            tensor = laid(value, transposed)
            if transposed and name == "w1.weight":
                tensor = tensor.view(-1, columns, rows).transpose(1, 2).flatten(1)
            elif transposed and name.startswith("w2."):
                tensor = tensor.view(3, 3, -1).transpose(0, 1).reshape(value.shape)
            translated[f"stages.{stage}.{PUBLISHED_KEYS[name]}"] = tensor.contiguous()
        if not self.published_code:
            raise InputError(
                "these are the authors' weights, which take counts: build the method with published_code=True"
            )
        check_stages(stages_in(state), len(self.stages))
        return translated
