"""The torchmetrics class against the function: batches, copies, and two real processes."""

import json
import warnings
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch

from csist.checks import InputError
from csist.metrics import CSOMeanAP, cso_map
from csist.targets import Targets


def noisy_batch(images=24, seed=0):
    """Scenes with misses, false alarms, empty images and scores that are often equal."""
    rng = np.random.default_rng(seed)
    truths, predictions = [], []
    for n in rng.integers(0, 5, images):
        truths.append(Targets(x=rng.random(n), y=rng.random(n), intensity=rng.uniform(220, 250, n)))
        keep = truths[-1][rng.random(n) > 0.1]
        m = len(keep)
        near = keep.replace(x=keep.x + rng.normal(0, 0.1, m), score=rng.choice([0.2, 0.5, 0.8, np.nan], m))
        alarm = Targets(x=rng.random(1), y=rng.random(1), intensity=[100.0], score=rng.choice([0.2, 0.5], 1))
        predictions.append(Targets.concatenate([near, alarm] if rng.random() < 0.3 else [near]))
    return predictions, truths


def numbers(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def fed(predictions, truths, size=5, **options):
    metric = CSOMeanAP(**options)
    for start in range(0, len(truths), size):
        metric.update(predictions[start : start + size], truths[start : start + size])
    return metric


@pytest.mark.parametrize("rank_by", ["score", "intensity"])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_batches_give_what_the_function_gives(rank_by, size):
    predictions, truths = noisy_batch()
    metric = fed(predictions, truths, size, rank_by=rank_by)
    assert numbers(metric) == pytest.approx(cso_map(predictions, truths, rank_by), rel=0, abs=1e-12)


def test_values_are_double_scalars_and_the_class_knows_its_direction():
    predictions, truths = noisy_batch()
    value = fed(predictions, truths).compute()["CSO-mAP"]
    assert (value.dtype, value.shape) == (torch.float64, ())
    assert CSOMeanAP.higher_is_better is True
    assert CSOMeanAP.is_differentiable is False


def test_forward_scores_the_batch_and_keeps_the_whole():
    predictions, truths = noisy_batch()
    metric = CSOMeanAP()
    first = {name: value.item() for name, value in metric(predictions[:9], truths[:9]).items()}
    metric(predictions[9:], truths[9:])
    assert first == pytest.approx(cso_map(predictions[:9], truths[:9]), abs=1e-12)
    assert numbers(metric) == pytest.approx(cso_map(predictions, truths), abs=1e-12)


def test_copies_and_reset():
    predictions, truths = noisy_batch()
    metric = fed(predictions[:10], truths[:10])
    for copy in (ForkingPickler.loads(ForkingPickler.dumps(metric)), metric.clone()):
        assert numbers(copy) == numbers(metric)
        copy.update(predictions[10:], truths[10:])
        assert numbers(copy) == pytest.approx(cso_map(predictions, truths), abs=1e-12)
    assert numbers(metric) == pytest.approx(cso_map(predictions[:10], truths[:10]), abs=1e-12)
    metric.reset()
    metric.update(predictions[10:], truths[10:])
    assert numbers(metric) == pytest.approx(cso_map(predictions[10:], truths[10:]), abs=1e-12)


def test_no_image_and_no_detection():
    metric = CSOMeanAP()
    metric.update([], [])
    assert np.isnan(numbers(metric)["CSO-mAP"])
    metric.update([Targets.empty()], [Targets(x=[1.0], y=[1.0], intensity=[1.0])])
    assert numbers(metric)["CSO-mAP"] == 0.0


def test_ids_order_the_images_and_drop_repeats():
    predictions, truths = noisy_batch()
    order = np.random.default_rng(1).permutation(len(truths)).tolist()
    metric = CSOMeanAP()
    for start in range(0, len(order), 5):
        chosen = order[start : start + 5] + order[:2]
        metric.update([predictions[i] for i in chosen], [truths[i] for i in chosen], image_ids=chosen)
    assert numbers(metric) == pytest.approx(cso_map(predictions, truths), rel=0, abs=1e-12)


def test_errors_name_the_value():
    one = Targets(x=[1.0], y=[1.0], intensity=[1.0])
    metric = CSOMeanAP()
    with pytest.raises(InputError, match="got 1 and 2 images"):
        metric.update([one], [one, one])
    with pytest.raises(InputError, match=r"each of 1 images, got \(2,\)"):
        metric.update([one], [one], image_ids=[1, 2])
    with pytest.raises(InputError, match="must be >= 0, got -3"):
        metric.update([one], [one], image_ids=[-3])
    with pytest.raises(InputError, match="got 'flux'"):
        CSOMeanAP(rank_by="flux")


# Images of each of the two processes, in the order in which they see them.
SPLITS = {
    "uneven": (range(0, 15), range(15, 24)),
    "second empty": (range(24), range(0)),
    "first empty": (range(0), range(24)),
    "one image": (range(0), range(3, 4)),
}


def in_process(rank: int, folder: str) -> None:
    """One of two processes: every split, then repeated images, then none at all."""
    warnings.filterwarnings("ignore", message="The ``compute`` method of metric", category=UserWarning)
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    predictions, truths = noisy_batch()
    result = {}
    for name, split in SPLITS.items():
        mine = list(split[rank])
        metric = CSOMeanAP()
        for start in range(0, len(mine), 4):
            chosen = mine[start : start + 4]
            metric.update([predictions[i] for i in chosen], [truths[i] for i in chosen])
        result[name] = numbers(metric)
    metric = CSOMeanAP()
    for chosen in (
        [rank, rank + 2, rank + 4],
        [*range(6 + rank, 24, 2), 0, 1],
    ):  # as a sampler deals and refills
        metric.update([predictions[i] for i in chosen], [truths[i] for i in chosen], image_ids=chosen)
        result["interleaved"] = numbers(metric)  # in between as well: gathering must not keep the other's rows
    result["nothing"] = numbers(CSOMeanAP())
    Path(folder, f"{rank}.json").write_text(json.dumps(result))
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo")
def test_two_processes_agree_with_the_function(tmp_path):
    torch.multiprocessing.spawn(in_process, args=(str(tmp_path),), nprocs=2)
    predictions, truths = noisy_batch()
    expected = {
        name: cso_map([predictions[i] for i in (*a, *b)], [truths[i] for i in (*a, *b)])
        for name, (a, b) in SPLITS.items()
    }
    expected["interleaved"] = cso_map(predictions, truths)
    expected["nothing"] = cso_map([], [])
    for rank in range(2):
        result = json.loads((tmp_path / f"{rank}.json").read_text())
        assert result.keys() == expected.keys()
        for name, value in expected.items():
            assert result[name] == pytest.approx(value, rel=0, abs=1e-9, nan_ok=True), name
