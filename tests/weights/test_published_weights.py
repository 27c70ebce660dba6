"""Files of the benchmark's authors: random weights under their names give what their equations give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from csist.checks import InputError
from csist.create import create_method
from csist.physics.sensor import Sensor

SENSOR = Sensor(shape=(5, 5))
State = dict[str, Tensor]


def random_state(shapes: dict[str, tuple[int, ...]], size: float = 0.2) -> State:
    generator = torch.Generator().manual_seed(2)
    return {name: size * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def ista_shapes(stages: int, residual: bool) -> dict[str, tuple[int, ...]]:
    inner = 32 if residual else 1
    stage = {
        "lambda_step": (1,), "soft_thr": (1,), "conv1_forward": (32, inner, 3, 3), "conv2_forward": (32, 32, 3, 3),
        "conv1_backward": (32, 32, 3, 3), "conv2_backward": (inner, 32, 3, 3),
    }  # fmt: skip
    if residual:
        stage |= {"conv_D": (32, 1, 3, 3), "conv_G": (1, 32, 3, 3)}
    return {f"fcs.{number}.{name}": shape for number in range(stages) for name, shape in stage.items()}


def fista_state(stages: int) -> State:
    layers = {"conv_D": (32, 1), "conv_G": (1, 32)}
    layers |= {f"conv{k}_{way}": (32, 32) for k in (1, 2, 3, 4) for way in ("forward", "backward")}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (outputs, inputs) in layers.items():
        shapes |= {f"{name}.weight": (outputs, inputs, 3, 3), f"{name}.bias": (outputs,)}
    block = random_state(shapes, 0.05)
    copies = {
        f"{place}.{name}": value
        for place in ("bb", *(f"fcs.{k}" for k in range(stages)))
        for name, value in block.items()
    }
    return copies | {f"{w}_{of}": torch.tensor([v]) for of, pair in {
        "theta": (-0.4, -1.5), "mu": (-0.3, -2.0), "rho": (0.6, 0.2),
    }.items() for w, v in zip("wb", pair, strict=True)}  # fmt: skip


def srfbn_state(groups: int = 3) -> State:
    def layer(name: str, outputs: int, inputs: int, size: int, swapped: bool = False) -> dict[str, tuple[int, ...]]:
        kernel = (inputs, outputs, size, size) if swapped else (outputs, inputs, size, size)
        return {f"{name}.0.weight": kernel, f"{name}.0.bias": (outputs,), f"{name}.1.weight": (1,)}

    shapes = layer("conv_in", 128, 1, 3) | layer("feat_in", 32, 128, 1) | layer("block.compress_in", 32, 64, 1)
    for k in range(groups):
        shapes |= layer(f"block.upBlocks.{k}", 32, 32, 7, True) | layer(f"block.downBlocks.{k}", 32, 32, 7)
        if k:
            shapes |= layer(f"block.uptranBlocks.{k - 1}", 32, 32 * (k + 1), 1)
            shapes |= layer(f"block.downtranBlocks.{k - 1}", 32, 32 * (k + 1), 1)
    shapes |= layer("block.compress_out", 32, 32 * groups, 1) | layer("out", 32, 32, 7, True)
    shapes |= {"conv_out.0.weight": (1, 32, 3, 3), "conv_out.0.bias": (1,)}
    state = random_state(shapes, 0.05)
    mean = {"weight": torch.ones(1, 1, 1, 1), "bias": torch.tensor([-127.5])}
    return state | {f"sub_mean.{k}": v for k, v in mean.items()} | {f"add_mean.{k}": v.abs() for k, v in mean.items()}


def conv(x: Tensor, state: State, name: str) -> Tensor:
    """Their 3 x 3 convolution: a bare kernel, or with its bias."""
    if name in state:
        return functional.conv2d(x, state[name], padding=1)
    return functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)


def soft(x: Tensor, threshold: Tensor) -> Tensor:
    return x.sign() * functional.relu(x.abs() - threshold)


def ista(state: State, method: Any, image: Tensor, stages: int) -> Tensor:
    """Their ISTA-Net and ISTA-Net+, in counts."""
    z, phi = image.flatten(1), method.operator.dense()
    x = z @ method.start.T
    for k in range(stages):
        own = {name.removeprefix(f"fcs.{k}."): value for name, value in state.items() if name.startswith(f"fcs.{k}.")}
        r = (x - own["lambda_step"] * (x @ phi.T - z) @ phi).view(-1, 1, *method.grid.map_shape)
        lifted = conv(r, own, "conv_D") if "conv_D" in own else r
        features = conv(conv(lifted, own, "conv1_forward").relu(), own, "conv2_forward")
        back = conv(conv(soft(features, own["soft_thr"]), own, "conv1_backward").relu(), own, "conv2_backward")
        x = ((r + conv(back, own, "conv_G")) if "conv_G" in own else back).flatten(1)
    return x.view(-1, 1, *method.grid.map_shape)


def fista(state: State, method: Any, image: Tensor, stages: int) -> Tensor:
    z, phi = image.flatten(1), method.operator.dense()
    before = y = z @ method.start.T
    own = {name.removeprefix("bb."): value for name, value in state.items() if name.startswith("bb.")}

    def at(of: str, k: int) -> Tensor:
        return functional.softplus(state[f"w_{of}"] * k + state[f"b_{of}"])

    for k in range(stages):
        r = (y - at("mu", k) * (y @ phi.T - z) @ phi).view(-1, 1, *method.grid.map_shape)
        features = conv(conv(conv(r, own, "conv_D"), own, "conv1_forward").relu(), own, "conv4_forward")
        back = conv(conv(soft(features, at("theta", k)), own, "conv1_backward").relu(), own, "conv4_backward")
        x = (r + conv(back, own, "conv_G")).relu().flatten(1)
        y = x + (at("rho", k) - at("rho", 0)) / at("rho", k) * (x - before)
        before = x
    return before.view(-1, 1, *method.grid.map_shape)


def srfbn(state: State, method: Any, image: Tensor, groups: int) -> Tensor:
    def layer(x: Tensor, name: str, up: bool = False, **options: int) -> Tensor:
        apply = functional.conv_transpose2d if up else functional.conv2d
        return functional.prelu(
            apply(x, state[f"{name}.0.weight"], state[f"{name}.0.bias"], **options), state[f"{name}.1.weight"]
        )

    x = image - 127.5
    skip = functional.interpolate(x, scale_factor=3, mode="bilinear", align_corners=False)
    features = layer(layer(x, "conv_in", padding=1), "feat_in")
    low, high = [layer(torch.cat([features, features], 1), "block.compress_in")], []
    for k in range(groups):
        inner = torch.cat(low, 1)
        inner = layer(inner, f"block.uptranBlocks.{k - 1}") if k else inner
        high.append(layer(inner, f"block.upBlocks.{k}", True, stride=3, padding=2))
        outer = torch.cat(high, 1)
        outer = layer(outer, f"block.downtranBlocks.{k - 1}") if k else outer
        low.append(layer(outer, f"block.downBlocks.{k}", stride=3, padding=2))
    found = layer(layer(torch.cat(low[1:], 1), "block.compress_out"), "out", True, stride=3, padding=2)
    return skip + conv(found, state, "conv_out.0") + 127.5


CASES: list[tuple[str, Callable[[], State], Callable[..., Tensor], int]] = [
    ("ista-net", lambda: random_state(ista_shapes(2, False)), ista, 2),
    ("ista-net-plus", lambda: random_state(ista_shapes(2, True), 0.1), ista, 2),
    ("fista-net", lambda: fista_state(3), fista, 3),
    ("srfbn", srfbn_state, srfbn, 3),
]


def saved(path: Path, state: State, prefix: str = "") -> Path:
    torch.save({"meta": {"epoch": 3}, "state_dict": {prefix + name: value for name, value in state.items()}}, path)
    return path


@pytest.mark.parametrize(("name", "make", "equations", "count"), CASES)
@pytest.mark.parametrize("prefix", ["", "module."])
@torch.no_grad()
def test_their_weights_give_their_maps(
    name: str, make: Callable[[], State], equations: Callable[..., Tensor], count: int, prefix: str, tmp_path: Path
) -> None:
    state = make()
    method = create_method(name, SENSOR, pretrained=saved(tmp_path / "theirs.pth", state, prefix))
    image = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(1)) * 200.0
    expected = equations(state, method, image, count)
    torch.testing.assert_close(method(image), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(("name", "make", "equations", "count"), CASES)
@torch.no_grad()
def test_maps_that_were_indexed_the_other_way(
    name: str, make: Callable[[], State], equations: Callable[..., Tensor], count: int
) -> None:
    state = make()
    options = {} if name.startswith("ista") else {"published_code": True}
    options |= {"groups": count} if name == "srfbn" else {"stages": count}
    method = create_method(name, SENSOR, pretrained=False, **options)
    image = torch.rand(1, 1, 5, 5) * 200.0
    method.load_state_dict(method.translate_published(state))
    plain = method(image.transpose(2, 3)).transpose(2, 3)
    if name != "srfbn":  # the linear start of a finite sample is not quite the same the other way round
        cells, pixels = method.grid.map_shape, method.grid.shape
        start = method.start.view(*cells, *pixels).permute(1, 0, 3, 2)
        method.start.copy_(start.reshape(method.start.shape).clone())
    turned = method.translate_published(state, transposed=True)
    method.load_state_dict(turned)
    torch.testing.assert_close(method(image), plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))


@pytest.mark.parametrize(
    ("name", "make", "options", "message"),
    [
        ("ista-net", lambda: random_state(ista_shapes(2, True)), {}, "not a published ISTA-Net weight file: .*conv_D"),
        ("ista-net-plus", lambda: random_state(ista_shapes(2, False)), {}, "it lacks 'stages.0.lift.weight'"),
        ("ista-net", lambda: random_state(ista_shapes(2, False)), {"stages": 3}, "are of 2 stages, got stages=3"),
        ("fista-net", lambda: fista_state(3), {"published_code": False}, "build the method with published_code=True"),
        ("fista-net", lambda: fista_state(3), {"stages": 2}, "are of 3 stages, got stages=2"),
        ("fista-net", lambda: fista_state(2) | {"fcs.1.conv_D.bias": torch.ones(32)}, {}, "differ in conv_D"),
        ("srfbn", srfbn_state, {"published_code": False}, "build the method with published_code=True"),
        ("srfbn", srfbn_state, {"groups": 2}, "does not fit this method: it holds 'block.up.2"),
        ("srfbn", lambda: {"fcs.0.lambda_step": torch.ones(1)}, {}, "not a published SRFBN weight file"),
    ],
)
def test_files_that_do_not_fit_are_refused_in_one_line(
    name: str, make: Callable[[], State], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = saved(tmp_path / "theirs.pth", make())
    with pytest.raises(InputError, match=message) as caught:
        create_method(name, SENSOR, pretrained=path, **options)
    assert "theirs.pth" in str(caught.value) and "\n" not in str(caught.value)


def test_the_release_of_srfbn_is_for_ratio_3() -> None:
    with pytest.raises(InputError, match="published_code=True is for ratio 3, got 5"):
        create_method("srfbn", SENSOR, 5, pretrained=False, published_code=True)
