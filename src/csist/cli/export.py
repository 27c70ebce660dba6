"""`csist export`: write a trained method as a file that runs without csist."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from csist.cli.options import RatioOption, SensorOption, WeightsOption, read_sensor
from csist.cli.output import check_outputs, make_console


def export(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="See `csist methods`; a network on the grid.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="File to write (.onnx).")],
    ratio: RatioOption = 3,
    weights: WeightsOption = None,
    sensor: SensorOption = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", help="Smallest value of a detected cell, in counts.  [default: by the training's prior]"
        ),
    ] = None,
    map_only: Annotated[
        bool, typer.Option("--map-only", help="Export the map without the read-out of detections.")
    ] = False,
) -> None:
    """Write a method as an ONNX file, which any ONNX runtime can run on batches of any size.

    Input: `image`, float32 (batch, 1, H, W) in counts. Outputs: `map`, float32 (batch, 1, cH, cW) in counts, and for
    its cells at or above the threshold `index`, int64 (K,), the index of the image in the batch, and `targets`,
    float32 (K, 3): x, y, intensity in px and counts. The metadata of the file hold method, ratio, sensor, threshold and
    the version of csist. The graph is compared with torch before it is written.
    """
    from csist.export import export_method

    check_outputs([path for path in (weights, sensor) if path is not None], None, output)
    card = None if sensor is None else read_sensor(sensor)[0]
    made = export_method(method, output, card, ratio, weights, threshold, map_only=map_only)
    rows, columns = made["sensor"]["shape"]
    what = "map" if map_only else f"map and detections from {made['threshold']:g} counts on"
    size = output.stat().st_size / 1e6
    make_console().print(
        f"{output}: {made['method']}, ratio {made['ratio']}, {rows} x {columns} px, {what}; {size:.1f} MB",
        soft_wrap=True,
    )
