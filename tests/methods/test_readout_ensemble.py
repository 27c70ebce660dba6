"""The mean of a method's maps over the symmetries of its sensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from csist.create import create_method
from csist.evaluation import LabelledImages, evaluate
from csist.methods.base import GridMethod
from csist.methods.readout.ensemble import EnsembleReadOut
from csist.physics.psf import AiryPSF, EllipticalGaussianPSF
from csist.physics.sensor import Sensor
from csist.physics.symmetry import SYMMETRIES, Symmetry, symmetries_of
from csist.scenes import ScenePrior, sample_scenes
from csist.targets import Targets

IMAGE = np.arange(12.0).reshape(3, 4)


class Slanted(GridMethod):
    """A method whose map favours the upper left corner of whatever it sees, unless the slant is 0."""

    slant = 0.1

    def forward(self, image: Tensor) -> Tensor:
        """Return the pixels as cells, brighter towards that corner."""
        cells = image.repeat_interleave(self.ratio, 2).repeat_interleave(self.ratio, 3)
        rows, columns = (torch.arange(n, dtype=cells.dtype) for n in cells.shape[-2:])
        return cells * (1 + self.slant / (1 + rows[:, None] + 2 * columns))


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_a_symmetry_is_undone(symmetry: Symmetry) -> None:
    assert (symmetry.undo(symmetry.turn(IMAGE)) == IMAGE).all()
    assert (symmetry.turn(symmetry.undo(IMAGE)) == IMAGE).all()


def test_the_eight_symmetries_differ_and_begin_with_none() -> None:
    square = np.arange(9.0).reshape(3, 3)
    assert (SYMMETRIES[0].turn(square) == square).all()
    assert len({symmetry.turn(square).tobytes() for symmetry in SYMMETRIES}) == 8


@pytest.mark.parametrize(
    ("sensor", "number"),
    [
        (Sensor(), 8),
        (Sensor(AiryPSF(1.1), background=7.0), 8),
        (Sensor(shape=(9, 11)), 4),
        (Sensor(shape=(1, 1)), 8),
        (Sensor(EllipticalGaussianPSF(0.4, 0.8)), 4),
        (Sensor(EllipticalGaussianPSF(0.4, 0.8, angle_deg=45.0)), 4),
        (Sensor(EllipticalGaussianPSF(0.4, 0.8, angle_deg=20.0)), 2),
    ],
)
def test_the_symmetries_are_those_of_shape_and_psf(sensor: Sensor, number: int) -> None:
    found = symmetries_of(sensor)
    assert len(found) == number and found[0] == SYMMETRIES[0]


def test_the_mean_map_turns_with_the_image_where_the_method_does_not() -> None:
    sensor = Sensor(shape=(7, 7))
    method = EnsembleReadOut(Slanted(sensor, 3))
    scene = Targets(x=[2.2], y=[4.4], intensity=[300.0])
    image = sensor.observe(scene, rng=0)
    maps = {}
    for symmetry in SYMMETRIES:
        turned = symmetry.turn(image)[None]
        alone = method.method.predict_maps(turned)
        maps[symmetry] = symmetry.undo(method.mean_maps(turned, alone))[0]
        before = alone.copy()
        method.read(turned, alone)
        assert (alone == before).all()
    plain = maps[SYMMETRIES[0]]
    for turned_back in maps.values():
        np.testing.assert_allclose(turned_back, plain, rtol=1e-6, atol=1e-6)
    assert np.abs(plain - method.method.predict_maps(image[None])[0]).max() > 0.05


def test_a_method_with_the_symmetries_keeps_its_map() -> None:
    method = EnsembleReadOut(Slanted(Sensor(), 3))
    method.method.slant = 0.0
    images = np.random.default_rng(0).uniform(0, 100, (3, 11, 11))
    alone = method.method.predict_maps(images)
    np.testing.assert_allclose(method.mean_maps(images, alone), alone, rtol=1e-12)
    assert method.predict(images[:0]) == []


def test_evaluation_shares_the_map_of_the_image_as_it_is() -> None:
    # Of 40 images the errors of a few decide.
    scenes = sample_scenes(ScenePrior.csist_100k(), Sensor(), 120, seed=5)
    images = np.stack([Sensor().observe(scene, seed) for seed, scene in enumerate(scenes)])
    names = [("a.h5", n) for n in range(120)]
    data = LabelledImages("a.h5", "val", images, scenes, Sensor(), ScenePrior.csist_100k(), names, 120)
    result = evaluate(data, ["dista-net", "dista-net+ensemble"], resamples=0, references=())
    alone, ensemble = result.rows
    assert ensemble["CSO-mAP"] != alone["CSO-mAP"]
    direct = create_method("dista-net+ensemble", Sensor(), 3)
    assert result.predictions["dista-net+ensemble"] == direct.predict(images)
    maps = direct.method.predict_maps(images)
    grid = direct.method.grid
    true = np.stack([grid.encode(scene) for scene in scenes])
    assert ((direct.mean_maps(images, maps) - true) ** 2).mean() < ((maps - true) ** 2).mean()
