"""Export of grid methods as ONNX files, checked against torch before they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from csist.checks import InputError, check_packages
from csist.create import build_with_card
from csist.files import atomic_path, check_writable
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
    threshold: float | None = None,
    *,
    map_only: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Write a grid method as an ONNX file, checked against torch; a failed export leaves no file.

    Args:
        name: registry name.
        path: file ending in .onnx.
        sensor: sensor of the images; None for that of the weights.
        ratio: sub-pixel grid ratio.
        weights: as `pretrained` of `create_method`.
        threshold: smallest value in counts of a cell that counts as a detection; None for that of the method, which
            follows the prior of its training.
        map_only: export only the map, without the read-out.
        **options: options of the method.

    Returns:
        The card stored in the file.

    Raises:
        InputError: if the method is not a fixed graph or has no weights, or the file cannot be written.
        RuntimeError: if the outputs of onnxruntime and torch differ.
    """
    key, suffix = split_name(name)
    if suffix is not None:
        raise InputError(f"cannot export {name!r}: the read-out is not part of the graph, export {key!r} instead")
    if not METHODS[key].grid:
        raise InputError(f"cannot export {key!r}: it has no map; choose a network on the grid such as 'dista-net'")
    check_packages("export", PACKAGES, "export")
    check_writable(path, (ONNX_SUFFIX,))
    method, card = build_with_card(key, sensor, ratio, weights, options)
    if map_only:
        threshold = None
    elif threshold is None:
        threshold = method.grid.threshold
    model = to_onnx(method, card, threshold)
    with atomic_path(path) as partial:
        partial.write_bytes(model)
    return {**card, "threshold": threshold}
