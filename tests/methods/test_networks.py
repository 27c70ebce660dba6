"""The unfolded networks against the published facts and against naive versions of their parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from authors_helpers import authors_shapes
from csist.checks import InputError
from csist.create import create_method
from csist.grid import SubPixelGrid, encode_arrays
from csist.methods.dista_net import DISTANet, DynamicThreshold, convolve_each
from csist.methods.layers import soft_threshold, start_matrix, without_start
from csist.methods.lista import hard_threshold, select_and_shrink
from csist.methods.operator import SteeringOperator
from csist.physics.psf import AiryPSF, GaussianPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, sample_scene_arrays, simulate, targets_from_arrays

SENSOR = Sensor(shape=(5, 6))


def build(name: str, sensor: Sensor | None = None, ratio: int = 3, **options: Any) -> Any:
    torch.manual_seed(0)
    with without_start():
        return create_method(name, sensor=sensor or Sensor(), ratio=ratio, pretrained=False, **options)


@pytest.mark.parametrize(
    ("name", "ratio", "options", "expected"),
    [
        ("ista-net", 3, {}, 171_090),
        ("ista-net", 7, {}, 171_090),
        ("ista-net-plus", 3, {}, 336_978),
        ("ista-net-plus", 5, {}, 224_652),
        ("fista-net", 3, {}, 37_607),
        ("fista-net", 3, {"published_code": True}, 74_599),
        ("dista-net", 3, {}, 2_179_104),
        ("dista-net", 3, {"published_code": True}, 2_179_104),
        ("dista-net", 5, {}, 5_152_800),
        ("dista-net", 7, {}, 6_408_896),
        ("lista", 3, {}, 21_100_464),
        ("liht", 3, {}, 21_100_464),
        ("lamp", 3, {}, 2_125_728),
        ("ti-lista", 3, {}, 2_125_744),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, ratio: int, options: dict[str, Any], expected: int) -> None:
    assert sum(p.numel() for p in build(name, ratio=ratio, **options).parameters()) == expected


@pytest.mark.parametrize("psf", [GaussianPSF(0.5), AiryPSF(1.2)])
def test_the_operator_is_the_sensor_and_its_adjoint(psf: Any) -> None:
    sensor = Sensor(psf=psf, shape=(5, 6), background=7.0)
    grid = SubPixelGrid(sensor.shape, 3)
    operator = SteeringOperator(sensor, 3, torch.float64)
    targets, count = sample_scene_arrays(ScenePrior.csist_100k(), sensor, 4, np.random.default_rng(0))
    scenes = [grid.snap(each) for each in targets_from_arrays(targets, count)]
    cells = torch.as_tensor(np.stack([grid.encode(scene) for scene in scenes]))[:, None]
    clean = np.stack([sensor.render(scene) for scene in scenes]) - sensor.background
    np.testing.assert_allclose(operator(cells)[:, 0].numpy(), clean, atol=1e-9)
    image = torch.rand(4, 1, 5, 6, dtype=torch.float64)
    torch.testing.assert_close((operator(cells) * image).sum(), (cells * operator.adjoint(image)).sum())
    dense = operator.dense()
    torch.testing.assert_close((cells.flatten(1) @ dense.T).view(4, 1, 5, 6), operator(cells))
    assert operator.lipschitz == pytest.approx(float(torch.linalg.matrix_norm(dense, 2)) ** 2)


def test_encode_arrays_agrees_with_the_grid_and_adds_up() -> None:
    grid = SubPixelGrid((11, 11), 3)
    targets, count = sample_scene_arrays(ScenePrior.csist_100k(), Sensor(), 20, np.random.default_rng(1))
    expected = np.stack([grid.encode(each) for each in targets_from_arrays(targets, count)])
    np.testing.assert_allclose(encode_arrays(grid, targets), expected, rtol=1e-6)
    twice = np.array([[[5.0, 5.0, 100.0], [5.01, 5.0, 50.0]]])
    assert encode_arrays(grid, twice).max() == 150.0


def test_the_linear_start_beats_nothing_and_ignores_the_background() -> None:
    plain, lifted = SENSOR, Sensor(shape=(5, 6), background=40.0)
    images, targets = simulate(ScenePrior.csist_100k(), plain, 50, np.random.default_rng(9))
    truth = encode_arrays(SubPixelGrid(plain.shape, 3), targets).reshape(50, -1)
    guess = images.reshape(50, -1) @ start_matrix(plain, 3).T
    assert ((guess - truth) ** 2).mean() < 0.8 * (truth**2).mean()
    method = create_method("ista-net", sensor=plain, pretrained=False, stages=1)
    other = create_method("ista-net", sensor=lifted, pretrained=False, stages=1)
    other.load_state_dict(method.state_dict())
    image = torch.as_tensor(images[:2, None], dtype=torch.float32)
    torch.testing.assert_close(other(image + 40.0), method(image), rtol=1e-3, atol=1e-2)


def test_thresholds() -> None:
    values = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0])
    assert soft_threshold(values, 1.0).tolist() == [-2.0, 0.0, 0.0, 0.0, 2.0]
    assert soft_threshold(values, -1.0).tolist() == [-4.0, -1.5, 0.0, 1.5, 4.0]
    hard = hard_threshold(torch.tensor([-2.0, -1.0, 0.0, 0.84999, 0.7, 0.5]), torch.tensor(1.0), ramp=0.3)
    assert hard.tolist() == pytest.approx([-2.0, -1.0, 0.0, 0.49997, 0.0, 0.0], abs=1e-5)
    rows = torch.tensor([[5.0, -4.0, 0.5, 2.0]])
    assert select_and_shrink(rows, torch.tensor(1.0), 2).tolist() == [[5.0, -4.0, 0.0, 1.0]]


def test_every_sample_is_convolved_with_its_own_kernel() -> None:
    cells, kernels = torch.rand(3, 1, 6, 5), torch.rand(3, 3, 3)
    expected = torch.cat([functional.conv2d(cells[i : i + 1], kernels[i, None, None], padding=1) for i in range(3)])
    torch.testing.assert_close(convolve_each(cells, kernels), expected)


def test_the_dynamic_threshold_follows_its_definition() -> None:
    torch.manual_seed(0)
    module, x = DynamicThreshold(8), torch.randn(2, 8, 5, 5)
    near, far = module.near(x), module.far(module.spread(x))
    both = torch.cat([near, far], 1)
    pooled = torch.cat([both.mean(1, keepdim=True), both.max(1, keepdim=True).values], 1)
    masks = torch.sigmoid(module.select(pooled))
    expected = x * module.expand(near * masks[:, 0:1] + far * masks[:, 1:2])
    torch.testing.assert_close(module(x), expected)


def test_an_ista_net_stage_follows_its_equations() -> None:
    method = create_method("ista-net", sensor=SENSOR, pretrained=False, stages=1, start="xavier")
    image = torch.rand(2, 1, 5, 6) * 200.0
    stage, dense, z = method.stages[0], method.operator.dense(), image.flatten(1) / method.input_scale
    s = z @ method.start.T
    r = (s - stage.step * (s @ dense.T - z) @ dense).view(2, 1, 15, 18)
    weights = [
        layer.weight
        for layer in (stage.forward_first, stage.forward_second, stage.backward_first, stage.backward_second)
    ]

    def pair(x: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(functional.conv2d(x, first, padding=1).relu(), second, padding=1)

    features = pair(r, *weights[:2])
    shrunk = features.sign() * (features.abs() - 0.01).clamp(min=0.0)
    cells, residuals = method.forward_with_residuals(image)
    torch.testing.assert_close(cells, pair(shrunk, *weights[2:]) * method.input_scale, rtol=1e-4, atol=1e-3)
    symmetry = (pair(features, *weights[2:]) - r) * method.input_scale
    torch.testing.assert_close(residuals[0], symmetry, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["ista-net", "ista-net-plus", "fista-net", "dista-net"])
def test_residuals_of_a_share_are_those_of_the_first_samples(name: str) -> None:
    method = build(name, SENSOR, stages=2)
    image = torch.rand(4, 1, 5, 6) * 200.0
    cells, residuals = method.forward_with_residuals(image)
    same, half = method.forward_with_residuals(image, share=0.5)
    assert len(residuals) == len(half) == 2 and [len(r) for r in half] == [2, 2]
    torch.testing.assert_close(same, cells)
    torch.testing.assert_close(method(image), cells)
    for one, other in zip(half, residuals, strict=True):
        torch.testing.assert_close(one, other[:2], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"dynamic_transform": False}, {"threshold"}),
        ({"dynamic_threshold": False}, {"kernel_maker"}),
        ({"dynamic_transform": False, "dynamic_threshold": False}, set()),
    ],
)
def test_ablations_leave_their_part_out(options: dict[str, bool], parts: set[str]) -> None:
    method = build("dista-net", SENSOR, stages=1, **options)
    present = {name.split(".")[2] for name, _ in method.named_parameters() if name.count(".") > 2}
    assert parts <= present | {"kernel_maker", "threshold"}
    assert ("kernel_maker" in present) == ("kernel_maker" in parts)
    assert method(torch.rand(2, 1, 5, 6)).shape == (2, 1, 15, 18)


def test_the_dynamic_weight_is_checked() -> None:
    with pytest.raises(InputError, match="dynamic_weight must be between 0 and 1, got 2"):
        build("dista-net", SENSOR, dynamic_weight=2)


def published_state(method: DISTANet) -> dict[str, torch.Tensor]:
    """A state with the authors' names and shapes, random."""
    cells = method.grid.map_shape[0] * method.grid.map_shape[1]
    generator = torch.Generator().manual_seed(1)
    shapes = authors_shapes(len(method.stages), cells)
    return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@torch.no_grad()
def test_published_weights_load_and_may_be_transposed() -> None:
    sensor = Sensor(shape=(5, 5))
    method = create_method("dista-net", sensor=sensor, pretrained=False, stages=2, published_code=True)
    state = published_state(method)
    image = torch.rand(1, 1, 5, 5) * 200.0
    method.load_state_dict(method.translate_published(state))
    plain = method(image.transpose(2, 3)).transpose(2, 3)
    start = method.start.clone()
    method.load_state_dict(method.translate_published(state, transposed=True))
    # The start must be transposed along with the rest for the comparison: it is not in the authors' file.
    method.start.copy_(start.view(15, 15, 5, 5).permute(1, 0, 3, 2).reshape(225, 25))
    torch.testing.assert_close(method(image), plain, rtol=1e-3, atol=1e-3 * float(plain.abs().max()))
    with pytest.raises(InputError, match="not a published DISTA-Net weight file"):
        method.translate_published({"fcs.0.conv9": torch.zeros(1)})


def test_published_code_couples_the_batch_and_says_so() -> None:
    method = create_method("dista-net", SENSOR, pretrained=False, stages=1, published_code=True)
    image = torch.rand(64, 1, 5, 6) * 200.0
    changed = image.clone()
    changed[7] = 0.0
    with torch.no_grad():
        difference = (method(changed) - method(image)).abs().amax(dim=(1, 2, 3))
    assert bool((difference[:7] > 0).all())
    with pytest.raises(InputError, match="batches of 1 or 64 only, got 3"):
        method(image[:3])
    method(image).sum().backward()
    assert method.stages[0].kernel_maker[0].weight.grad is None
    assert len(method.predict_maps(image[:3, 0].double().numpy())) == 3


@pytest.mark.parametrize(
    ("name", "ratio", "options", "images"),
    [
        ("ista-net", 3, {}, 32),
        ("ista-net", 5, {}, 11),
        ("srcnn", 7, {}, 5),
        ("lamp", 3, {}, 256),
        ("ista", 3, {}, 2048),
        ("dista-net", 3, {"published_code": True}, 1),
    ],
)
def test_batches_follow_from_the_cells(name: str, ratio: int, options: dict[str, Any], images: int) -> None:
    assert build(name, Sensor(), ratio, **options).batch_size == images


def test_an_image_of_many_cells_is_a_batch_of_its_own() -> None:
    assert build("srcnn", Sensor(shape=(100, 100)), 3).batch_size == 1
