"""Names and shapes of the weights in the files of DISTA-Net's authors."""

from __future__ import annotations

STAGE = {
    "lambda_step": (1,), "conv1_forward": (64, 1, 3, 3), "conv2_forward": (64, 64, 3, 3),
    "conv1_backward": (64, 64, 3, 3), "conv2_backward": (1, 64, 3, 3),
    "w1.bias": (256,), "w2.weight": (9, 256), "w2.bias": (9,),
    "att.convl.weight": (64, 1, 3, 3), "att.convl.bias": (64,), "att.conv0_s.weight": (32, 64, 1, 1),
    "att.conv0_s.bias": (32,), "att.conv1_s.weight": (32, 64, 1, 1), "att.conv1_s.bias": (32,),
    "att.conv_squeeze.weight": (2, 2, 3, 3), "att.conv_squeeze.bias": (2,),
    "att.conv_m.weight": (64, 32, 1, 1), "att.conv_m.bias": (64,),
}  # fmt: skip


def authors_shapes(stages: int, cells: int) -> dict[str, tuple[int, ...]]:
    """Shapes by name of a network of so many stages, for maps of so many cells."""
    stage = {**STAGE, "w1.weight": (256, cells)}
    return {f"fcs.{number}.{name}": shape for number in range(stages) for name, shape in stage.items()}
