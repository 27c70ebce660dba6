"""Grid methods whose map is computed by onnxruntime instead of torch; the read-out is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from csist.checks import InputError, check_packages
from csist.files import reading
from csist.io.cards import check_weight_card, parse_json
from csist.methods.base import GridMethod
from csist.physics.sensor import Sensor
from csist.weights.cards import check_card, trained_prior

INPUT, MAP = "image", "map"
"""Names of the graph's input and first output."""

ERRORS_ONLY = 3
"""Log severity level of onnxruntime for errors only."""


def open_session(model: bytes | Path) -> Any:
    """Open an onnxruntime session on the CPU with the number of threads of torch.

    Args:
        model: serialised model, or the path of its file.

    Raises:
        InputError: if onnxruntime is not installed or the file cannot be read.
    """
    check_packages("running an ONNX graph", ["onnxruntime"], "export")
    import onnxruntime

    onnxruntime.set_default_logger_severity(ERRORS_ONLY)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = ERRORS_ONLY
    if isinstance(model, bytes):
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    if not model.is_file():
        raise InputError(f"no weight file {model}")
    with reading(model):
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


class OnnxMethod(GridMethod):
    """Grid method that runs in onnxruntime, in float32 on the CPU.

    Args:
        session: session opened by `open_session`.
        sensor: sensor of the images.
        ratio: sub-pixel grid ratio.
        background: background in counts for which the graph was made; images of the sensor are shifted to it.
    """

    exportable = False

    def __init__(self, session: Any, sensor: Sensor, ratio: int, background: float) -> None:
        super().__init__(sensor, ratio)
        self.session = session
        self.shift = background - sensor.background

    def forward(self, image: Tensor) -> Tensor:
        """Return the map (B, 1, cH, cW) in counts of images (B, 1, H, W) in counts, without gradient."""
        counts = np.ascontiguousarray((image.detach() + self.shift).float().cpu().numpy())
        (cells,) = self.session.run([MAP], {INPUT: counts})
        return torch.from_numpy(cells).to(image)


def read_onnx(path: str | Path, name: str, sensor: Sensor | None, ratio: int) -> OnnxMethod:
    """Read a method from a file written by `csist export`.

    Args:
        path: file ending in .onnx.
        name: registry name that the file must have.
        sensor: sensor; None for that of the file. PSF and image shape must match the file.
        ratio: sub-pixel grid ratio, which must match the file.

    Raises:
        InputError: if the file cannot be read, was not written by csist, or does not match name, sensor and ratio.
    """
    path = Path(path)
    session = open_session(path)
    metadata = session.get_modelmeta().custom_metadata_map
    try:
        parts = {key: parse_json(metadata[key], f"the {key} of {path}") for key in ("ratio", "sensor")}
        card = check_weight_card({"method": metadata["method"], "options": {}, **parts}, f"the card of {path}")
        made_for = Sensor.from_card(card["sensor"])
    except (KeyError, InputError) as error:
        raise InputError(f"{path} is an ONNX file without a csist card: it was not written by csist export") from error
    check_card(path, card, name, sensor or made_for, ratio)
    method = OnnxMethod(session, sensor or made_for, ratio, made_for.background)
    method.suit(trained_prior({"training": parse_json(metadata.get("training", "null"), f"the training of {path}")}))
    return method
