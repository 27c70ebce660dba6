"""`csist export`: a grid method as an ONNX file, complete and checked or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from csist.checks import InputError, check_packages
from csist.create import build_with_card
from csist.files import atomic_path, check_writable
from csist.grid import READ_OUT_THRESHOLD
from csist.methods.table import METHODS, split_name
from csist.onnx import ONNX_SUFFIX
from csist.onnx.graph import PACKAGES, to_onnx
from csist.physics.sensor import Sensor


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
    method, card = build_with_card(key, sensor, ratio, weights, options)
    model = to_onnx(method, card, threshold)
    with atomic_path(path) as partial:
        partial.write_bytes(model)
    return {**card, "threshold": threshold}
