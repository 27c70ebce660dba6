"""Export of grid methods as self-contained ONNX graphs with network, scaling, read-out and metadata.

The graph takes `image`, float32 (batch, 1, H, W) in counts, of any batch size. Its outputs are

- `map`, float32 (batch, 1, cH, cW): intensities in counts;
- unless only the map is exported, the published read-out, with one entry per cell of at least `threshold` counts in the
  order of images, rows and columns: `index`, int64 (K,), the index of the image in the batch, and `targets`,
  float32 (K, 3), columns x, y, intensity, in px and counts.

The metadata of the file are the card of `csist.weights.cards.make_card` (method, options, ratio, sensor,
csist_version, ...) and `threshold`, each as text or JSON. Every graph is compared with torch before it is returned.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from csist.checks import InputError, check_not_negative, check_packages
from csist.files import one_line
from csist.methods.base import GridMethod
from csist.onnx.runtime import INPUT, MAP, open_session
from csist.scenes import ScenePrior, simulate

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
"""Packages of the extra `export`."""

INDEX, TARGETS = "index", "targets"
"""Names of the outputs of the read-out."""

TOLERANCE = 1e-4
"""Largest allowed difference between torch and the graph, as a fraction of the brightest cell."""

CHECKED_BATCHES = (1, 2, 5)
CHECK_SEED = 20_250_519


class ReadOut(nn.Module):
    """Grid method followed by the published read-out, as tensors: map (B, 1, cH, cW), index (K,), targets (K, 3).

    Args:
        method: the grid method.
        threshold: smallest value in counts of a cell that counts as a detection.
    """

    x: Tensor
    y: Tensor

    def __init__(self, method: GridMethod, threshold: float) -> None:
        super().__init__()
        self.method, self.threshold = method, threshold
        for name, cells in (("y", method.grid.map_shape[0]), ("x", method.grid.map_shape[1])):
            position = torch.as_tensor(method.grid.position_of(np.arange(cells)), dtype=torch.float32)
            self.register_buffer(name, position, persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the map, the image index of each detection, and its x, y and intensity."""
        cells = self.method(image)
        flat = cells.flatten()
        kept = (flat >= self.threshold).nonzero()[:, 0]
        rows, columns = self.method.grid.map_shape
        place = kept % (rows * columns)
        targets = torch.stack([self.x[place % columns], self.y[place // columns], flat[kept]], 1)
        return cells, kept // (rows * columns), targets


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the output of the exporter, which addresses developers of exporters."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _translated(network: nn.Module, shape: tuple[int, int], names: list[str]) -> Any:
    """Export a network with the given output names."""
    try:
        with _quiet(), torch.no_grad():
            return torch.onnx.export(
                network,
                (torch.zeros(2, 1, *shape),),  # two images: a batch size of one would become a constant
                input_names=[INPUT],
                output_names=names,
                dynamo=True,
                dynamic_shapes=({0: "batch"},),
                verbose=False,
            )
    except Exception as error:  # the exporter can raise almost anything
        raise RuntimeError(f"torch cannot export this network: {one_line(error)[:300]}") from error


def to_onnx(method: GridMethod, card: Mapping[str, Any], threshold: float | None) -> bytes:
    """Export a grid method as a serialised ONNX model that agrees with torch.

    Args:
        method: the grid method, in float32.
        card: card of the method, stored as metadata.
        threshold: threshold of the read-out in counts; None for the map alone.

    Raises:
        InputError: if the packages are missing or the method is not a fixed graph.
        RuntimeError: if torch cannot export the network, or onnxruntime and torch differ.
    """
    check_packages("export", PACKAGES, "export")
    if not method.exportable:
        raise InputError(
            f"cannot export {card['method']!r}: its steps depend on the image or the batch, "
            "which no fixed graph can express; export a network such as 'dista-net'"
        )
    if threshold is not None:
        check_not_negative("threshold", threshold)
    was_training = method.training
    method.eval()
    network = method if threshold is None else ReadOut(method, threshold)
    names = [MAP] if threshold is None else [MAP, INDEX, TARGETS]
    try:
        program = _translated(network.eval(), method.grid.shape, names)
        described = {**card, "threshold": threshold}
        for key, value in described.items():
            program.model.metadata_props[key] = value if isinstance(value, str) else json.dumps(value)
        model: bytes = program.model_proto.SerializeToString()
        check_agreement(method, model, threshold)
    finally:
        method.train(was_training)
    return model


@torch.no_grad()
def check_agreement(method: GridMethod, model: bytes, threshold: float | None) -> float:
    """Return the largest difference between the maps of the graph and of torch, as a fraction of the brightest cell.

    The comparison uses batches of benchmark images of several sizes. The read-out of the graph is compared with that
    of its own map.

    Raises:
        RuntimeError: if the difference is above `TOLERANCE`, or the read-outs differ.
    """
    session = open_session(model)
    rng = np.random.default_rng(CHECK_SEED)
    worst = 0.0
    for size in CHECKED_BATCHES:
        images, _ = simulate(ScenePrior.csist_100k(), method.sensor, size, rng)
        image = torch.as_tensor(images[:, None], dtype=torch.float32)
        expected = method(image)
        cells, *read_out = session.run(None, {INPUT: image.numpy()})
        brightest = float(expected.abs().max())
        difference = float((torch.from_numpy(cells) - expected).abs().max()) / max(brightest, 1e-30)
        if not difference <= TOLERANCE:
            raise RuntimeError(f"onnxruntime differs from torch by {difference:.1e}, more than {TOLERANCE:.0e}")
        worst = max(worst, difference)
        if threshold is not None and not _same_read_out(method, cells, threshold, *read_out):
            raise RuntimeError("the read-out of the graph differs from that of its map")
    return worst


def _same_read_out(
    method: GridMethod, cells: np.ndarray[Any, Any], threshold: float, index: Any, targets: np.ndarray[Any, Any]
) -> bool:
    decoded = [method.grid.decode(each, threshold) for each in cells[:, 0]]
    expected = np.concatenate([np.stack([each.x, each.y, each.intensity], axis=1) for each in decoded])
    places = np.repeat(np.arange(len(decoded)), list(map(len, decoded)))
    return np.array_equal(index, places) and bool(np.allclose(targets, expected, rtol=1e-6, atol=1e-6))
