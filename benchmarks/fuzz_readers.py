"""Mutated files of every format that csist reads: each gives a result or one line, in bounded time and memory.

    python benchmarks/fuzz_readers.py --cases 500 --json docs/results/fuzz_readers.json

Valid files of every format are damaged at random (bytes flipped, cut out, doubled, numbers in headers replaced) and
read by child processes whose memory is limited; a child that takes too long is ended. Counted are results, one-line
errors, internal errors, hangs and children that died.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

WEIGHTS = Path(find_spec("csist").origin).parent / "weights"

SECONDS, MEMORY_BYTES = 10.0, 4 * 2**30
"""What reading one mutated file may take: time of the processor, so that other work on the machine does not count, and
memory of the process with its libraries."""

PATIENCE_SECONDS = 180.0
"""Of the clock: a child that says nothing for so long waits for something that does not come."""

LABEL = """<?xml version="1.0" ?>
<annotation><filename>CSO_0.png</filename><size><width>11</width><height>11</height><depth>1</depth></size>
<sigma>0.5</sigma><object><name>Target</name><coordinate><xc>5.25</xc><yc>4.5</yc><brightness>230.0</brightness>
</coordinate></object></annotation>
"""

NUMBERS = (b"0", b"-1", b"99999999", b"2147483647", b"4294967296", b"1e308", b"NaN", b"''", b"T")


def samples() -> dict[str, bytes]:
    """A valid file of every format, small, by its name."""
    import h5py
    import pandas as pd
    import tifffile
    import torch
    from PIL import Image

    from csist import Sensor, Targets
    from csist.datasets import generate
    from csist.io import targets_table, write_table

    rng = np.random.default_rng(0)
    image = rng.integers(0, 4096, (24, 30), dtype=np.uint16)
    stack = rng.integers(0, 4096, (3, 24, 30), dtype=np.uint16)
    found: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for suffix, mode in (
            ("png", image),
            ("jpg", (image // 16).astype(np.uint8)),
            ("bmp", (image // 16).astype("u1")),
        ):
            Image.fromarray(mode).save(folder / f"a.{suffix}")
        tifffile.imwrite(folder / "a.tif", stack, photometric="minisblack", compression="zlib")
        tifffile.imwrite(folder / "plain.tif", stack, photometric="minisblack")
        tifffile.imwrite(
            folder / "big.tif", stack, photometric="minisblack", compression="lzw", bigtiff=True, byteorder=">"
        )
        tifffile.imwrite(folder / "h.tif", stack, imagej=True, metadata={"axes": "TYX"})
        tifffile.imwrite(folder / "o.ome.tif", stack, photometric="minisblack", metadata={"axes": "TYX"}, ome=True)
        np.save(folder / "a.npy", stack)
        np.savez(folder / "a.npz", stack)
        np.savez_compressed(folder / "c.npz", images=stack, other=image)
        generate(folder / "s.h5", count=10)
        with h5py.File(folder / "z.h5", "w") as file, h5py.File(folder / "s.h5") as plain:
            for key, value in plain.attrs.items():
                file.attrs[key] = value
            for split in plain:
                for key, values in plain[split].items():
                    file.create_dataset(f"{split}/{key}", data=values[()], compression="gzip")
        pair = Targets(x=[1.0, 2.0], y=[3.0, 4.0], intensity=[5.0, 6.0])
        table = targets_table([("a", 0, pair), ("b", 1, Targets.empty())])
        write_table(pd.concat([table] * 20), folder / "t.csv")
        write_table(pd.concat([table] * 20), folder / "t.parquet")
        (folder / "card.json").write_text(json.dumps(Sensor(read_noise=1.0).to_card()))
        (folder / "prior.json").write_text(json.dumps({"count_range": [1, 4], "intensity_range": [5.0, 9.0]}))
        (folder / "config.toml").write_text('psf-sigma = 1.2\nmode = "fast"\nsky = true\n')
        (folder / "label.xml").write_text(LABEL)
        (folder / "at.csv").write_text("x,y,image,frame\n" + "3.5,4.25,a.png,0\n" * 20)
        np.save(folder / "psf.npy", np.outer(*2 * [np.exp(-0.5 * np.linspace(-3.0, 3.0, 21) ** 2)]))
        torch.save(torch.nn.Linear(3, 2).state_dict(), folder / "w.pth")
        smallest = min((path.stat().st_size, path.name) for path in WEIGHTS.glob("*.safetensors"))[1]
        (folder / "w.safetensors").write_bytes((WEIGHTS / smallest).read_bytes())
        (folder / "flir.jpg").write_bytes(_radiometric(found_jpeg=(folder / "a.jpg").read_bytes(), counts=image))
        try:
            from astropy.io import fits

            _astronomical(folder, image)
            fits.PrimaryHDU(stack).writeto(folder / "a.fits")
            units = [fits.PrimaryHDU(), fits.CompImageHDU(image, name="SCI"), fits.ImageHDU(image, name="DQ")]
            fits.HDUList(units).writeto(folder / "c.fits.fz")
            write_table(table, folder / "t.fits")
            write_table(table, folder / "t.ecsv")
        except ImportError:
            pass
        _video(folder / "v.mkv", image, "ffv1", "gray16le")
        _video(folder / "v.mp4", image, "mpeg4", "yuv420p")
        found = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    if "a.fits" in found:
        found["a.fits.gz"], found["a.fits.bz2"] = gzip.compress(found["a.fits"]), bz2.compress(found["a.fits"])
    return found


def _radiometric(found_jpeg: bytes, counts: np.ndarray) -> bytes:
    """A JPEG file with raw counts as FLIR's cameras write them: a header, a directory, and a record behind it."""
    record = struct.pack("<3H", 2, *counts.shape[::-1]).ljust(32, b"\0") + counts.astype("<u2").tobytes()
    head = b"FFF\0" + bytes(16) + struct.pack(">3I", 101, 64, 3) + bytes(32)
    entry = struct.pack(">HHIIII", 1, 2, 100, 1, 64 + 3 * 32, len(record)).ljust(32, b"\0")
    held = b"FLIR\0\1\0\0" + head + entry + bytes(64) + record
    return found_jpeg[:2] + b"\xff\xe1" + (len(held) + 2).to_bytes(2, "big") + held + found_jpeg[2:]


def _astronomical(folder: Path, image: np.ndarray) -> None:
    """FITS files with errors, mask, instrument and sky coordinates, and with PSFs that vary over the field."""
    from astropy.io import fits

    own = fits.PrimaryHDU(image.astype(np.float32))
    own.header.update({"EGAIN": 2.0, "RDNOISE": 5.0, "SATURATE": 4e3, "BUNIT": "adu", "EXPTIME": 10.0})
    own.header.update({"DATE-OBS": "2026-01-02T03:04:05.6", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"})
    own.header.update(
        {"CRVAL1": 10.0, "CRVAL2": 20.0, "CDELT1": -1e-4, "CDELT2": 1e-4, "CUNIT1": "deg", "CUNIT2": "deg"}
    )
    beside = [fits.ImageHDU(np.ones(image.shape, np.float32), name="UNCERT"), fits.ImageHDU(image % 2, name="MASK")]
    fits.HDUList([own, *beside]).writeto(folder / "ccd.fits")
    axis = np.linspace(-3.0, 3.0, 25)
    bell = np.exp(-0.5 * (axis**2 + axis[:, None] ** 2)).astype(np.float32)
    header = fits.Header({"OVERSAMP": 4})
    header.update({f"DET_YX{n}": f"({20 * (n // 2)}, {30 * (n % 2)})" for n in range(4)})
    fits.PrimaryHDU(np.array([bell] * 4), header).writeto(folder / "psf.fits")
    images = np.array([bell, 0.01 * bell, 0.01 * bell])
    column = fits.Column("PSF_MASK", f"{images.size}E", dim=str(images.shape[::-1]), array=images[None])
    table = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    table.header.update({"POLNAXIS": 2, "POLNAME1": "X_IMAGE", "POLNAME2": "Y_IMAGE", "POLGRP1": 1, "POLGRP2": 1})
    table.header.update({"POLNGRP": 1, "POLDEG1": 1, "POLZERO1": 15.0, "POLZERO2": 12.0, "POLSCAL1": 30.0})
    table.header.update({"POLSCAL2": 24.0, "PSF_SAMP": 0.5})
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(folder / "psf.psf")


def _video(path: Path, image: np.ndarray, codec: str, pixels: str) -> None:
    try:
        import av
    except ImportError:
        return
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = image.shape[1], image.shape[0], pixels
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(image, format="gray16le").reformat(format=pixels)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """The data with one to three damages, most of them in its first kilobytes, where headers are."""
    content = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        if not content:
            break
        reach = len(content) if rng.random() < 0.3 else min(len(content), 3000)
        place = int(rng.integers(reach))
        kind = rng.integers(6)
        if kind <= 1:
            content[place] ^= int(rng.integers(1, 256))
        elif kind == 2:
            content[place : place + 4] = bytes(rng.choice([0, 255, 127, 128], 4).astype(np.uint8))
        elif kind == 3:
            del content[place : place + int(rng.integers(1, 60))]
        elif kind == 4:
            content[place:place] = content[place : place + int(rng.integers(1, 200))]
        else:
            number = NUMBERS[int(rng.integers(len(NUMBERS)))]
            content[place : place + len(number)] = number
    return bytes(content)


def read(path: Path) -> None:
    """Read a file as csist's commands do, all of it."""
    from csist.io import image_kind

    others = _readers()
    name = next((name for name in others if path.name.startswith(name)), None)
    if name is not None:
        others[name](path)
    elif image_kind(path) == "video":
        _read_video(path)
    else:
        _read_images(path)


def _readers() -> dict[str, Callable[[Path], object]]:
    """What reads files that are no images, by how their names begin."""
    from csist.datasets.grokcso import read_annotation
    from csist.io import read_targets_table
    from csist.io.cards import read_prior, read_sensor
    from csist.io.positions import read_positions
    from csist.io.psf import read_psf
    from csist.weights.cards import read_card
    from csist.weights.files import load_state

    return {
        "t.": read_targets_table,
        "card": read_sensor,
        "prior": lambda path: read_prior(str(path)),
        "config": _read_config,
        "label": read_annotation,
        "at.": read_positions,
        "psf.": read_psf,
        "w.p": load_state,
        "w.s": lambda path: (read_card(path), load_state(path)),
    }


def _read_config(path: Path) -> None:
    import typer

    from csist.cli.config import kinds_of, options_of, read_config
    from csist.cli.entry import app

    command = typer.main.get_command(app).commands["unmix"]
    context = typer.Context(command, info_name="unmix")
    read_config(path, "unmix", options_of(context), kinds_of(context))


def _read_video(path: Path) -> None:
    from csist.io.sequences import sequence_of_video

    for _ in sequence_of_video(path):
        pass


def _read_images(path: Path) -> None:
    from csist.checks import InputError
    from csist.io import read_image

    stack = read_image(path)
    for image in stack:
        image.sum()
    try:
        stack.header.wcs()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error  # as `csist unmix` says it
    if stack.kind == "store":
        from csist.io.store import load

        if len(load(path)["test"].targets) != len(stack):
            raise RuntimeError("images and targets differ in number")


def work(paths: list[str]) -> None:
    """In a child: read files, and say of each what came out, as a line of JSON."""
    import resource
    import warnings

    from csist.checks import InputError

    loaded = (
        "astropy.io.fits", "astropy.table", "tifffile", "PIL.Image", "h5py", "pandas", "pyarrow.parquet", "av", "flyr",
        "csist.io.store", "csist.io.psf", "csist.cli.unmix.command", "csist.weights.files",
    )  # fmt: skip
    for name in loaded:
        with suppress(ImportError):
            import_module(name)  # not to be counted as the time of the first file
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    warnings.simplefilter("ignore")
    for path in paths:
        begun = time.process_time()
        resource.setrlimit(resource.RLIMIT_CPU, (int(begun + SECONDS) + 1, resource.RLIM_INFINITY))
        try:
            read(Path(path))
            outcome, said = "result", ""
        except InputError as error:
            said = str(error)
            outcome = "one line" if "\n" not in said and Path(path).name in said else "poor line"
        except BaseException as error:  # whatever it is: it is what is looked for
            outcome, said = "internal error", f"{type(error).__name__}: {error}"
        line = {"path": path, "outcome": outcome, "said": said[:300], "seconds": time.process_time() - begun}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def run(paths: list[Path]) -> list[dict[str, object]]:
    """What came out of each file; a child that hangs or dies is begun anew behind the file that did it."""
    found: list[dict[str, object]] = []
    left = list(paths)
    while left:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
            listed.write("\n".join(map(str, left)))
            listed.flush()
            command = [sys.executable, str(Path(__file__).resolve()), "--work", listed.name]
            # Unbuffered: a line that waits in a buffer would look like a child that hangs.
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
            done = _follow(child, left)
            child.stdout.close()
        found += done
        left = left[len(done) :]
    return found


def _follow(child: subprocess.Popen[bytes], paths: list[Path]) -> list[dict[str, object]]:
    """The lines of a child until it ends, hangs or dies; the last one then is about the file that did it."""
    import select

    done: list[dict[str, object]] = []
    while len(done) < len(paths):
        ready, _, _ = select.select([child.stdout], [], [], PATIENCE_SECONDS)
        line = child.stdout.readline() if ready else b""
        if not line:
            if ready:
                child.wait()
            else:
                os.kill(child.pid, signal.SIGKILL)
                child.wait()
            hangs = not ready or child.returncode == -signal.SIGXCPU
            outcome = "hang" if hangs else f"died ({child.returncode})"
            done.append({"path": str(paths[len(done)]), "outcome": outcome, "said": "", "seconds": SECONDS})
            return done
        done.append(json.loads(line))
    child.wait()
    return done


def damaged(folder: Path, sample: str, data: bytes, cases: int, seed: int) -> list[Path]:
    """So many damaged copies of a sample, each in a folder of its own, so that its name is the sample's."""
    rng = np.random.default_rng([seed, *sample.encode()])
    paths = []
    for number in range(cases):
        (folder / f"{number}").mkdir(exist_ok=True)
        path = folder / f"{number}" / sample
        path.write_bytes(mutate(data, rng))
        paths.append(path)
    return paths


def fuzz(cases: int, seed: int, keep: Path | None, only: str = "") -> dict[str, Counter[str]]:
    """Outcomes of so many mutated files of each format, by its sample's name."""
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        for sample, data in samples().items():
            if only not in sample:
                continue
            paths = damaged(folder, sample, data, cases, seed)
            found = run(paths)
            counts[sample] = Counter(str(each["outcome"]) for each in found)
            for each in found:
                if each["outcome"] not in ("result", "one line"):
                    path = Path(str(each["path"]))
                    sys.stderr.write(f"{sample} case {path.parent.name}: {each['outcome']} {each['said']}\n")
                    if keep is not None:
                        keep.mkdir(parents=True, exist_ok=True)
                        (keep / f"{path.parent.name}-{sample}").write_bytes(path.read_bytes())
            slowest = max(float(str(each["seconds"])) for each in found)
            print(f"{sample:14} {dict(counts[sample])}  slowest {slowest:.2f} s", flush=True)
            for path in paths:
                path.unlink()
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=500, help="mutated files of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="formats whose sample's name holds this")
    parser.add_argument("--keep", type=Path, help="folder for files that gave neither a result nor one line")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        work(arguments.work.read_text(encoding="utf-8").split("\n"))
        return 0
    counts = fuzz(arguments.cases, arguments.seed, arguments.keep, arguments.only)
    total = sum(counts.values(), Counter())
    bad = {name: number for name, number in total.items() if name not in ("result", "one line")}
    print(f"{sum(total.values())} files: {dict(total)}")
    if arguments.json is not None:
        figures = {"cases": arguments.cases, "seed": arguments.seed, "formats": {k: dict(v) for k, v in counts.items()}}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
