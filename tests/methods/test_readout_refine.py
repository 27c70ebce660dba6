"""The climb after a grid method: exact recovery, honest errors, bounds, and NAME+SUFFIX in the registry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import csist
from csist import evaluation
from csist.checks import InputError
from csist.create import create_method
from csist.grid import SubPixelGrid
from csist.methods.base import GridMethod
from csist.methods.ista import ISTA
from csist.methods.readout import refine
from csist.methods.readout.centroid import CentroidReadOut
from csist.methods.readout.refine import MOST_TARGETS, REACH_PX, Refined
from csist.methods.table import abilities, canonical_name, list_methods, split_name
from csist.physics.psf import AiryPSF, GaussianPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, sample_scenes
from csist.targets import Flag, Targets

FloatArray = NDArray[np.float64]

EXACT = Sensor(shape=(9, 11), quantised=False)
PAIR = Targets(x=[3.23, 6.44], y=[4.13, 5.75], intensity=[230.0, 120.0])


class KnownMaps(GridMethod):
    """A grid method that answers with the map that it was given for each image."""

    def __init__(self, sensor: Sensor, ratio: int, maps: FloatArray) -> None:
        super().__init__(sensor, ratio)
        self.maps = maps

    def predict_maps(self, images: FloatArray) -> FloatArray:
        """The given maps."""
        assert len(images) == len(self.maps)
        return self.maps


def refined(scenes: list[Targets], sensor: Sensor, images: FloatArray, ratio: int = 3, **options: Any) -> list[Targets]:
    """The answer to images whose maps are the encoded scenes."""
    grid = SubPixelGrid(sensor.shape, ratio)
    maps = np.stack([grid.encode(scene) for scene in scenes])
    return Refined(KnownMaps(sensor, ratio, maps), **options).predict(images)


def benchmark_images(count: int, seed: int) -> tuple[list[Targets], FloatArray]:
    scenes = sample_scenes(ScenePrior.csist_100k(), Sensor(), count, seed=seed)
    return scenes, np.stack([Sensor().observe(scene, seed + n) for n, scene in enumerate(scenes)])


@pytest.mark.parametrize("ratio", [2, 3, 5])
@pytest.mark.parametrize(
    ("sensor", "tolerance_px", "tolerance"),
    [
        (EXACT, 2e-3, 2e-3),
        (replace(EXACT, background=40.0), 2e-3, 2e-3),
        # The likelihood leaves the rings of an Airy pattern out.
        (replace(EXACT, psf=AiryPSF(1.3)), 6e-3, 1e-2),
        # Noise that grows with the light widens the posterior, and its logarithm pulls it off the truth.
        (replace(EXACT, gain=2.0), 1.5e-2, 4e-2),
    ],
    ids=["plain", "background", "airy", "gain"],
)
def test_without_noise_it_leaves_the_grid_and_finds_the_truth(
    sensor: Sensor, tolerance_px: float, tolerance: float, ratio: int
) -> None:
    found = refined([PAIR], sensor, sensor.render(PAIR)[None], ratio)[0]
    start = SubPixelGrid(sensor.shape, ratio).snap(PAIR)
    assert max(abs(start.x - PAIR.x)) > 2 * tolerance_px
    assert found.x == pytest.approx(PAIR.x, abs=tolerance_px)
    assert found.y == pytest.approx(PAIR.y, abs=tolerance_px)
    assert found.intensity == pytest.approx(PAIR.intensity, rel=tolerance)
    assert not (found.flags & (Flag.AT_BOUND | Flag.NOT_CONVERGED)).any()


def test_errors_are_those_of_the_numeric_fisher_information() -> None:
    sensor = Sensor(shape=(9, 11), read_noise=1.0)
    rng = np.random.default_rng(4)
    images = np.stack([sensor.observe(PAIR, rng) for _ in range(40)])
    found = refined([PAIR] * 40, sensor, images)
    step = 1e-4
    columns = []
    for name in ("x", "y", "intensity"):
        for k in range(2):
            up, down = (np.array(getattr(PAIR, name)) for _ in range(2))
            up[k] += step
            down[k] -= step
            difference = sensor.render(PAIR.replace(**{name: up})) - sensor.render(PAIR.replace(**{name: down}))
            columns.append(difference.ravel() / (2 * step))
    jacobian = np.stack(columns, axis=1)
    information = jacobian.T @ jacobian / (1.0 + 1.0 / 12.0)
    information[range(4), range(4)] += 12.0 / (2.0 * REACH_PX) ** 2
    expected = np.sqrt(np.diag(np.linalg.inv(information))).reshape(3, 2)
    for name, errors in zip(("x_std", "y_std", "intensity_std"), expected, strict=True):
        stated = np.stack([getattr(targets, name) for targets in found])
        # Where chi-squared is above its mean they grow a little.
        assert np.median(stated, axis=0) == pytest.approx(errors, rel=0.15)
    assert np.std([t.x - PAIR.x for t in found], axis=0) == pytest.approx(expected[0], rel=0.4)


def test_noise_that_nobody_stated_shows_in_the_errors() -> None:
    stated, silent = (Sensor(shape=(9, 11), read_noise=noise) for noise in (6.0, 0.0))
    images = np.stack([stated.observe(PAIR, n) for n in range(20)])
    honest, unaware = (refined([PAIR] * 20, sensor, images) for sensor in (stated, silent))
    ratio = [b.x_std / a.x_std for a, b in zip(honest, unaware, strict=True)]
    assert np.median(ratio) == pytest.approx(1.0, rel=0.15)
    assert all((targets.flags & Flag.POOR_FIT).all() for targets in unaware)
    assert not any((targets.flags & Flag.POOR_FIT).any() for targets in honest)


def test_a_lone_target_is_surer_than_a_pair_hard_to_tell_apart() -> None:
    scene = Targets(x=[1.0, 7.0, 7.45], y=[1.0, 6.0, 6.3], intensity=[150.0, 240.0, 240.0])
    sensor = Sensor(shape=(9, 11), read_noise=2.0)
    found = refined([scene], sensor, sensor.observe(scene, 0)[None])[0]
    lone = found.score[np.argmin(found.x)]
    assert len(found) == 3 and lone == found.score.max() > 0.9
    assert ((found.score >= 0) & (found.score <= 1)).all()
    # The order by flux, a grid read-out's, would be the other way round.
    assert found.intensity[np.argmin(found.x)] < found.intensity.max()


def test_positions_stay_near_their_cell_and_inside_the_image() -> None:
    grid = SubPixelGrid((11, 11), 3)
    scenes, images = benchmark_images(30, 50)
    # Maps of other images: nothing fits, every target is pushed about.
    maps = np.stack([grid.encode(scene) for scene in scenes[1:] + scenes[:1]])
    found = Refined(KnownMaps(Sensor(), 3, maps)).predict(images)
    starts = [grid.centroids(cells) for cells in maps]
    for targets, start in zip(found, starts, strict=True):
        near = np.maximum(abs(targets.x[:, None] - start.x), abs(targets.y[:, None] - start.y)).min(axis=1, initial=9)
        assert (near <= REACH_PX + 1e-9).all()
        assert (targets.intensity > 0).all()
        assert ((targets.x >= -0.5) & (targets.x <= 10.5) & (targets.y >= -0.5) & (targets.y <= 10.5)).all()
    assert any((targets.flags & Flag.AT_BOUND).any() for targets in found)


def test_neither_batch_nor_order_nor_threads_matter() -> None:
    scenes, images = benchmark_images(70, 7)
    together = refined(scenes, Sensor(), images, workers=3)
    assert refined(scenes[::-1], Sensor(), images[::-1], workers=1) == together[::-1]
    assert [refined(scenes[n : n + 1], Sensor(), images[n : n + 1])[0] for n in (0, 33, 69)] == [
        together[n] for n in (0, 33, 69)
    ]
    before = images.copy()
    refined(scenes, Sensor(), images)
    assert np.array_equal(before, images)


def test_it_beats_its_own_grid() -> None:
    scenes, images = benchmark_images(60, 900)
    found = refined(scenes, Sensor(), images)
    snapped = [SubPixelGrid((11, 11), 3).snap(scene) for scene in scenes]
    cells = [targets.replace(score=targets.intensity) for targets in snapped]
    plain, score = csist.metrics.cso_map(cells, scenes), csist.metrics.cso_map(found, scenes)
    assert score["CSO-mAP"] > plain["CSO-mAP"] + 10 and score["AP05"] > plain["AP05"] + 15
    ranked_by_flux = csist.metrics.cso_map(found, scenes, rank_by="intensity")
    assert score["CSO-mAP"] > ranked_by_flux["CSO-mAP"]


def test_a_prior_bounds_fluxes_and_number() -> None:
    scenes, images = benchmark_images(60, 300)
    grid = SubPixelGrid((11, 11), 3)
    maps = np.stack([grid.encode(scene) for scene in scenes])
    # Each cell's flux halved and given to the cell to the right: twice as many cells as targets.
    smeared = 0.5 * maps + 0.5 * np.roll(maps, 1, axis=2)
    smeared[:, :, 0] = 0.0
    method = KnownMaps(Sensor(), 3, smeared)
    known, unknown = (Refined(method, prior=p).predict(images) for p in (ScenePrior.csist_100k(), None))
    assert all(((t.intensity >= 220.0) & (t.intensity <= 250.0)).all() for t in known)
    assert csist.metrics.count_accuracy(known, scenes) > 0.9 >= csist.metrics.count_accuracy(unknown, scenes)
    assert csist.metrics.cso_map(known, scenes)["CSO-mAP"] > csist.metrics.cso_map(unknown, scenes)["CSO-mAP"]


def test_light_that_the_map_misses_splits_a_target_where_the_prior_demands_it() -> None:
    scenes, images = benchmark_images(60, 300)
    grid = SubPixelGrid((11, 11), 3)
    # The last target of each group is missing in the map.
    maps = np.stack([grid.encode(scene[:-1] if len(scene) > 1 else scene) for scene in scenes])
    method = KnownMaps(Sensor(), 3, maps)
    known, unknown = (Refined(method, prior=p).predict(images) for p in (ScenePrior.csist_100k(), None))
    assert csist.metrics.count_accuracy(known, scenes) > 0.95 > 0.5 > csist.metrics.count_accuracy(unknown, scenes)
    whole = Refined(KnownMaps(Sensor(), 3, np.stack([grid.encode(scene) for scene in scenes])), ScenePrior.csist_100k())
    scores = [csist.metrics.cso_map(found, scenes)["CSO-mAP"] for found in (known, whole.predict(images))]
    assert scores[0] > scores[1] - 5.0


def test_chains_leave_out_modes_that_are_far_less_likely() -> None:
    modes = np.arange(2.0 * refine.STARTS).reshape(1, refine.STARTS, 2)
    misfit = np.full((1, refine.STARTS), 1000.0)
    misfit[0, [3, 5]] = 7.0, 7.0 + refine.UNLIKELY
    climbed = refine.Climbed(modes, misfit, np.zeros((1, 1), bool), np.ones(1, bool))
    expected = np.tile(modes[:, 3:4], (1, refine.STARTS, 1))
    expected[0, 5] = modes[0, 5]
    assert np.array_equal(refine._likely(climbed, np.ones(1)), expected)
    # Where nothing fits, the noise is larger and all of them are possible.
    assert np.array_equal(refine._likely(climbed, np.full(1, 1e3)), modes)


def test_a_prior_without_width_is_taken_at_its_word() -> None:
    prior = ScenePrior(count_range=(1, 3), intensity_range=(200.0, 200.0))
    scene = Targets(x=[3.3], y=[4.1], intensity=[200.0])
    found = refined([scene], EXACT, EXACT.render(scene)[None], prior=prior)[0]
    assert found.intensity == pytest.approx(200.0) and found.intensity_std[0] < 1e-3
    assert found.x == pytest.approx([3.3], abs=2e-3)


def test_nothing_in_gives_nothing_out() -> None:
    method = KnownMaps(Sensor(), 3, np.zeros((2, 33, 33)))
    for prior in (None, ScenePrior.csist_100k()):
        assert Refined(method, prior).predict(np.zeros((2, 11, 11))) == [Targets.empty()] * 2
    assert Refined(KnownMaps(Sensor(), 3, np.zeros((0, 33, 33)))).predict(np.zeros((0, 11, 11))) == []


def test_missing_pixels_are_left_out_and_saturated_ones_are_bounds() -> None:
    sensor = replace(EXACT, saturation=60.0)
    clipped = np.minimum(EXACT.render(PAIR), 60.0)
    holed = EXACT.render(PAIR)
    holed[4, 4] = np.nan
    for image, used, flag in ((clipped, sensor, Flag.SATURATED), (holed, EXACT, Flag.MASKED)):
        found = refined([PAIR], used, image[None])[0]
        assert found.x == pytest.approx(PAIR.x, abs=0.03) and (found.flags & flag).all()
        assert found.intensity == pytest.approx(PAIR.intensity, rel=0.05)
    # A map without a number, as most methods give it for an image with NaN, is an empty one.
    method = KnownMaps(EXACT, 3, np.full((1, 27, 33), np.nan))
    assert Refined(method).predict(holed[None]) == [Targets.empty()]


def test_a_map_full_of_cells_stays_bounded() -> None:
    cells = np.zeros((1, 27, 33))
    cells[0, ::2, ::2] = np.random.default_rng(0).uniform(60, 200, (14, 17))
    found = Refined(KnownMaps(EXACT, 3, cells)).predict(np.full((1, 9, 11), 50.0))[0]
    assert 0 < len(found) <= MOST_TARGETS
    assert np.isfinite(found.x).all() and np.isfinite(found.intensity).all()


def test_what_fades_in_the_climb_is_dropped() -> None:
    ghost = Targets.concatenate([PAIR, Targets(x=[9.0], y=[1.0], intensity=[80.0])])
    image = EXACT.render(PAIR)[None]
    grid = SubPixelGrid(EXACT.shape, 3)
    method = Refined(KnownMaps(EXACT, 3, grid.encode(ghost)[None]))
    assert len(method.predict(image)[0]) == 2
    everything = method.predict(image, threshold=0.0)[0]
    assert len(everything) == 3 and everything.intensity.min() < 1.0


def test_bad_images_and_methods_are_refused() -> None:
    method = Refined(KnownMaps(EXACT, 3, np.zeros((1, 27, 33))))
    with pytest.raises(InputError, match=r"of \(9, 11\) px, got shape \(1, 11, 9\)"):
        method.predict(np.zeros((1, 11, 9)))
    with pytest.raises(InputError, match="only a grid method can be refined, got str"):
        Refined("ista")  # type: ignore[arg-type]


def test_suffixes_in_the_registry() -> None:
    assert canonical_name(" ISTA_Net+Refine") == "ista-net+refine"
    assert split_name("ista") == ("ista", None)
    assert not any("+" in name for name in list_methods())
    assert [abilities(n).prior for n in ("continuous", "ista", "ista+refine", "ista+centroid")] == [
        True,
        False,
        True,
        False,
    ]
    method = create_method("ista+refine", EXACT, 4, start="zero", iterations=7, prior=ScenePrior.csist_100k())
    assert isinstance(method, Refined) and isinstance(method.method, ISTA)
    assert (method.method.iterations, method.method.ratio, method.sensor) == (7, 4, EXACT)
    assert method.prior == ScenePrior.csist_100k()
    assert isinstance(create_method("fista+centroid", start="zero"), CentroidReadOut)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ista+peak", {}, "unknown suffix 'peak' of method 'ista[+]peak': use centroid or ensemble or refine or yolo"),
        ("ista+", {}, "unknown suffix ''"),
        ("ista+refine+refine", {}, "unknown suffix 'refine[+]refine'"),
        ("istaa+refine", {}, "did you mean 'ista[+]refine'"),
        ("continuous+refine", {}, "has no map to read out: leave out '[+]refine'"),
        ("continuous+centroid", {}, "leave out '[+]centroid'"),
        ("ista+centroid", {"prior": ScenePrior.flat()}, "does not take prior"),
        ("ista+refine", {"colour": 3}, "does not take colour"),
        ("ista-net+refine", {"ratio": 9}, "no trained weights of ista-net for ratio 9"),
        ("ista+refine", {"pretrained": "w.safetensors"}, "has no weights to load"),
    ],
)
def test_bad_names_and_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        create_method(name, **options)
    assert "\n" not in str(caught.value)


def test_evaluation_and_unmix_take_suffixes(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes, images = benchmark_images(12, 40)
    names = [("a.h5", n) for n in range(12)]
    data = evaluation.LabelledImages(
        Path("a.h5"), "val", images, scenes, Sensor(), ScenePrior.csist_100k(), names, len(scenes)
    )
    priors = []
    monkeypatch.setattr(refine, "flux_bounds", lambda prior, *_: priors.append(prior) or prior.intensity_range)
    result = evaluation.evaluate(data, ["ista", "ISTA+centroid", "ista+refine"], resamples=0, references=())
    assert [row["name"] for row in result.rows] == ["ista", "ista+centroid", "ista+refine"]
    cells, centroid, refined_row = result.rows
    assert refined_row["CSO-mAP"] > max(cells["CSO-mAP"], centroid["CSO-mAP"])
    assert centroid["detections"] < cells["detections"]
    assert refined_row["coverage"] is not None and centroid["coverage"] is None
    assert priors == [data.prior]
    found = csist.unmix(images, Sensor(), data.prior, "ista+refine", noise_std=0.0)
    assert found == result.predictions["ista+refine"]
    with pytest.raises(InputError, match="prior is for the method 'continuous'"):
        csist.unmix(images, Sensor(), data.prior, "ista+centroid")


def test_unmix_estimates_noise_that_is_not_stated() -> None:
    noisy = Sensor(read_noise=4.0)
    scene = Targets(x=[5.2], y=[4.9], intensity=[240.0])
    images = np.stack([noisy.observe(scene, n) for n in range(8)])
    found = csist.unmix(images, Sensor(psf=GaussianPSF(0.5)), method="ista+refine", start="zero")
    assert isinstance(found, list)
    assert not any((targets.flags & Flag.POOR_FIT).any() for targets in found)
