"""The super-resolution networks against the published sizes, and their blocks against independent references.

What every grid method must do (shapes, batches, gradients, falling loss) is in test_all_methods.py, with small
versions; here the networks have their full depth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch.nn import functional

from csist.checks import InputError
from csist.create import create_method
from csist.grid import SubPixelGrid, encode_arrays
from csist.methods.crop import Cropper
from csist.methods.sr.blocks import Upsampler
from csist.methods.sr.san import (
    LARGEST_REGION_PX,
    RegionNonLocal,
    SecondOrderAttention,
    covariance,
    matrix_square_root,
    regions,
)
from csist.methods.sr.srcnn import SRCNN
from csist.methods.sr.srfbn import FeedbackBlock
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, simulate
from csist.weights.cards import make_card
from csist.weights.files import save_weights

NAMES = ("srcnn", "edsr", "rcan", "srfbn", "san")

over_networks = pytest.mark.parametrize("name", NAMES)


def build(name: str, ratio: int = 3, sensor: Sensor | None = None, **options: Any) -> Any:
    torch.manual_seed(0)
    return create_method(name, sensor=sensor, ratio=ratio, pretrained=False, **options)


@pytest.mark.parametrize(
    ("name", "ratio", "options", "expected"),
    [
        ("srcnn", 3, {}, 19_393),
        ("srcnn", 7, {}, 19_393),
        ("edsr", 3, {}, 1_552_193),
        ("rcan", 3, {}, 1_078_729),
        ("srfbn", 3, {}, 372_720),
        ("srfbn", 3, {"steps": 4}, 372_720),
        ("san", 3, {"published_code": True}, 4_441_620),
        # A 3 x 3 convolution and an attention that the release never calls, and a bias that the softmax cancels.
        ("san", 3, {}, 4_441_620 - 36_928 - 1_096 - 8),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, ratio: int, options: dict[str, Any], expected: int) -> None:
    assert sum(p.numel() for p in build(name, ratio, **options).parameters()) == expected


@over_networks
def test_windows_train_the_whole_network(name: str) -> None:
    sensor = Sensor(background=30.0)
    method = build(name, sensor=sensor)
    images, targets = simulate(ScenePrior.csist_100k(), sensor, 4, np.random.default_rng(0))
    truth = torch.as_tensor(encode_arrays(method.grid, targets)[:, None])
    image = torch.as_tensor(images[:, None], dtype=torch.float32)
    discrepancy, constraint = method.loss_terms(image, truth, crop=Cropper(sensor, 3, 5)(truth))
    discrepancy.backward()
    # An untrained network says little: its loss is near that of an empty map.
    assert 0.5 < float(discrepancy.detach() / (truth**2).mean()) < 1.2 and float(constraint) == 0.0
    for key, parameter in method.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), key
        assert bool((parameter.grad != 0).any()), key


@over_networks
@torch.no_grad()
def test_an_image_of_another_size_or_background_is_taken(name: str) -> None:
    method, lifted = build(name, 2), build(name, 2, Sensor(background=40.0))
    image = torch.rand(2, 1, 6, 13) * 200.0
    cells = method(image)
    assert cells.shape == (2, 1, 12, 26)
    torch.testing.assert_close(lifted(image + 40.0), cells, rtol=1e-3, atol=1e-3 * float(cells.abs().max()))
    empty = method(torch.zeros(1, 1, 11, 11))
    assert float(empty.abs().max()) < 50.0  # the read-out's threshold: an untrained network sees nothing in nothing


@pytest.mark.parametrize("name", ["edsr", "rcan", "srfbn", "srcnn"])
@torch.no_grad()
def test_a_shifted_scene_gives_a_shifted_map(name: str) -> None:
    options = {"edsr": {"blocks": 1}, "rcan": {"groups": 1, "blocks": 1}, "srfbn": {"groups": 1}}.get(name, {})
    method = build(name, **options)
    image = torch.zeros(1, 1, 31, 31)
    image[..., 14:17, 14:17] = torch.rand(3, 3) * 200.0
    cells, shifted = method(image), method(image.roll((1, 2), (2, 3)))
    inner = (..., slice(36, 57), slice(36, 57))
    torch.testing.assert_close(shifted[inner], cells.roll((3, 6), (2, 3))[inner], rtol=1e-3, atol=1e-2)


@over_networks
def test_missing_weights_are_named(name: str) -> None:
    with pytest.raises(InputError, match=rf"no trained weights of {name} for ratio 9.*csist train {name}"):
        create_method(name, ratio=9)


def test_weights_of_another_ratio_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_weights(tmp_path / "srcnn-c3", build("srcnn"), make_card("srcnn", Sensor(), 3))
    monkeypatch.setattr("csist.weights.pretrained.weights_folder", lambda: tmp_path)
    assert isinstance(create_method("srcnn"), SRCNN)
    with pytest.raises(InputError, match=r"no trained weights of srcnn for ratio 5.*these exist: ratio 3, gaussian"):
        create_method("srcnn", ratio=5)


# --- blocks -----------------------------------------------------------------------------------------------


def test_the_upsampler_lays_features_out_as_cells() -> None:
    upsampler, x = Upsampler(4, 3), torch.rand(2, 4, 5, 6)
    wide = upsampler[0](x)
    cells = upsampler(x)
    assert cells.shape == (2, 4, 15, 18)
    for row, column in ((0, 0), (2, 1), (1, 2)):
        torch.testing.assert_close(cells[:, :, row::3, column::3], wide[:, 3 * row + column :: 9])


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_interpolation_follows_the_grid(ratio: int) -> None:
    """A ramp of positions, enlarged as SRCNN and SRFBN enlarge, gives the cells' positions."""
    ramp = torch.arange(12.0).repeat(12, 1)[None, None]
    expected = torch.as_tensor(SubPixelGrid((12, 12), ratio).position_of(np.arange(12 * ratio)), dtype=torch.float32)
    for mode in ("bicubic", "bilinear"):
        cells = functional.interpolate(ramp, scale_factor=ratio, mode=mode, align_corners=False)
        inner = slice(3 * ratio, -3 * ratio)
        torch.testing.assert_close(cells[0, 0, 20, inner], expected[inner], rtol=0.0, atol=0.07)


@torch.no_grad()
def test_the_skip_connection_of_srfbn_keeps_the_flux() -> None:
    method = build("srfbn", groups=1)
    method.tail.weight.zero_()
    image = torch.zeros(1, 1, 11, 11)
    image[..., 4:7, 4:7] = torch.rand(3, 3) * 200.0
    torch.testing.assert_close(method(image).sum(), image.sum())


@pytest.mark.parametrize("ratio", [2, 3, 5])
@torch.no_grad()
def test_the_feedback_block_follows_its_equations(ratio: int) -> None:
    torch.manual_seed(0)
    block = FeedbackBlock(4, 3, ratio)
    features, feedback = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6)

    def run(module: Any, x: torch.Tensor, transposed: bool = False, **how: int) -> torch.Tensor:
        operation = functional.conv_transpose2d if transposed else functional.conv2d
        y = operation(x, module[0].weight, module[0].bias, **how)
        return torch.where(y > 0, y, module[1].weight * y)

    how = {"stride": ratio, "padding": 2}
    low = [run(block.compress_in, torch.cat([features, feedback], 1))]
    high = [run(block.up[0], low[0], True, **how)]
    assert high[0].shape == (2, 4, 5 * ratio, 6 * ratio)
    low.append(run(block.down[0], high[0], **how))
    for g in (1, 2):
        high.append(run(block.up[g], run(block.compress_low[g], torch.cat(low, 1)), True, **how))
        low.append(run(block.down[g], run(block.compress_high[g], torch.cat(high, 1)), **how))
    expected = run(block.compress_out, torch.cat(low[1:], 1))
    torch.testing.assert_close(block(features, feedback), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_projections_keep_the_variance() -> None:
    torch.manual_seed(0)
    block, x = FeedbackBlock(32, 1, 3), torch.randn(4, 32, 21, 21)
    up = block.up[0][0](x)[..., 9:-9, 9:-9]
    down = block.down[0][0](torch.randn(4, 32, 63, 63))[..., 3:-3, 3:-3]
    for found in (up, down):  # 2 / (1 + slope^2) before the PReLU, which takes half
        assert 1.4 < float(found.var()) < 2.5


def random_covariances(smallest: float, count: int = 4, size: int = 8) -> torch.Tensor:
    """Symmetric matrices (count, size, size) with eigenvalues from `smallest` to 1."""
    generator = torch.Generator().manual_seed(3)
    basis = torch.linalg.qr(torch.randn(count, size, size, generator=generator, dtype=torch.float64)).Q
    values = torch.linspace(smallest, 1.0, size, dtype=torch.float64)
    return (basis * values) @ basis.transpose(1, 2)


def test_the_square_root_is_that_of_scipy() -> None:
    matrices = random_covariances(0.1)
    expected = np.stack([sqrtm(matrix.numpy()) for matrix in matrices])
    np.testing.assert_allclose(matrix_square_root(matrices, 14).numpy(), expected, atol=1e-5)
    # The network's five steps, in its precision.
    np.testing.assert_allclose(matrix_square_root(matrices.float()).numpy(), expected, atol=0.2)
    squared = matrix_square_root(torch.eye(6)[None]) ** 2
    torch.testing.assert_close(squared, torch.eye(6)[None], rtol=0.0, atol=2e-2)


def test_the_square_root_has_the_basis_and_the_iterates_of_the_eigenvalues() -> None:
    """Newton-Schulz works on each eigenvalue alone: compare with the scalar iteration under eigh."""
    matrices = random_covariances(1e-4)
    values, basis = torch.linalg.eigh(matrices)
    trace = values.sum(1, keepdim=True) + 1e-6
    y, z = values / trace, torch.ones_like(values)
    for _ in range(5):
        t = 1.5 - 0.5 * z * y
        y, z = y * t, t * z
    expected = (basis * (y * trace.sqrt())[:, None]) @ basis.transpose(1, 2)
    torch.testing.assert_close(matrix_square_root(matrices), expected)


def test_the_covariance_is_that_of_numpy() -> None:
    features = torch.rand(2, 5, 4, 6, dtype=torch.float64)
    expected = np.stack([np.cov(each.flatten(1).numpy(), bias=True) for each in features])
    np.testing.assert_allclose(covariance(features).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("side", [1, 2, 5])
@pytest.mark.parametrize("scale", [0.0, 1e-8, 1.0, 1e4])
def test_second_order_attention_is_safe(side: int, scale: float) -> None:
    """Few positions (rank far below the channels), constant, tiny and huge features: finite values and gradients."""
    torch.manual_seed(0)
    attention = SecondOrderAttention(64, 16)
    x = (7.0 * (scale == 0.0) + scale * torch.randn(2, 64, side, side)).requires_grad_()
    found = attention(x)
    found.sum().backward()
    assert x.grad is not None and bool(torch.isfinite(found).all()) and bool(torch.isfinite(x.grad).all())
    for parameter in attention.parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all())


def test_second_order_attention_keeps_full_precision_under_autocast() -> None:
    torch.manual_seed(0)
    attention, x = SecondOrderAttention(64, 16), torch.randn(2, 64, 5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attention(x.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), attention(x), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("sides", [(11, 11), (5, 5), (1, 3), (7, 25)])
def test_regions_cover_the_image_once(sides: tuple[int, int]) -> None:
    seen = np.zeros(sides, dtype=int)
    for rows, columns in regions(sides):
        assert 0 < rows.stop - rows.start <= LARGEST_REGION_PX and 0 < columns.stop - columns.start <= LARGEST_REGION_PX
        seen[rows, columns] += 1
    assert (seen == 1).all()
    assert len(regions((11, 11))) == 4 and len(regions((5, 5))) == 1


@torch.no_grad()
def test_the_non_local_module_attends_within_regions() -> None:
    torch.manual_seed(0)
    module, x = RegionNonLocal(16, published_code=False), torch.randn(2, 16, 7, 5)
    found = module(x)
    weights = {name: getattr(module, name).weight[:, :, 0, 0] for name in ("query", "key", "value", "back")}
    for rows in (slice(0, 3), slice(3, 7)):  # two regions of at most 6 px
        part = x[:, :, rows].flatten(2)
        query = torch.einsum("oc,bcn->bon", weights["query"], part) + module.query.bias[:, None]
        key = torch.einsum("oc,bcn->bon", weights["key"], part)
        value = torch.einsum("oc,bcn->bon", weights["value"], part) + module.value.bias[:, None]
        shares = torch.einsum("boi,boj->bij", query, key).softmax(2)
        mixed = torch.einsum("bij,boj->boi", shares, value)
        expected = part + torch.einsum("oc,bcn->bon", weights["back"], mixed)
        torch.testing.assert_close(found[:, :, rows].flatten(2), expected, rtol=1e-4, atol=1e-5)
