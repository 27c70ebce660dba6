"""CSO-mAP as a torchmetrics class, updated batch by batch and across processes.

The module is not named cso_map, because importing it would replace the function of that name in the package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from csist.checks import InputError
from csist.metrics.functional import (
    CSO_DISTANCES_PX,
    check_rank_by,
    lengths,
    match_detections,
    ranked_average_precision,
    ranking,
    starts,
    summarise,
)
from csist.targets import Targets

NO_ID = -1


class CSOMeanAP(Metric):
    """CSO-mAP in percent over all batches and processes, equal to `cso_map` on all images at once.

    Matching is local to an image, so `update` matches immediately. It stores the ranking value and five hits of each
    detection, and the id, number of targets and number of detections of each image. The rows of an image are
    consecutive and in the order of the images, on one process and in the gathered state, so that image numbers need
    not be unique across processes.

    Without `image_ids`, two results depend on the distribution of images over processes: detections of equal score
    rank in the order of gathering (process 0 first), and images that a distributed sampler repeats to fill the last
    batch count twice. With ids, images are sorted by id and each one counts once.

    Args:
        rank_by: "score" (as published) or "intensity".
        kwargs: options of `torchmetrics.Metric`.

    Raises:
        InputError: if `rank_by` is unknown.

    >>> metric = CSOMeanAP()
    >>> truth = Targets(x=[5.0, 5.6], y=[5.0, 5.0], intensity=[230, 240])
    >>> metric.update([truth.shifted(0.12, 0.0)], [truth])
    >>> {name: value.item() for name, value in metric.compute().items() if name != "AP10"}
    {'CSO-mAP': 60.0, 'AP05': 0.0, 'AP15': 100.0, 'AP20': 100.0, 'AP25': 100.0}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 100.0

    STATES: ClassVar[dict[str, tuple[tuple[int, ...], torch.dtype]]] = {
        "images": ((0, 3), torch.int64),
        "keys": ((0,), torch.float64),
        "hits": ((0, len(CSO_DISTANCES_PX)), torch.uint8),
    }
    """Shape and type of each state while it is empty."""

    images: list[Tensor]
    keys: list[Tensor]
    hits: list[Tensor]

    def __init__(self, rank_by: str = "score", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rank_by = check_rank_by(rank_by)
        for name in self.STATES:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self,
        predictions: Sequence[Targets],
        truths: Sequence[Targets],
        image_ids: Sequence[int] | None = None,
    ) -> None:
        """Add a batch of images.

        Args:
            predictions: detections, one `Targets` per image.
            truths: true targets, one `Targets` per image.
            image_ids: a number >= 0 for each image, the same on every process; None if no image is repeated.

        Raises:
            InputError: if the arguments differ in length, hold other things than `Targets`, or an id is
                negative.
        """
        matches = match_detections(predictions, truths, self.rank_by)
        ids = np.full(len(predictions), NO_ID) if image_ids is None else np.asarray(image_ids, dtype=np.int64)
        if ids.shape != (len(predictions),):
            raise InputError(f"image_ids must hold one number for each of {len(predictions)} images, got {ids.shape}")
        if image_ids is not None and (ids < 0).any():
            raise InputError(f"image_ids must be >= 0, got {ids.min()}")
        images = np.stack([ids, matches.truth_count, lengths(predictions)], axis=1)
        hits = np.stack([matches.hits(distance_px) for distance_px in CSO_DISTANCES_PX], axis=1)
        self.images.append(torch.as_tensor(images, device=self.device))
        self.keys.append(torch.as_tensor(matches.key, device=self.device))
        self.hits.append(torch.as_tensor(hits.astype(np.uint8), device=self.device))

    def compute(self) -> dict[str, Tensor]:
        """Return CSO-mAP, AP05, AP10, AP15, AP20, AP25 as float64 scalars, 0 to 100; NaN without any true target."""
        images, keys, hits = (self._joined(name) for name in self.STATES)
        ids, truth_count, found_count = images.T
        order = np.argsort(ids, kind="stable")
        fresh = np.ones(len(order), dtype=np.bool_)
        fresh[1:] = (ids[order][1:] != ids[order][:-1]) | (ids[order][1:] == NO_ID)
        order = order[fresh]
        count = found_count[order]
        kept = np.arange(count.sum()) + np.repeat(starts(found_count)[order] - starts(count), count)
        ranked = hits[kept].astype(np.bool_)[ranking(keys[kept])]
        total = int(truth_count[order].sum())
        result = summarise([ranked_average_precision(column, total) for column in ranked.T])
        return {name: torch.tensor(value, dtype=torch.float64, device=self.device) for name, value in result.items()}

    def sync(
        self,
        dist_sync_fn: Callable[..., Any] | None = None,
        process_group: Any | None = None,
        should_sync: bool = True,
        distributed_available: Callable[..., Any] | None = None,
    ) -> None:
        """Gather the states of all processes, including those without images.

        A process with an empty list would not take part in the gathering (or take part with a tensor of another type
        and dimension), and the others would wait for it. It sends empty rows instead.
        """
        for name, (shape, dtype) in self.STATES.items():
            state = getattr(self, name)
            if isinstance(state, list) and not state:
                state.append(torch.zeros(shape, dtype=dtype, device=self.device))
        super().sync(dist_sync_fn, process_group, should_sync, distributed_available)

    def _joined(self, name: str) -> NDArray[Any]:
        """Return all rows of a state, which is one tensor after gathering and a possibly empty list before."""
        state = getattr(self, name)
        shape, dtype = self.STATES[name]
        rows = dim_zero_cat(state) if len(state) else torch.zeros(shape, dtype=dtype)
        array: NDArray[Any] = rows.cpu().numpy()
        return array
