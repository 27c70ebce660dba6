"""Weight files: safetensors with a card, and one-line errors for files that do not match.

`NAME.safetensors` holds its card in its metadata; `NAME.json` beside it is a copy for people and for the search of
pretrained weights. The package's own weights are in its folder `weights`.
"""

from __future__ import annotations

import json
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from csist.checks import InputError
from csist.files import atomic_path, one_line
from csist.weights.cards import METADATA_KEY, SUFFIX

if TYPE_CHECKING:
    from torch import Tensor, nn


PICKLES = (".pt", ".pth", ".ckpt")
RECORDS = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.ndarray",
    "numpy.dtype",
    *(f"numpy.dtypes.{kind}DType" for kind in ("Bool", "Int32", "Int64", "Float32", "Float64")),
    "builtins.getattr",
)
"""Classes of the log records that frameworks (MMEngine) store beside the weights; they are read as `_Ignored`."""
HALF_LIMIT = 65504.0


def save_weights(path: str | Path, module: nn.Module, card: Mapping[str, Any], half: bool = False) -> Path:
    """Write the state of a module and its card; an interrupted call leaves existing files unchanged.

    Args:
        path: weight file; the suffix .safetensors is added if missing.
        module: module whose state is written.
        card: card built by `make_card`.
        half: whether to store floating-point tensors as float16, at half the size and with three digits.

    Returns:
        Path of the weight file.

    Raises:
        InputError: if `half` is set and a value does not fit.
    """
    from safetensors.torch import save_file

    path = Path(path)
    if path.suffix != SUFFIX:
        path = path.with_name(path.name + SUFFIX)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    if half:
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                if tensor.numel() and float(tensor.abs().max()) > HALF_LIMIT:
                    raise InputError(
                        f"{name} exceeds {HALF_LIMIT:.0f}, too much for half precision: save with half=False"
                    )
                tensors[name] = tensor.half()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={METADATA_KEY: json.dumps(dict(card))})
        temporary.chmod(0o644)  # safetensors makes the file readable by its owner only
    with atomic_path(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(dict(card), indent=2) + "\n", encoding="utf-8")
    return path


class _Ignored:
    """Inert replacement for an object of another package: accepts any arguments and state."""

    def __new__(cls, *_: object) -> _Ignored:
        """Create an empty object and ignore the arguments."""
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        """Discard the state."""


def _stand_in(name: str) -> type[_Ignored]:
    module, _, attribute = name.rpartition(".")
    return type(attribute, (_Ignored,), {"__module__": module, "__qualname__": attribute})


_lock = threading.Lock()


@contextmanager
def _records_ignored() -> Iterator[None]:
    """Let restricted loading ignore the log records of frameworks inside this context."""
    from torch import serialization

    with _lock:  # torch has one global list for all threads
        before = serialization.get_safe_globals()
        serialization.add_safe_globals([_stand_in(name) for name in RECORDS])
        try:
            yield
        finally:
            serialization.clear_safe_globals()
            serialization.add_safe_globals(before)


def _reason(error: BaseException) -> str:
    """Return the reason why restricted loading failed, in a few words."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    if found:
        return f"it holds {found[1]}, which is not a tensor and could run code"
    return one_line(error)[:200]


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a weight file: safetensors, or a pickle of plain tensors (.pt, .pth, .ckpt).

    Pickles are opened with `weights_only=True`, so that they cannot run code. If the state is wrapped under the key
    "state_dict", as by training frameworks, it is unwrapped and log records beside it are ignored.

    Raises:
        InputError: if the file does not exist, is damaged, or holds anything other than tensors.
    """
    import torch
    from torch import Tensor

    path = Path(path)
    if not path.is_file():
        raise InputError(f"no weight file {path}")
    if path.suffix not in PICKLES:
        try:
            with safe_open(path, framework="pt") as file:
                names = file.keys()  # the file itself is no mapping
                return {name: file.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is damaged or not a safetensors file: {error}") from error
    try:
        with warnings.catch_warnings(), _records_ignored():
            # A pickle of another protocol is either read or rejected; users cannot act on torch's warning.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise almost anything
        raise InputError(f"{path} is damaged or holds more than plain tensors: {_reason(error)}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} does not hold a dictionary of tensors")
    return state


def load_into(module: nn.Module, path: str | Path) -> None:
    """Load a weight file into a module of the same architecture.

    A pickle with the names of the published code is translated if the method can do so (`translate_published`).

    Raises:
        InputError: if names or shapes do not match, or `load_state` fails.
    """
    state = load_state(path)
    wanted = module.state_dict()
    translate = getattr(module, "translate_published", None)
    if translate is not None and Path(path).suffix in PICKLES and set(state) - set(wanted):
        try:
            state = translate(state)
        except InputError as error:
            raise InputError(f"cannot use {path}: {error}") from error
    mismatch = _find_mismatch(state, wanted)
    if mismatch:
        raise InputError(f"{path} does not fit this method: {mismatch}")
    module.load_state_dict(state, strict=True)


def _find_mismatch(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """Describe the first mismatch between a state and the wanted one; None if they match."""
    unknown = [name for name in state if name not in wanted]
    missing = [name for name in wanted if name not in state]
    if unknown or missing:
        parts = [f"it holds {unknown[0]!r}"] if unknown else []
        parts += [f"it lacks {missing[0]!r}"] if missing else []
        return f"{' and '.join(parts)} ({len(unknown)} names too many, {len(missing)} missing)"
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            return f"{name!r} has shape {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
    return None
