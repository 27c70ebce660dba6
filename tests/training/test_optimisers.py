"""Muon with Adam against the library's own optimisers, and clipping by the running norm."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from csist.checks import InputError
from csist.create import create_method
from csist.training.optimisers import MUON_PEAK, GradientClip, MuonAdam, is_hidden_kernel, make_optimiser

PEAK = 1e-2


def parameters(layout: torch.memory_format) -> tuple[nn.Parameter, nn.Parameter]:
    """A hidden kernel (24, 16, 3, 3) and a bias."""
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(24, 16, 3, 3, generator=generator).to(memory_format=layout)
    return nn.Parameter(kernel), nn.Parameter(torch.randn(24, generator=generator))


def gradients(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1 + step)
    return torch.randn(24, 16, 3, 3, generator=generator), torch.randn(24, generator=generator)


def take_steps(optimiser: torch.optim.Optimizer, pair: tuple[nn.Parameter, nn.Parameter], steps: range) -> None:
    for step in steps:
        for parameter, gradient in zip(pair, gradients(step), strict=True):
            parameter.grad = gradient.clone(memory_format=torch.preserve_format)
        optimiser.step()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_the_library_s_muon_on_the_matrix_and_its_adam_on_the_rest(layout: torch.memory_format) -> None:
    pair = parameters(layout)
    order = (0, 2, 3, 1) if layout is torch.channels_last else (0, 1, 2, 3)
    matrix = nn.Parameter(pair[0].detach().permute(order).flatten(1).clone())
    bias = nn.Parameter(pair[1].detach().clone())
    take_steps(MuonAdam(pair, PEAK), pair, range(4))
    muon = torch.optim.Muon([matrix], lr=MUON_PEAK * PEAK, weight_decay=0.0, adjust_lr_fn="original")
    adam = torch.optim.Adam([bias], lr=PEAK)
    for step in range(4):
        kernel_gradient, bias.grad = gradients(step)
        matrix.grad = kernel_gradient.permute(order).flatten(1)
        muon.step()
        adam.step()
    assert torch.equal(pair[0].detach().permute(order).flatten(1), matrix.detach())
    assert torch.equal(pair[1], bias) and pair[0].is_contiguous(memory_format=layout)


def test_the_layout_hardly_matters_and_any_is_possible() -> None:
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        pair = parameters(layout)
        take_steps(MuonAdam(pair, PEAK), pair, range(3))
        results.append(pair[0].detach())
    strange = parameters(torch.contiguous_format)
    strange[0].data = strange[0].data.transpose(2, 3).contiguous().transpose(2, 3)
    take_steps(MuonAdam(strange, PEAK), strange, range(3))
    moved = (results[0] - parameters(torch.contiguous_format)[0]).norm()
    assert moved > 0.1
    for other in (results[1], strange[0].detach()):
        assert (other - results[0]).norm() < 0.02 * moved  # the iteration is in half precision


def test_it_goes_on_from_its_state_with_the_same_bits() -> None:
    whole, parts = parameters(torch.channels_last), parameters(torch.channels_last)
    take_steps(MuonAdam(whole, PEAK), whole, range(6))
    first = MuonAdam(parts, PEAK)
    take_steps(first, parts, range(3))
    state = first.state_dict()
    second = MuonAdam(parts, PEAK)
    second.load_state_dict(state)
    take_steps(second, parts, range(3, 6))
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


def test_the_learning_rate_of_each_group_is_its_own() -> None:
    pair = parameters(torch.contiguous_format)
    optimiser = MuonAdam(pair, PEAK)
    assert [group["peak"] for group in optimiser.param_groups] == [MUON_PEAK * PEAK, PEAK]
    optimiser.param_groups[0]["lr"] = 0.0
    before = [each.detach().clone() for each in pair]
    take_steps(optimiser, pair, range(1))
    assert torch.equal(pair[0], before[0]) and not torch.equal(pair[1], before[1])


def test_parameters_without_a_gradient_stay() -> None:
    pair = parameters(torch.contiguous_format)
    before = [each.detach().clone() for each in pair]
    MuonAdam(pair, PEAK).step()
    assert all(torch.equal(one, other) for one, other in zip(pair, before, strict=True))


def test_kernels_between_layers_go_to_muon() -> None:
    method = create_method("dista-net", pretrained=False, stages=1)
    hidden = {name for name, p in method.named_parameters() if is_hidden_kernel(p)}
    assert hidden == {"stages.0.forward_second.weight", "stages.0.backward_first.weight"}


@pytest.mark.parametrize(("name", "message"), [("sgd", "one of muon, adam, got 'sgd'"), ("muon", "no kernels of 16")])
def test_what_it_cannot_do_is_one_line(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_optimiser(name, nn.Linear(2, 2).parameters(), PEAK)
    assert "\n" not in str(caught.value)


def test_a_torch_without_muon_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(InputError, match=r"has no Muon: install 2\.9 or newer, or train with optimiser adam"):
        make_optimiser("muon", parameters(torch.contiguous_format), PEAK)
    assert isinstance(make_optimiser("adam", parameters(torch.contiguous_format), PEAK), torch.optim.Adam)


def norms(clip: GradientClip, *sizes: float) -> list[float]:
    """Norms of gradients of these sizes after clipping, two tensors each."""
    after = []
    for size in sizes:
        pair = [torch.tensor([0.6 * size]), torch.tensor([0.8 * size])]
        assert clip(pair) == pytest.approx(size)
        after.append(float(torch.stack(pair).norm()))
    return after


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("none", [1.0, 1.0, 9.0]), (0.5, [0.5, 0.5, 0.5]), ("running", [1.0, 1.0, 2.0])],
)
def test_a_gradient_is_cut_to_its_limit(limit: Any, expected: list[float]) -> None:
    assert norms(GradientClip(limit), 1.0, 1.0, 9.0) == pytest.approx(expected)


def test_the_running_mean_follows_slowly_and_is_saved() -> None:
    clip = GradientClip("running")
    assert norms(clip, *[1.0] * 3, *[3.0] * 200)[-1] == pytest.approx(3.0)
    other = GradientClip("running")
    other.load_state_dict(clip.state_dict())
    assert norms(clip, 50.0, 60.0) == norms(other, 50.0, 60.0)


def test_a_gradient_that_is_not_finite_is_left_to_the_trainer() -> None:
    clip = GradientClip("running")
    norms(clip, 1.0)
    before = clip.state_dict()
    bad = [torch.tensor([float("inf")])]
    assert clip(bad) == float("inf") and torch.isinf(bad[0]).all() and clip.state_dict() == before
