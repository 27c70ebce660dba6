"""csist: the number, positions and fluxes of the point targets in a blurred blob, with their uncertainties."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csist import datasets, metrics
    from csist.checks import InputError
    from csist.create import create_method
    from csist.frames.result import FrameResult
    from csist.frames.solve import unmix_frame
    from csist.grid import SubPixelGrid
    from csist.methods.continuous.calibrate import calibrate
    from csist.methods.table import list_methods
    from csist.physics.psf import AiryPSF, EllipticalGaussianPSF, FieldPSF, GaussianPSF, MoffatPSF, SampledPSF
    from csist.physics.sensor import Sensor
    from csist.scenes import ScenePrior, sample_scenes
    from csist.sequences.result import SequenceResult, Track
    from csist.sequences.solve import unmix_sequence
    from csist.sequences.stream import unmix_stream
    from csist.targets import Flag, Targets
    from csist.unmixing import unmix

    __version__: str

__all__ = [
    "AiryPSF",
    "EllipticalGaussianPSF",
    "FieldPSF",
    "Flag",
    "FrameResult",
    "GaussianPSF",
    "InputError",
    "MoffatPSF",
    "SampledPSF",
    "ScenePrior",
    "Sensor",
    "SequenceResult",
    "SubPixelGrid",
    "Targets",
    "Track",
    "__version__",
    "calibrate",
    "create_method",
    "datasets",
    "list_methods",
    "metrics",
    "sample_scenes",
    "unmix",
    "unmix_frame",
    "unmix_sequence",
    "unmix_stream",
]

# Loaded on first use: `import csist` stays cheap, and a command loads only what it needs.
_HOMES = {
    "AiryPSF": "physics.psf",
    "EllipticalGaussianPSF": "physics.psf",
    "FieldPSF": "physics.psf",
    "MoffatPSF": "physics.psf",
    "Flag": "targets",
    "FrameResult": "frames.result",
    "GaussianPSF": "physics.psf",
    "InputError": "checks",
    "SampledPSF": "physics.psf",
    "ScenePrior": "scenes",
    "Sensor": "physics.sensor",
    "SequenceResult": "sequences.result",
    "SubPixelGrid": "grid",
    "Targets": "targets",
    "Track": "sequences.result",
    "calibrate": "methods.continuous.calibrate",
    "create_method": "create",
    "list_methods": "methods.table",
    "sample_scenes": "scenes",
    "unmix": "unmixing",
    "unmix_frame": "frames.solve",
    "unmix_sequence": "sequences.solve",
    "unmix_stream": "sequences.stream",
}
_MODULES = ("datasets", "io", "metrics")


def __getattr__(name: str) -> Any:
    value: Any
    if name in _MODULES:
        value = import_module(f"csist.{name}")
    elif name in _HOMES:
        value = getattr(import_module(f"csist.{_HOMES[name]}"), name)
    elif name == "__version__":
        from csist._version import package_version

        value = package_version()
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
