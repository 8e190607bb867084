"""JPEG decoders against Pillow: the pixels of 80 odd files, and CPU milliseconds for photographs of 500 x 375 pixels.

    OMP_NUM_THREADS=1 python benchmarks/decode.py        # 20 seconds; PyPI's torchcodec is tried where it is installed

All decoders take the same photographs in turns, so that a change of the machine's speed affects all of them. CPU time
and not the clock: other programs may run. Where Pillow finds no RGB image, or none at all, the loader takes its answer.
"""

import argparse
import io
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import datasets
import numpy as np
import pyarrow.parquet as pq
import simplejpeg
import torch
from PIL import Image

from benchmarks.loader import write_images
from tests.data.odd_jpegs import odd_jpegs

Decoder = Callable[[bytes], Any]  # JPEG -> pixels [H, W, C] as a tensor


def pillow(data: bytes) -> torch.Tensor:
    """The reference."""
    with Image.open(io.BytesIO(data)) as image:
        return torch.from_numpy(np.array(image))


def decoders() -> dict[str, Decoder]:
    """What is installed, by name."""
    found: dict[str, Decoder] = {
        "Pillow": pillow,
        "simplejpeg": lambda data: torch.from_numpy(simplejpeg.decode_jpeg(data)),
        "simplejpeg, strict=False": lambda data: torch.from_numpy(simplejpeg.decode_jpeg(data, strict=False)),
    }
    try:
        from torchvision.io import decode_jpeg as torchvision_jpeg

        found["torchvision (deprecated)"] = lambda data: torchvision_jpeg(
            torch.frombuffer(data, dtype=torch.uint8)
        ).permute(1, 2, 0)
    except ImportError:
        print("torchvision has no decode_jpeg any more")
    try:
        from torchcodec.decoders import decode_jpeg as torchcodec_jpeg

        found["torchcodec"] = lambda data: torchcodec_jpeg(data, mode="UNCHANGED").permute(1, 2, 0)
    except (ImportError, OSError, RuntimeError) as error:
        print(f"torchcodec is not measured: {str(error).splitlines()[0]}")
    return found


def compare_pixels(decode: Decoder, files: dict[str, bytes]) -> Counter[str]:
    """How often it agrees with Pillow, and in what it does not."""
    found = Counter[str]()
    for data in files.values():
        try:
            with Image.open(io.BytesIO(data)) as image:
                expected = np.array(image) if image.mode == "RGB" else None
        except (OSError, SyntaxError):  # SyntaxError: a broken header
            expected = None
        try:
            pixels = decode(data).numpy()
        except Exception:  # each decoder has its own
            pixels = None
        if expected is None:
            continue  # the loader asks Pillow first
        elif pixels is None:
            found["left to Pillow"] += 1
        else:
            found["equal" if np.array_equal(pixels, expected) else "OTHER PIXELS"] += 1
    return found


def main() -> None:
    """Print a table: pixels and CPU time of each decoder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of deprecation, of buffers that are read-only, of broken EXIF data
    datasets.disable_progress_bars()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), args.images, shards=1)
        table = pq.read_table(next(Path(folder).glob("*.parquet")))
    photographs = [row["bytes"] for row in table["image"].to_pylist()]
    found, files = decoders(), odd_jpegs()
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(args.rounds):
        for name, decode in found.items():
            began = time.process_time()
            for data in photographs:
                decode(data)
            times[name].append((time.process_time() - began) / len(photographs) * 1000)
    print("| | ms | time of Pillow / its | pixels of RGB files that Pillow reads |")
    print("|---|---|---|---|")
    for name, decode in found.items():
        ratio = statistics.median(a / b for a, b in zip(times["Pillow"], times[name], strict=True))
        pixels = ", ".join(f"{kind} {count}" for kind, count in compare_pixels(decode, files).items())
        print(f"| {name} | {statistics.median(times[name]):.3f} | {ratio:.2f} | {pixels} |")


if __name__ == "__main__":
    main()
