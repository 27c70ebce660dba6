"""Windows for training: they cut, put back, and teach what the whole image would."""

import numpy as np
import pytest
import torch

from csist.checks import InputError
from csist.create import create_method
from csist.grid import encode_arrays
from csist.methods.crop import Crop, Cropper, with_dark
from csist.methods.layers import without_start
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, simulate

SENSOR = Sensor(shape=(9, 11))
SIZE, RATIO = 5, 3


@pytest.fixture(scope="module")
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    images, targets = simulate(ScenePrior.csist_100k(), SENSOR, 40, np.random.default_rng(4))
    grid = create_method("ista", sensor=SENSOR, ratio=RATIO).grid
    return torch.as_tensor(images[:, None]), torch.as_tensor(encode_arrays(grid, targets)[:, None]).double()


def test_a_window_holds_the_group_and_comes_back_in_its_place(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    image, truth = batch
    crop = Cropper(SENSOR, RATIO, SIZE)(truth)
    assert crop.image(image).shape == (40, 1, SIZE, SIZE)
    assert crop.map(truth).shape == (40, 1, RATIO * SIZE, RATIO * SIZE)
    assert torch.equal(crop.embed(with_dark(crop.map(truth))), with_dark(truth))
    # rounding to counts leaves nothing of the light beyond the window
    assert torch.equal(crop.image(image).sum((1, 2, 3)), image.sum((1, 2, 3)))


def test_the_operator_of_the_window_is_that_of_the_image(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    _, truth = batch
    whole = create_method("ista-net", sensor=SENSOR, ratio=RATIO, pretrained=False, stages=1).double().operator
    crop = Cropper(SENSOR, RATIO, SIZE).double()(truth)
    assert torch.allclose(crop.operator(crop.map(truth)), crop.image(whole(truth)), atol=1e-9)


@pytest.mark.parametrize("name", ["dista-net", "fista-net"])
@torch.no_grad()
def test_beside_a_window_is_what_the_whole_image_has_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing shines, the features of a network with biases are not zero.

    One stage looks 6 cells far: a window 2 px away from the border has the map of the whole image. At the border, only
    its corners there differ, beside which the border is felt, too.
    """
    sensor, size = Sensor(shape=(17, 19)), 7
    images, targets = simulate(ScenePrior.csist_100k(), sensor, 30, np.random.default_rng(5))
    torch.manual_seed(0)
    with without_start():
        method = create_method(name, sensor=sensor, ratio=RATIO, pretrained=False, start="xavier", stages=1).double()
    for key, parameter in method.named_parameters():
        if key.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    image = torch.as_tensor(images[:, None])
    truth = torch.as_tensor(encode_arrays(method.grid, targets)[:, None]).double()
    crop = Cropper(sensor, RATIO, size).double()(truth)
    row, column = (each // RATIO for each in np.divmod(truth.flatten(1).argmax(1).numpy(), method.grid.map_shape[1]))
    clear = torch.as_tensor((row >= 5) & (row < 12) & (column >= 5) & (column < 14))
    assert 5 < int(clear.sum()) < 25
    whole, of_whole = method.forward_with_residuals(image)
    whole, of_whole = crop.map(whole), crop.map(of_whole[0])
    found, residuals = method.forward_with_residuals(image, crop=crop)
    torch.testing.assert_close(found[clear], whole[clear], rtol=0.0, atol=0.01)
    torch.testing.assert_close(residuals[0][clear, :1], of_whole[clear], rtol=1e-3, atol=0.01)

    monkeypatch.setattr(Crop, "surround", lambda self, features: torch.nn.functional.pad(features, (1, 1, 1, 1)))
    with_zeros, _ = method.forward_with_residuals(image, crop=crop)
    assert float((with_zeros - whole)[clear].abs().max()) > 5.0
    assert float(((found - whole) ** 2).mean()) < 0.2 * float(((with_zeros - whole) ** 2).mean())


@pytest.mark.parametrize("name", ["ista-net", "ista-net-plus", "dista-net", "fista-net"])
def test_a_window_teaches_what_the_whole_image_would(name: str, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Loss and gradient agree but for faint light and what the border of the image does to the middle."""
    image, truth = batch
    torch.manual_seed(0)
    method = create_method(name, sensor=SENSOR, ratio=RATIO, pretrained=False, stages=2).double()
    cropper = Cropper(SENSOR, RATIO, 7).double()
    gradients = []
    for crop in (None, cropper(truth)):
        method.zero_grad()
        discrepancy, constraint = method.loss_terms(image, truth, crop=crop)
        (discrepancy + constraint).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None]))
        assert discrepancy.item() > 0.0
    cosine = torch.nn.functional.cosine_similarity(gradients[0], gradients[1], dim=0)
    assert cosine.item() > 0.99


@pytest.mark.parametrize("size", [0, 10])
def test_a_window_must_fit(size: int) -> None:
    with pytest.raises(InputError, match=f"window must be between 1 and 9 px.*got {size}"):
        Cropper(SENSOR, RATIO, size)


def test_dense_networks_refuse_windows(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    image, truth = (each.float() for each in batch)
    method = create_method("lamp", sensor=SENSOR, ratio=RATIO, pretrained=False, layers=1)
    with pytest.raises(InputError, match="LAMP cannot be trained on windows"):
        method.loss_terms(image, truth, crop=Cropper(SENSOR, RATIO, SIZE)(truth))


def test_the_released_form_refuses_windows(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Its kernels act across a batch of 64, in which a dark sample has no place."""
    image, truth = (each.float() for each in batch)
    method = create_method(
        "dista-net", sensor=SENSOR, ratio=RATIO, pretrained=False, stages=1, published_code=True, start="xavier"
    )
    with pytest.raises(InputError, match="published_code=True cannot be trained on windows"):
        method.loss_terms(image[:1], truth[:1], crop=Cropper(SENSOR, RATIO, SIZE)(truth[:1]))
