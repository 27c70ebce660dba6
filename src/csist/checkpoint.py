"""Weight files: safetensors with a card that says what they are, and one-line errors where they do not fit.

`NAME.safetensors` carries its card in its metadata; `NAME.json` beside it is a copy for people and for the
search of pretrained weights. Weights that come with the package lie in its folder `weights`.
"""

from __future__ import annotations

import json
import platform
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from csist.checks import InputError
from csist.grid import SubPixelGrid
from csist.io import atomic_path, one_line
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor

if TYPE_CHECKING:
    from torch import Tensor, nn

    from csist.methods.base import GridMethod

CARD_VERSION = 1
METADATA_KEY = "csist"
SUFFIX = ".safetensors"
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
"""What frameworks (MMEngine) put beside the weights: their logs. Read as `_Ignored`, never as what they name."""
HALF_LIMIT = 65504.0
SIGMA_TOLERANCE_PX = 1e-6


def package_version() -> str:
    """Version of csist, or "unknown" where it is not installed."""
    try:
        return version("csist")
    except PackageNotFoundError:
        return "unknown"


def processor() -> str:
    """Model of the CPU."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return model
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)


def describe_machine() -> dict[str, Any]:
    """CPU model, threads used by torch, accelerator and torch version."""
    import torch

    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": processor(),
        "threads": torch.get_num_threads(),
        "accelerator": accelerator,
        "torch": torch.__version__,
    }


def make_card(
    method: str,
    sensor: Sensor,
    ratio: int,
    options: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    score: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The card of a weight file.

    Args:
        method: registry name.
        sensor: sensor that the weights belong to.
        ratio: sub-pixel grid ratio.
        options: options that the method was built with.
        training: seed, samples, minutes and so on.
        score: CSO-mAP with its interval and what it was measured on.
    """
    return {
        "card_version": CARD_VERSION,
        "csist_version": package_version(),
        "method": method,
        "options": dict(options or {}),
        "ratio": ratio,
        "sensor": sensor.to_card(),
        "training": dict(training or {}),
        "score": dict(score or {}),
    }


def save_weights(path: str | Path, module: nn.Module, card: Mapping[str, Any], half: bool = False) -> Path:
    """Write a module's state and its card; an interrupted call leaves the old files alone.

    Args:
        path: the weight file; the suffix .safetensors is added where it is missing.
        module: whose state is written.
        card: what `make_card` gives.
        half: store floating-point tensors as float16, half the size, three digits.

    Returns:
        Path of the weight file.

    Raises:
        InputError: if `half` is asked for and a value does not fit.
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
        temporary.chmod(0o644)  # safetensors leaves the file to its owner alone
    with atomic_path(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(dict(card), indent=2) + "\n", encoding="utf-8")
    return path


def read_card(path: str | Path) -> dict[str, Any]:
    """The card inside a weight file.

    Raises:
        InputError: if the file does not exist, is damaged, or holds no card.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no weight file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged or not a safetensors file: {error}") from error
    try:
        card = json.loads(metadata[METADATA_KEY])
    except (KeyError, ValueError) as error:
        raise InputError(f"{path} is a safetensors file without a csist card: it was not written by csist") from error
    missing = {"method", "ratio", "sensor", "options"} - set(card)
    if missing:
        raise InputError(f"the card of {path} lacks {', '.join(sorted(missing))}")
    return dict(card)


def _same_optics(one: Sensor, other: Sensor) -> bool:
    """Whether weights of one sensor serve another: same PSF and shape; noise and background may differ."""
    if one.shape != other.shape:
        return False
    if isinstance(one.psf, GaussianPSF) and isinstance(other.psf, GaussianPSF):
        return abs(one.psf.sigma_px - other.psf.sigma_px) < SIGMA_TOLERANCE_PX
    return one.psf == other.psf


def _describe(sensor: Sensor) -> str:
    card = sensor.psf.to_card()
    size = next((f" {key}={value}" for key, value in card.items() if key in ("sigma_px", "radius_px")), "")
    return f"{card['kind']} PSF{size}, {sensor.shape[0]} x {sensor.shape[1]} px"


def check_card(path: str | Path, card: Mapping[str, Any], method: str, sensor: Sensor, ratio: int) -> None:
    """Check that a weight file belongs to method, sensor and ratio.

    Raises:
        InputError: if it does not; the message names both values.
    """
    if card["method"] != method:
        raise InputError(f"{path} holds weights of {card['method']}, not of {method}")
    if card["ratio"] != ratio:
        raise InputError(f"{path} was trained for ratio {card['ratio']}, got {ratio}: give ratio={card['ratio']}")
    trained = Sensor.from_card(card["sensor"])
    if not _same_optics(trained, sensor):
        raise InputError(f"{path} was trained for another sensor ({_describe(trained)}), got {_describe(sensor)}")


class _Ignored:
    """Stands in for an object of a foreign package: takes everything and does nothing."""

    def __new__(cls, *_: object) -> _Ignored:
        """An empty object, whatever the arguments."""
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        """Forget the state."""


def _stand_in(name: str) -> type[_Ignored]:
    module, _, attribute = name.rpartition(".")
    return type(attribute, (_Ignored,), {"__module__": module, "__qualname__": attribute})


_lock = threading.Lock()


@contextmanager
def _records_ignored() -> Iterator[None]:
    """Restricted loading passes over the logs of frameworks in here; afterwards it knows what it knew before."""
    from torch import serialization

    with _lock:  # torch keeps one list for all threads
        before = serialization.get_safe_globals()
        serialization.add_safe_globals([_stand_in(name) for name in RECORDS])
        try:
            yield
        finally:
            serialization.clear_safe_globals()
            serialization.add_safe_globals(before)


def _reason(error: BaseException) -> str:
    """What the restricted loading objects to, in a few words."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    if found:
        return f"it holds {found[1]}, which is no tensor and could run code"
    return one_line(error)[:200]


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a weight file: safetensors, or a pickle of plain tensors (.pt, .pth, .ckpt).

    Pickles are opened with `weights_only=True`: they cannot run code. A state under the key "state_dict" is
    taken out, as training frameworks wrap it; of what they put beside it, logs are passed over.

    Raises:
        InputError: if the file does not exist, is damaged, or holds other things than tensors.
    """
    import torch
    from torch import Tensor

    path = Path(path)
    if not path.is_file():
        raise InputError(f"no weight file {path}")
    if path.suffix not in PICKLES:
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is damaged or not a safetensors file: {error}") from error
    try:
        with warnings.catch_warnings(), _records_ignored():
            # A pickle of another protocol is either read or refused; torch's advice to report it helps nobody.
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
    """Load a weight file into a module that was built like the one it came from.

    A pickle with the authors' names is translated where the method can (`translate_published`).

    Raises:
        InputError: if names or shapes do not fit, besides what `load_state` raises.
    """
    state = load_state(path)
    wanted = module.state_dict()
    translate = getattr(module, "translate_published", None)
    if translate is not None and Path(path).suffix in PICKLES and not set(state) & set(wanted):
        try:
            state = translate(state)
        except InputError as error:
            raise InputError(f"cannot use {path}: {error}") from error
    odd = _misfit(state, wanted)
    if odd:
        raise InputError(f"{path} does not fit this method: {odd}")
    module.load_state_dict(state, strict=True)


def begin_from(method: GridMethod, name: str, path: str | Path) -> None:
    """Start values of a method's parameters from weights of the same method for another ratio.

    Parameters of the same name and shape are copied, those with one column a cell of the map are interpolated on the
    finer or coarser map; what has no counterpart keeps its value, and so do the buffers.

    Args:
        method: for its own ratio; changed.
        name: its registry name.
        path: weight file.

    Raises:
        InputError: if the file is damaged, of another method or sensor, or holds none of the parameters.
    """
    import torch
    from torch.nn import functional

    card = read_card(path)
    check_card(path, card, name, method.sensor, card["ratio"])
    given = load_state(path)
    old, new = SubPixelGrid(method.grid.shape, card["ratio"]).map_shape, method.grid.map_shape
    taken = 0
    with torch.no_grad():
        for key, parameter in method.named_parameters():
            value = given.get(key)
            if value is None:
                continue
            if value.shape[1:] == (old[0] * old[1],) and parameter.shape == (len(value), new[0] * new[1]):
                maps = value.float().view(-1, 1, *old)
                value = functional.interpolate(maps, size=new, mode="bilinear").flatten(1)
            if value.shape == parameter.shape:
                parameter.copy_(value)
                taken += 1
    if not taken:
        raise InputError(f"{path} holds none of the parameters of {name} for ratio {method.ratio}")


def _misfit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """The first thing that keeps a state from fitting, in words; None where it fits."""
    strange = [name for name in state if name not in wanted]
    missing = [name for name in wanted if name not in state]
    if strange or missing:
        parts = [f"it holds {strange[0]!r}"] if strange else []
        parts += [f"it lacks {missing[0]!r}"] if missing else []
        return f"{' and '.join(parts)} ({len(strange)} names too many, {len(missing)} missing)"
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            return f"{name!r} has shape {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
    return None


def training_budget(card: Mapping[str, Any]) -> dict[str, float]:
    """Samples seen and minutes of the training of a card, with those of the trainings that it began from.

    >>> first = {"samples": 640, "minutes": 2.0}
    >>> training_budget({"training": {"samples": 64, "minutes": 0.5, "start": first}})
    {'samples': 704, 'minutes': 2.5}
    """
    total = {"samples": 0, "minutes": 0.0}
    training = card["training"]
    while isinstance(training, Mapping):
        for key in total:
            total[key] += training.get(key) or 0
        training = training.get("start")
    return total


def weights_folder() -> Path:
    """Folder of the weights that come with the package."""
    return Path(str(resources.files("csist"))) / "weights"


def list_pretrained(folder: str | Path | None = None) -> list[tuple[Path, dict[str, Any]]]:
    """(weight file, card) of everything in a folder, default the package's, in order of name."""
    found = []
    for path in sorted(Path(folder or weights_folder()).glob("*.json")):
        weights = path.with_suffix(SUFFIX)
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if weights.is_file() and isinstance(card, dict) and {"method", "ratio", "sensor"} <= set(card):
            found.append((weights, card))
    return found


def find_pretrained(name: str, sensor: Sensor, ratio: int, folder: str | Path | None = None) -> Path:
    """The weights that belong to method, PSF, image shape and ratio.

    Where several do, the one whose read noise is closest to the sensor's.

    Args:
        name: registry name of the method.
        sensor: sensor.
        ratio: sub-pixel grid ratio.
        folder: where to look; default: the package's weights.

    Raises:
        InputError: if there are none; names those that exist for the method.
    """
    every = [(path, card) for path, card in list_pretrained(folder) if card["method"] == name]
    fitting = [
        (abs(trained.read_noise - sensor.read_noise), path.name, path)
        for path, card in every
        for trained in [Sensor.from_card(card["sensor"])]
        if card["ratio"] == ratio and _same_optics(trained, sensor)
    ]
    if fitting:
        return min(fitting)[2]
    have = "; ".join(f"ratio {card['ratio']}, {_describe(Sensor.from_card(card['sensor']))}" for _, card in every)
    raise InputError(
        f"no trained weights of {name} for ratio {ratio}, {_describe(sensor)} "
        f"({'these exist: ' + have if have else 'none of this method exist'}): "
        f"train them with `csist train {name}`, or build it untrained with pretrained=False"
    )


def load_method(
    factory: Callable[..., Any],
    name: str,
    sensor: Sensor | None,
    ratio: int,
    options: Mapping[str, Any],
    path: str | Path | None = None,
) -> Any:
    """Build a method and load its weights.

    Args:
        factory: the method's class.
        name: its registry name.
        sensor: sensor; None takes the weight file's, or the default one where `path` is None.
        ratio: sub-pixel grid ratio.
        options: the method's options; those of the weight file hold where they are not given.
        path: weight file; None looks for pretrained weights.

    Raises:
        InputError: if there are no such weights, or they do not fit.
    """
    from csist.methods.layers import without_start

    if path is None:
        path = find_pretrained(name, sensor or Sensor(), ratio)
    if Path(path).suffix in PICKLES:
        # The file says nothing of itself and may lack the linear start: build as asked, let the shapes speak.
        find = getattr(factory, "published_options", None)
        known = {} if find is None else find(load_state(path))
        method = factory(sensor=sensor or Sensor(), ratio=ratio, **{**known, **options})
        load_into(method, path)
        return method
    card = read_card(path)
    trained = Sensor.from_card(card["sensor"])
    check_card(path, card, name, sensor or trained, ratio)
    for key, value in options.items():
        if key in card["options"] and card["options"][key] != value:
            raise InputError(f"{path} was trained with {key}={card['options'][key]}, got {value}")
    with without_start():
        method = factory(sensor=sensor or trained, ratio=ratio, **{**card["options"], **options})
    load_into(method, path)
    return method
