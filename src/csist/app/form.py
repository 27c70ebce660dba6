"""Controls of the page: choice of the image, the methods and what is known of the sensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from csist.app.settings import (
    LABELS,
    LIMITS,
    MODES,
    MOST_METHODS,
    PRIORS,
    PSFS,
    RATIOS,
    SECTIONS,
    SOURCES,
    Settings,
    example_names,
    working_methods,
)
from csist.app.uploads import IMAGE_SUFFIXES, LARGEST_UPLOAD_MB, LARGEST_UPLOAD_MPX, UPLOAD_SUFFIXES
from csist.frames.options import MEASURED_PSFS
from csist.windows import WINDOW_SIDE_PX

MAPS = {
    "error": "Error map: σ in counts",
    "mask": "Mask: 0 = pixel is used",
}
"""Kinds of maps that can be uploaded, and their labels."""

WINDOWS_ONLY = "windows only"
"""Ending of the label of methods that cannot unmix the frame that is chosen; the style sheet disables them."""

NOTHING_HELD = (
    f"<p>PNG, JPEG, BMP, TIFF, FITS, NPY, NPZ or video, up to {LARGEST_UPLOAD_MB} MB and {LARGEST_UPLOAD_MPX} million "
    "pixels. No file yet.</p>"
)
"""What stands below the upload area as long as there is no file."""

SECTION_TITLES = {"psf": "PSF", "detector": "Noise and detector", "detection": "Detection and grid"}


@dataclass
class Form:
    """Components of the form.

    Args:
        controls: component of each setting.
        groups: groups of components that are shown for some sources.
        sections: sections that can be closed.
        shapes: groups of components that are shown for some PSFs.
        maps: upload areas of maps.
        drop: upload area of the image.
        held: description of the uploaded image.
    """

    controls: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, Any] = field(default_factory=dict)
    shapes: dict[str, Any] = field(default_factory=dict)
    maps: dict[str, Any] = field(default_factory=dict)
    drop: Any = None
    held: Any = None

    @property
    def chosen(self) -> list[Any]:
        """Component of each setting, in the order of the settings."""
        return [self.controls[name] for name in Settings.__dataclass_fields__]

    def number(self, name: str, info: str, whole: bool = False) -> None:
        """Add a field for a number."""
        # No limits here: `Settings` reports invalid values in a sentence.
        self.controls[name] = gr.Number(
            getattr(Settings, name), label=LABELS[name], info=info, precision=0 if whole else None, min_width=130
        )

    def slider(self, name: str, step: float, info: str | None = None, high: float | None = None) -> None:
        """Add a slider."""
        low, most = LIMITS[name]
        self.controls[name] = gr.Slider(
            low, most if high is None else high, getattr(Settings, name), step=step, label=LABELS[name], info=info
        )

    def radio(self, name: str, choices: list[Any]) -> None:
        """Add a choice of one of several values."""
        self.controls[name] = gr.Radio(choices, value=getattr(Settings, name), label=LABELS[name], min_width=150)

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Open a section that can be closed."""
        with gr.Accordion(SECTION_TITLES[name], open=False, elem_id=f"section-{name}") as self.sections[name]:
            yield


def build_form() -> Form:
    """Add the controls to the page."""
    form = Form()
    form.radio("source", [(text, key) for key, text in SOURCES.items()])
    _add_sources(form)
    form.controls["methods"] = gr.Dropdown(
        method_choices(frames=True), value=list(Settings.methods), multiselect=True, max_choices=MOST_METHODS,
        label=LABELS["methods"], info="Several methods are shown side by side.", elem_id="methods",
    )  # fmt: skip
    with gr.Row():
        form.radio("prior", list(PRIORS))
        form.radio("mode", list(MODES))
    with form.section("psf"):
        form.radio("psf", [(text, key) for key, text in PSFS.items()])
        with gr.Group() as form.shapes["gaussian"]:
            form.number("psf_sigma", "Leave blank: 0.5 px for windows, guessed for frames.")
        with gr.Group(visible=False) as form.shapes["elliptical"], gr.Row():
            form.number("psf_sigma_y", "Along the second axis.")
            form.number("psf_angle", "Of the first axis, from x towards y.")
    with form.section("detector"):
        with gr.Row():
            form.number("noise_std", "Leave blank: as simulated, or estimated.")
            form.number("background", "Leave blank: 0 for windows, measured for frames.")
        with gr.Row():
            form.number("gain", "Leave blank: no photon noise of targets.")
            form.number("read_noise", "Leave blank: unknown.")
        form.number("saturation", "Leave blank: found from the image.")
        for kind, label in MAPS.items():
            form.maps[kind] = _upload_area(label, IMAGE_SUFFIXES, f"map-{kind}")
    with form.section("detection"):
        form.slider("alarm_exponent", 0.5, "False alarms per pixel in frames: 10 to the power of this number.")
        form.slider("min_score", 0.01, "Targets with a lower score are left out.")
        form.radio("ratio", list(RATIOS))
    return form


def _add_sources(form: Form) -> None:
    """Add the controls of each source of images."""
    with gr.Group() as form.groups["example"]:
        form.radio("example", [(name.replace("_", " "), name) for name in example_names()])
    with gr.Group(visible=False) as form.groups["upload"]:
        form.drop = _upload_area("Image, stack or video", UPLOAD_SUFFIXES, "drop")
        form.held = gr.HTML(NOTHING_HELD, elem_id="held")
    with gr.Group(visible=False) as form.groups["stack"]:
        form.slider("frame", 1, "First image to unmix, counted from 0.", high=1)
        form.slider("frames", 1, "Consecutive images. Targets of frames are linked into tracks.", high=2)
    with gr.Group(visible=False) as form.groups["benchmark"]:
        form.slider("windows", 1)
    with gr.Group(visible=False) as form.groups["build"]:
        form.slider("count", 1)
        form.slider("separation_px", 0.05)
        form.slider("intensity", 5)
    with gr.Group(visible=False) as form.groups["simulated"]:
        form.slider("scene_noise", 0.1)
        form.number("seed", "The same seed gives the same image.", whole=True)


def _upload_area(label: str, suffixes: Iterable[str], name: str) -> gr.File:
    # As high as the label and, below it, the text of the area.
    return gr.File(label=label, file_types=list(suffixes), height=150, elem_id=name)


def method_choices(frames: bool) -> list[tuple[str, str]]:
    """Return the labels and names of the methods; for frames, labels state which methods cannot unmix them."""
    from csist.methods.table import abilities

    reason = f": frames exceed {WINDOW_SIDE_PX} px, {WINDOWS_ONLY}"
    return [(name + ("" if abilities(name).frames or not frames else reason), name) for name in working_methods()]


def show_groups(source: str, images: int = 1) -> list[Any]:
    """Return updates that show or hide the groups of controls, in their order.

    Args:
        source: chosen source.
        images: number of images in the uploaded file.
    """
    shown = {
        "example": source == "example",
        "upload": source == "upload",
        "stack": source == "upload" and images > 1,
        "benchmark": source == "benchmark",
        "build": source == "build",
        "simulated": source in ("benchmark", "build"),
    }
    return [gr.update(visible=visible) for visible in shown.values()]


def show_shapes(psf: str) -> list[Any]:
    """Return updates that show the numbers of the chosen PSF."""
    return [gr.update(visible=psf not in MEASURED_PSFS), gr.update(visible=psf == "elliptical")]


def open_sections(settings: Settings) -> list[Any]:
    """Return updates that open the sections with values other than the defaults."""
    return [gr.update(open=settings.changed(names)) for names in SECTIONS.values()]
