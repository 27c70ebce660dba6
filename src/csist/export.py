"""Grid methods as ONNX graphs that need nothing else: network, scaling and read-out, and what they belong to.

The graph takes `image`, float32 (batch, 1, H, W) in counts, any batch, and answers with

- `map`, float32 (batch, 1, cH, cW): intensities in counts;
- unless the map alone is asked for, the published read-out of it, one entry a cell of at least `threshold` counts,
  in the order of images, rows and columns: `index`, int64 (K,), the place of its image in the batch, and `targets`,
  float32 (K, 3), columns x, y, intensity, in px and counts.

Metadata of the file: what `csist.checkpoint.make_card` gives (method, options, ratio, sensor, csist_version, ...)
and `threshold`, each a text or JSON. Every graph is compared with torch before anyone gets it.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from csist.checkpoint import SUFFIX, find_pretrained, make_card, read_card
from csist.checks import InputError, check_not_negative, check_packages
from csist.datasets.scenes import ScenePrior
from csist.grid import READ_OUT_THRESHOLD
from csist.io import atomic_path, check_writable, one_line
from csist.methods.base import GridMethod
from csist.methods.layers import simulate
from csist.methods.onnx_method import INPUT, MAP, ONNX_SUFFIX, OnnxMethod, open_session, read_onnx
from csist.methods.registry import METHODS, create_method, split_name
from csist.physics.sensor import Sensor

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
"""Of the extra `export`."""

INDEX, TARGETS = "index", "targets"
"""Names of the outputs of the read-out."""

TOLERANCE = 1e-4
"""Largest difference between torch and the graph, as a share of the brightest cell."""

CHECKED_BATCHES = (1, 2, 5)
CHECK_SEED = 20_250_519


class ReadOut(nn.Module):
    """A grid method with the published read-out, as tensors: map (B, 1, cH, cW), index (K,), targets (K, 3).

    Args:
        method: the grid method.
        threshold: cells below are dropped, in counts.
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
        """Map, the image of each detection, and its x, y and intensity."""
        cells = self.method(image)
        flat = cells.flatten()
        kept = (flat >= self.threshold).nonzero()[:, 0]
        rows, columns = self.method.grid.map_shape
        place = kept % (rows * columns)
        targets = torch.stack([self.x[place % columns], self.y[place // columns], flat[kept]], 1)
        return cells, kept // (rows * columns), targets


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's progress and its advice to developers of exporters are not meant for our users."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _translated(network: nn.Module, shape: tuple[int, int], names: list[str]) -> Any:
    """The exporter's program of a network with these outputs."""
    try:
        with _quiet(), torch.no_grad():
            return torch.onnx.export(
                network,
                (torch.zeros(2, 1, *shape),),  # two images: a batch of one would be taken for a constant
                input_names=[INPUT],
                output_names=names,
                dynamo=True,
                dynamic_shapes=({0: "batch"},),
                verbose=False,
            )
    except Exception as error:  # whatever a compiler can raise
        raise RuntimeError(f"torch cannot export this network: {one_line(error)[:300]}") from error


def to_onnx(method: GridMethod, card: Mapping[str, Any], threshold: float | None = READ_OUT_THRESHOLD) -> bytes:
    """A grid method as a serialised ONNX model that gives what torch gives.

    Args:
        method: the grid method, in float32.
        card: what it is; becomes the metadata.
        threshold: of the read-out, in counts; None for the map alone.

    Raises:
        InputError: if the packages are missing or the method is no fixed graph.
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
    """Largest difference of the graph's map from torch's, as a share of the brightest cell.

    Batches of several sizes of benchmark images are compared, and the graph's read-out with that of its own map.

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
            raise RuntimeError("the read-out of the graph is not that of its map")
    return worst


def _same_read_out(
    method: GridMethod, cells: np.ndarray[Any, Any], threshold: float, index: Any, targets: np.ndarray[Any, Any]
) -> bool:
    decoded = [method.grid.decode(each, threshold) for each in cells[:, 0]]
    expected = np.concatenate([np.stack([each.x, each.y, each.intensity], axis=1) for each in decoded])
    places = np.repeat(np.arange(len(decoded)), list(map(len, decoded)))
    return np.array_equal(index, places) and bool(np.allclose(targets, expected, rtol=1e-6, atol=1e-6))


def export_method(
    name: str,
    path: str | Path,
    sensor: Sensor | None = None,
    ratio: int = 3,
    weights: bool | str | Path | None = None,
    threshold: float | None = READ_OUT_THRESHOLD,
    **options: Any,
) -> dict[str, Any]:
    """Write a grid method as an ONNX file, complete and checked or not at all.

    Args:
        name: registry name.
        path: file ending in .onnx.
        sensor: whose images are unmixed; None for that of the weights.
        ratio: sub-pixel grid ratio.
        weights: as `pretrained` of `create_method`.
        threshold: cells below are no detections, in counts; None exports the map alone.
        **options: the method's own.

    Returns:
        The card that the file carries.

    Raises:
        InputError: if the method is no fixed graph, has no weights, or the file cannot be written.
        RuntimeError: if onnxruntime and torch differ.
    """
    key, suffix = split_name(name)
    if suffix is not None:
        raise InputError(f"cannot export {name!r}: what follows the map is no part of the graph, export {key!r}")
    if not METHODS[key].grid:
        raise InputError(f"cannot export {key!r}: it has no map, only networks on the grid such as 'dista-net' have")
    check_packages("export", PACKAGES, "export")
    check_writable(path, (ONNX_SUFFIX,))
    method, card = _built(key, sensor, ratio, weights, options)
    model = to_onnx(method, card, threshold)
    with atomic_path(path) as partial:
        partial.write_bytes(model)
    return {**card, "threshold": threshold}


def _built(
    key: str, sensor: Sensor | None, ratio: int, weights: bool | str | Path | None, options: Mapping[str, Any]
) -> tuple[GridMethod, dict[str, Any]]:
    """The method in torch, and its card with what the weight file says of training and score."""
    if isinstance(weights, str | Path) and Path(weights).suffix == ONNX_SUFFIX:
        raise InputError(f"{weights} is an exported graph: give the weight file it was made from")
    if weights is None and METHODS[key].trained:
        weights = find_pretrained(key, sensor or Sensor(), ratio)
    method: GridMethod = create_method(key, sensor, ratio, weights, **options)
    known: dict[str, Any] = {"options": dict(options)}
    if isinstance(weights, str | Path) and Path(weights).suffix == SUFFIX:
        card = read_card(weights)
        known = {name: card.get(name) for name in ("options", "training", "score")}
    return method, make_card(key, method.sensor, method.ratio, **known)


def onnx_method(
    key: str, sensor: Sensor | None, ratio: int, weights: bool | str | Path | None, options: Mapping[str, Any]
) -> OnnxMethod:
    """A grid method by onnxruntime: from an ONNX file, or exported on the spot, once for the same weights.

    Args:
        key: registry name, without suffix.
        sensor: as in `create_method`.
        ratio: sub-pixel grid ratio.
        weights: an .onnx file, or as `pretrained` of `create_method`.
        options: the method's own.

    Raises:
        InputError: if the method has no graph, or file and method do not fit.
    """
    if not METHODS[key].grid:
        raise InputError(f"the runtime onnx is for methods on the grid, {key!r} has none: leave it out")
    if isinstance(weights, str | Path) and Path(weights).suffix == ONNX_SUFFIX:
        if options:
            raise InputError(f"{weights} is a finished graph and takes no options, got {', '.join(options)}")
        return read_onnx(weights, key, sensor, ratio)
    if isinstance(weights, bool) or not METHODS[key].trained:
        method, card = _built(key, sensor, ratio, weights, options)
        session = open_session(to_onnx(method, card, None))
        return OnnxMethod(session, method.sensor, ratio, method.sensor.background)
    path = find_pretrained(key, sensor or Sensor(), ratio) if weights is None else Path(weights)
    if sensor is None:
        sensor = create_method(key, None, ratio, path, **options).sensor
    # Neither noise nor background is in the weights: one graph serves files that differ in them.
    optics = Sensor(psf=sensor.psf, shape=sensor.shape)
    written = path.stat().st_mtime_ns if path.is_file() else 0
    session = _exported(key, json.dumps(optics.to_card()), ratio, path, written, tuple(sorted(options.items())))
    return OnnxMethod(session, sensor, ratio, optics.background)


@lru_cache(maxsize=8)
def _exported(
    key: str, sensor_card: str, ratio: int, weights: Path, written: int, options: tuple[tuple[str, Any], ...]
) -> Any:
    """Session of a method exported in memory; `written` tells a weight file from an older one of its name."""
    method, card = _built(key, Sensor.from_card(json.loads(sensor_card)), ratio, weights, dict(options))
    return open_session(to_onnx(method, card, None))
