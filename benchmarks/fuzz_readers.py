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
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np

SECONDS, MEMORY_BYTES = 10.0, 4 * 2**30
"""What reading one mutated file may take; memory is that of the process with its libraries."""

NUMBERS = (b"0", b"-1", b"99999999", b"2147483647", b"4294967296", b"1e308", b"NaN", b"''", b"T")


def samples() -> dict[str, bytes]:
    """A valid file of every format, small, by its name."""
    import h5py
    import pandas as pd
    import tifffile
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
        try:
            from astropy.io import fits

            fits.PrimaryHDU(stack).writeto(folder / "a.fits")
            units = [fits.PrimaryHDU(), fits.CompImageHDU(image, name="SCI"), fits.ImageHDU(image, name="DQ")]
            fits.HDUList(units).writeto(folder / "c.fits.fz")
            write_table(table, folder / "t.fits")
            write_table(table, folder / "t.ecsv")
        except ImportError:
            pass
        _video(folder / "v.mkv", image)
        found = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    if "a.fits" in found:
        found["a.fits.gz"], found["a.fits.bz2"] = gzip.compress(found["a.fits"]), bz2.compress(found["a.fits"])
    return found


def _video(path: Path, image: np.ndarray) -> None:
    try:
        import av
    except ImportError:
        return
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = image.shape[1], image.shape[0], "gray16le"
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(image, format="gray16le")
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
    from csist.io import image_kind, read_image, read_targets_table
    from csist.io.cards import read_prior, read_sensor
    from csist.io.sequences import sequence_of_video

    if path.name.startswith("t."):
        read_targets_table(path)
    elif path.suffix == ".json":
        read_sensor(path) if path.name.startswith("card") else read_prior(str(path))
    elif image_kind(path) == "video":
        for _ in sequence_of_video(path):
            pass
    else:
        stack = read_image(path)
        for image in stack:
            image.sum()
        if stack.kind == "store":
            from csist.io.store import load

            if len(load(path)["test"].targets) != len(stack):
                raise RuntimeError("images and targets differ in number")


def work(paths: list[str]) -> None:
    """In a child: read files, and say of each what came out, as a line of JSON."""
    import resource
    import warnings

    from csist.checks import InputError

    for name in ("astropy.io.fits", "tifffile", "PIL.Image", "h5py", "pyarrow.parquet", "av", "csist.io.store"):
        with suppress(ImportError):
            import_module(name)  # not to be counted as the time of the first file
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    warnings.simplefilter("ignore")
    for path in paths:
        begun = time.perf_counter()
        try:
            read(Path(path))
            outcome, said = "result", ""
        except InputError as error:
            said = str(error)
            outcome = "one line" if "\n" not in said and Path(path).name in said else "poor line"
        except BaseException as error:  # whatever it is: it is what is looked for
            outcome, said = "internal error", f"{type(error).__name__}: {error}"
        line = {"path": path, "outcome": outcome, "said": said[:300], "seconds": time.perf_counter() - begun}
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
    patience = SECONDS + 30.0  # its libraries come first
    while len(done) < len(paths):
        ready, _, _ = select.select([child.stdout], [], [], patience)
        line = child.stdout.readline() if ready else b""
        if not line:
            if ready:
                child.wait()
            else:
                os.kill(child.pid, signal.SIGKILL)
                child.wait()
            outcome = "hang" if not ready else f"died ({child.returncode})"
            done.append({"path": str(paths[len(done)]), "outcome": outcome, "said": "", "seconds": patience})
            return done
        done.append(json.loads(line))
        patience = SECONDS
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
