"""Parts of benchmarks/gpu.py that train: float16's scaler, JPEGs to the device, SIGTERM and bitwise resume."""

import io
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import timm
import torch
from PIL import Image

from benchmarks.gpu_parts import CONFIG, Report, Sizes, Step, forget, recipe_of, seconds_of, wait
from dccd_timm.batch import Batch
from dccd_timm.cli import train_main
from dccd_timm.data.build import Rank, build_train_loader
from dccd_timm.data.loader import TrainLoader
from dccd_timm.data.sources import open_split
from dccd_timm.data.workers import start_server_early

_SAVED = 75  # exit code of a run that was told to stop


def scaler(sizes: Sizes) -> Report:
    """An update of float16 whose gradients are not finite is skipped, halves the scale, and the next one is made."""
    if sizes.device != "cuda":
        return Report([], notes=("float16 needs a GPU",))
    run = Step(sizes, "--amp", "--amp-dtype", "float16")
    assert run.accelerator.scaler is not None
    for _ in range(5):  # until its scale has come down from the first one
        run()
    weights = [p for p in run.task.trainable_module.parameters() if p.requires_grad]
    before, scale = [w.detach().clone() for w in weights], run.accelerator.scaler.get_scale()
    views = run.batch.views
    run.batch.views = views * torch.inf
    run()
    same = all(torch.equal(a, b) for a, b in zip(before, weights, strict=True))
    checks = {
        "the optimizer says that it skipped": run.optimizer.step_was_skipped,
        "no weight has changed": same,
        "the scale is halved": run.accelerator.scaler.get_scale() == scale / 2,
    }
    run.batch.views = views
    run()
    checks["the update after it is made"] = not run.optimizer.step_was_skipped
    return Report([{"scale before": scale, "after": run.accelerator.scaler.get_scale()}], checks)


def write_images(folder: Path, count: int, size: tuple[int, int], classes: int = 4) -> Path:
    """An image folder of JPEGs with some detail, of which 64 differ."""
    rng, kinds = np.random.default_rng(0), []
    for _ in range(min(count, 64)):
        coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        pixels = np.asarray(coarse).astype(np.float32) + rng.normal(0, 6, (size[1], size[0], 3))
        buffer = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        kinds.append(buffer.getvalue())
    for split in ("train", "validation"):
        for number in range(count if split == "train" else max(8, count // 16)):
            path = folder / split / f"{number % classes}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(kinds[number % len(kinds)])
    return folder


def loader(sizes: Sizes) -> Report:
    """Images a second of JPEGs on disk: the loader alone, the step alone, and both, with and without a side stream."""
    folder = write_images(Path(sizes.folder) / "jpegs", sizes.jpegs, (500, 375))
    rows = []
    data = ["--data-dir", str(folder), "-j", str(sizes.workers), "--amp", "--amp-dtype", "bfloat16"]
    start_server_early(recipe_of(sizes, *data))  # before CUDA begins, as train.py does
    for pinned in (True, False) if sizes.device == "cuda" else (False,):
        run = Step(sizes, *data, *(["--pin-mem"] if pinned else []), "--channels-last")
        step_rate = sizes.images / seconds_of(run, sizes, sizes.batches)
        for side in (True, False) if sizes.device == "cuda" else (False,):
            given = _open(sizes, run)
            if not side:
                given.side = None
            alone = _rate(sizes, given, lambda batch: wait(sizes))
            both = _rate(sizes, given, run.on)
            given.close()
            rows.append(
                {
                    "pinned": pinned, "side stream": side and given.side is not None, "loader alone": alone,
                    "step alone": step_rate, "both": both, "of the slower": both / min(alone, step_rate),
                }
            )  # fmt: skip
        forget(run)
    best = max(row["of the slower"] for row in rows)
    # a tiny run on a busy CPU shows that it runs, and nothing else
    checks = {f"both at 0.9 of the slower one at least ({best:.2f})": best >= 0.9} if sizes.device == "cuda" else {}
    return Report(rows, checks, (f"images/s; {sizes.workers} workers on {os.cpu_count()} cores",))


def _open(sizes: Sizes, run: Step) -> TrainLoader:
    source = open_split(run.recipe, "train", True, None)
    config = {**CONFIG, "input_size": (3, sizes.pixels, sizes.pixels)}
    return build_train_loader(run.recipe, source, config, sizes.classes, Rank(run.accelerator.device))


def _rate(sizes: Sizes, given: TrainLoader, use: Callable[[Batch], object]) -> float:
    """Images a second, once the workers are at work."""
    batches: Iterator[Batch] = iter(given)
    for batch in islice(batches, 3 if sizes.device == "cuda" else 1):
        use(batch)
    wait(sizes)
    began = time.perf_counter()
    for batch in islice(batches, sizes.batches):
        use(batch)
    wait(sizes)
    return sizes.batches * sizes.images / (time.perf_counter() - began)


def resume(sizes: Sizes) -> Report:
    """With deterministic kernels, a run that SIGTERM ends in a step and that is resumed gives the same weights."""
    folder = Path(sizes.folder)
    write_images(folder / "small", 256 if sizes.device == "cuda" else 64, (64, 64))
    teacher = timm.create_model("resnetv2_18", num_classes=4, layers=(1, 1, 1), channels=(16, 24, 32), stem_chs=16)
    timm.models.save_for_hf(teacher, folder / "teacher", safe_serialization="both")
    rows, checks = [], {}
    for precision in ((), ("--amp", "--amp-dtype", "float16")) if sizes.device == "cuda" else ((),):
        name = precision[-1] if precision else "float32"
        began = time.perf_counter()
        whole = _start(_flags(folder, f"{name}-whole", *precision, device=sizes.device))
        code = _ended(whole)
        cut = _start(_flags(folder, f"{name}-cut", *precision, device=sizes.device))
        _wait_for_update(folder / f"{name}-cut", 3, cut)
        os.kill(cut.pid or 0, signal.SIGTERM)
        stopped = _ended(cut)
        resumed = _ended(_start(_flags(folder, f"{name}-cut", "--resume", "auto", *precision, device=sizes.device)))
        first, second = (_weights(folder / f"{name}-{kind}") for kind in ("whole", "cut"))
        differ = sum(not torch.equal(first[key], second[key]) for key in first)
        rows.append(
            {"precision": name, "tensors": len(first), "that differ": differ, "seconds": time.perf_counter() - began}
        )
        checks[f"{name}: SIGTERM saves and ends with code {_SAVED}"] = stopped == _SAVED
        checks[f"{name}: bitwise the same student"] = code == resumed == 0 and differ == 0
    return Report(rows, checks)


def _flags(folder: Path, name: str, *more: str, device: str) -> list[str]:
    workers = "2" if device == "cuda" else "0"
    return [
        "--data-dir", str(folder / "small"), "--model", "resnetv2_18", "--model-kwargs", "layers=(1,1,1)",
        "channels=(8,16,24)", "stem_chs=8", "--img-size", "48", "-b", "8", "-j", workers, "--epochs", "2",
        "--lr", "0.05", "--warmup-epochs", "0", "--kd-model-name", f"local-dir:{folder / 'teacher'}",
        "--kd-distill-type", "dccd",
        "--allow-weak-teacher", "--reprob", "0.5", "--mixup", "0.2", "--recovery-interval", "1", "--drop", "0.1",
        "--output", str(folder), "--experiment", name, "--device", device, *more,
    ]  # fmt: skip


def _start(flags: list[str]) -> Any:
    """train.py in a process forked off this one, which has imported what it needs."""
    process = multiprocessing.get_context("fork").Process(target=_program, args=(flags,))
    process.start()
    return process


def _program(flags: list[str]) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    type(
        torch.backends.cudnn
    ).benchmark = False  # train.py's own setting, which chooses kernels by their speed, then does nothing
    sys.modules["matplotlib"] = None  # type: ignore[assignment]  # no pictures: they take seconds
    sys.argv = ["train.py", *flags]
    train_main()


def _ended(process: Any) -> int:
    process.join(100)
    return -1 if process.exitcode is None else int(process.exitcode)


def _wait_for_update(run: Path, number: int, process: Any) -> None:
    """Wait until the run has saved its update ``number``."""
    while process.is_alive():
        states = sorted((run / "state").glob("update-*"))
        if states and int(states[-1].name.removeprefix("update-")) >= number:
            return
        time.sleep(0.01)
    raise RuntimeError(f"the run ended with code {process.exitcode} before update {number}")


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / "last" / "model.safetensors")
