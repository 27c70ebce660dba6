"""Weight files of the benchmark's authors: names of their tensors, brought into ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from csist.checks import InputError

PREFIX = r"((?:\w+\.)*?)"
"""What a framework that wraps the network puts before all keys, such as `generator.`."""


def matched(state: Mapping[str, Tensor], known: str, network: str) -> Iterator[tuple[re.Match[str], Tensor]]:
    """Each key of a file, without its framework's prefix, as a match of a pattern of known names, and its tensor.

    Args:
        state: tensors of the file.
        known: regular expression of the network's own names; its groups come after the prefix's.
        network: its name, for the message.

    Raises:
        InputError: if a key is not of this network, or the file holds several networks.
    """
    pattern = re.compile(PREFIX + f"(?:{known})")
    found = []
    for key, value in state.items():
        match = pattern.fullmatch(key)
        if match is None:
            raise InputError(f"this is not a published {network} weight file: it holds {key!r}")
        found.append((match, value))
    prefixes = sorted({match[1] for match, _ in found})
    if len(prefixes) > 1:
        raise InputError(f"this file holds several networks ({', '.join(prefixes)}): leave one in it")
    yield from found


def stages_in(state: Mapping[str, Tensor]) -> int:
    """Number of stages in a file of an unfolded network of theirs, `fcs.0` and so on; 0 for other files."""
    numbers = {match[1] for match in (re.search(r"(?:^|\.)fcs\.(\d+)\.", key) for key in state) if match}
    return len(numbers)


def check_stages(found: int, asked: int) -> None:
    """Check that a network has the stages of a file.

    Raises:
        InputError: if it has not.
    """
    if found != asked:
        raise InputError(f"these weights are of {found} stages, got stages={asked}")


def laid(tensor: Tensor, transposed: bool) -> Tensor:
    """A tensor of theirs: one number without its dimension, kernels transposed where their maps were."""
    if tensor.numel() == 1 and tensor.ndim == 1:
        return tensor.reshape(())
    return tensor.transpose(2, 3).contiguous() if transposed and tensor.ndim == 4 else tensor
