"""Windows for training: they cut, put back, and teach what the whole image would."""

import numpy as np
import pytest
import torch

from csist.checks import InputError
from csist.create import create_method
from csist.grid import encode_arrays
from csist.methods.crop import Cropper
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
    assert torch.equal(crop.embed(crop.map(truth)), truth)
    # rounding to counts leaves nothing of the light beyond the window
    assert torch.equal(crop.image(image).sum((1, 2, 3)), image.sum((1, 2, 3)))


def test_the_operator_of_the_window_is_that_of_the_image(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    _, truth = batch
    whole = create_method("ista-net", sensor=SENSOR, ratio=RATIO, pretrained=False, stages=1).double().operator
    crop = Cropper(SENSOR, RATIO, SIZE).double()(truth)
    assert torch.allclose(crop.operator(crop.map(truth)), crop.image(whole(truth)), atol=1e-9)


@pytest.mark.parametrize("name", ["ista-net", "ista-net-plus"])
def test_a_window_teaches_what_the_whole_image_would(name: str, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Without biases, where nothing shines all features are zero: loss and gradient agree but for faint light."""
    image, truth = batch
    torch.manual_seed(0)
    method = create_method(name, sensor=SENSOR, ratio=RATIO, pretrained=False, stages=2).double()
    cropper = Cropper(SENSOR, RATIO, 7).double()
    gradients = []
    for crop in (None, cropper(truth)):
        method.zero_grad()
        discrepancy, constraint = method.loss_terms(image, truth, crop=crop)
        (discrepancy + constraint).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in method.parameters()]))
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
