"""Parts of benchmarks/gpu.py that time and compare steps: speed, terms, share of the peak, memory, waiting, numbers."""

import argparse
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import step
from dccd_timm import DCCDTask
from dccd_timm.batch import Batch
from dccd_timm.engine.meter import LossMeter
from dccd_timm.engine.nonfinite import UpdateGuard
from dccd_timm.engine.optim import build_optimizer
from dccd_timm.engine.step import training_step
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.recipe import Recipe, load_recipe
from dccd_timm.run.pieces import teacher_dtype
from dccd_timm.task.build import build_task

GOAL = 1.25  # of the time of a step of timm's feature task
CONFIG = dict(mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", crop_pct=1.0, crop_mode="center")


class Sizes(NamedTuple):
    """How large everything is; ``folder`` is one for files."""

    device: str
    student: str
    teacher: str
    pixels: int
    images: int
    classes: int
    rounds: int
    dtypes: tuple[str, ...]
    matrix: int
    jpegs: int
    workers: int
    batches: int
    folder: str = ""


GPU = Sizes("cuda", "resnet18", "resnet34", 224, 128, 1000, 15, ("float32", "bfloat16", "float16"), 8192, 4096, 15, 24)
TINY = Sizes("cpu", "test_resnet", "test_resnet", 64, 2, 10, 1, ("float32", "bfloat16"), 128, 24, 1, 3)


class Report(NamedTuple):
    """Rows of a table, what was checked and whether it holds, and remarks."""

    rows: list[dict[str, Any]]
    checks: dict[str, bool] = {}  # noqa: RUF012 - read only
    notes: tuple[str, ...] = ()


def arguments(sizes: Sizes, **more: Any) -> argparse.Namespace:
    """What benchmarks/step.py takes."""
    given = dict(
        student=sizes.student, teacher=sizes.teacher, size=sizes.pixels, images=sizes.images, views=2,
        classes=sizes.classes, dtype="float32", compile=False, channels_last=True, methods=None,
    )  # fmt: skip
    return argparse.Namespace(**(given | more))


def recipe_of(sizes: Sizes, *flags: str) -> Recipe:
    """A recipe of the pair on the device."""
    networks = ["--model", sizes.student, "--kd-model-name", sizes.teacher, "--kd-teacher-img-size", "student"]
    device = ["--device", sizes.device, "--num-classes", str(sizes.classes), "-b", str(sizes.images)]
    method = [] if "--kd-distill-type" in flags else ["--kd-distill-type", "dccd"]
    return load_recipe(["--data-dir", ".", "--opt", "momentum", *networks, *device, *method, *flags])


def random_batch(sizes: Sizes) -> Batch:
    """Two views of random images on the device."""
    views = torch.randn(sizes.images, 2, 3, sizes.pixels, sizes.pixels, device=sizes.device)
    return Batch(views, torch.arange(sizes.images, device=sizes.device) % sizes.classes)


def wait(sizes: Sizes) -> None:
    """Wait for the device."""
    if sizes.device == "cuda":
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], sizes: Sizes, repeats: int) -> float:
    """Seconds of one call, on average, after one that is not counted."""
    work()
    wait(sizes)
    began = time.perf_counter()
    for _ in range(repeats):
        work()
    wait(sizes)
    return (time.perf_counter() - began) / repeats


def steps(sizes: Sizes) -> Report:
    """DCCD's step against timm's logit and feature tasks on the same views, in turns, in each precision."""
    return _compare_steps(sizes, sizes.dtypes, compiled=False)


def compiled_steps(sizes: Sizes) -> Report:
    """The same, compiled, in bfloat16."""
    return _compare_steps(sizes, ("bfloat16",), compiled=sizes.device == "cuda")


def _compare_steps(sizes: Sizes, dtypes: tuple[str, ...], compiled: bool) -> Report:
    device, names = torch.device(sizes.device), ("timm logit", "timm feature", "dccd")
    rows, checks = [], {}
    for dtype in dtypes:
        args = arguments(sizes, dtype=dtype, compile=compiled)
        runs = {name: step.prepare(name, args, device) for name in names}
        seconds = step.measure_seconds(runs, sizes.rounds, device)
        ratios = {other: _ratio(seconds["dccd"], seconds[other]) for other in names}
        for name in names:
            rate = 2 * sizes.images / statistics.median(seconds[name])
            row = {"precision": dtype, "task": name, "views/s": rate, "time of DCCD / its": ratios[name]}
            rows.append(row)
        what = f"{dtype}: DCCD's step takes at most {GOAL} of timm's feature task's ({ratios['timm feature']:.3f})"
        checks[what] = ratios["timm feature"] <= GOAL
    return Report(rows, checks, (f"{sizes.images} images x 2 views, channels-last, {sizes.rounds} rounds",))


def _ratio(first: list[float], second: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def terms(sizes: Sizes) -> Report:
    """What the teacher and each term of the loss cost: a step without it beside the whole."""
    dccd = ["--kd-distill-type", "dccd", "--dccd-views", "2"]
    methods = {
        "all": dccd,
        "without contrast": [*dccd, "--dccd-contrast-weight", "0"],
        "without difference": [*dccd, "--dccd-difference-weight", "0"],
        "without both": [*dccd, "--dccd-contrast-weight", "0", "--dccd-difference-weight", "0"],
        "student alone": ["--kd-distill-type", "none", "--dccd-views", "2"],
    }
    device, args = torch.device(sizes.device), arguments(sizes, dtype="bfloat16", methods=methods)
    seconds = step.measure_seconds({name: step.prepare(name, args, device) for name in methods}, sizes.rounds, device)
    return Report(
        [
            {"step": name, "ms": 1000 * statistics.median(values), "of the whole": _ratio(values, seconds["all"])}
            for name, values in seconds.items()
        ]
    )


def share_of_peak(sizes: Sizes) -> Report:
    """Operations a second of DCCD's step, as a share of a large matrix product's."""
    dtype, device = torch.bfloat16, torch.device(sizes.device)
    a, b = (torch.randn(sizes.matrix, sizes.matrix, dtype=dtype, device=device) for _ in range(2))
    peak = 2 * sizes.matrix**3 / seconds_of(lambda: a @ b, sizes, sizes.rounds)
    run = step.prepare("dccd", arguments(sizes, dtype="bfloat16"), device)
    with FlopCounterMode(display=False) as counter:
        step.step(*run)
    rate = counter.get_total_flops() / seconds_of(lambda: step.step(*run), sizes, sizes.rounds)
    row = {"matrix product, TFLOP/s": peak / 1e12, "step, TFLOP/s": rate / 1e12, "share": rate / peak}
    return Report([row | {"step, GFLOP": counter.get_total_flops() / 1e9}])


class Step:
    """A step of the engine on random views, as train.py makes it."""

    def __init__(self, sizes: Sizes, *flags: str) -> None:
        self.sizes, self.recipe = sizes, recipe_of(sizes, *flags)
        self.accelerator = start_accelerator(self.recipe)
        self.dtype = teacher_dtype(self.recipe, self.accelerator)
        self.task = build(sizes, self.recipe, self.accelerator.device, self.dtype)
        self.task.trainable_module, self.optimizer = self.accelerator.prepare(
            self.task.trainable_module, build_optimizer(self.task, self.recipe, sizes.images)
        )
        self.meter = LossMeter(self.accelerator.device)
        self.guard = UpdateGuard("stop", self.task.trainable_module, self.accelerator.scaler is not None)
        self.batch = random_batch(sizes)

    def __call__(self) -> None:
        """Run it."""
        self.on(self.batch)

    def on(self, batch: Batch) -> None:
        """Run it on another batch."""
        may_update = partial(self.guard.may_update, self.meter, 0)
        result, _ = training_step(self.task, batch, self.optimizer, self.recipe, self.accelerator, may_update)
        self.meter.add(result, 0)


def build(sizes: Sizes, recipe: Recipe, device: torch.device, dtype: torch.dtype | None) -> Any:
    """The recipe's task with random weights, its teacher in ``dtype``."""
    student, teacher = (timm.create_model(n, num_classes=sizes.classes) for n in (sizes.student, sizes.teacher))
    config: Any = {**CONFIG, "input_size": (3, sizes.pixels, sizes.pixels)}
    task = build_task(recipe, student, teacher, config, False, device, dtype)
    if recipe.channels_last:
        for module in task.children():
            module.to(memory_format=torch.channels_last)
    return task.train()


def memory(sizes: Sizes) -> Report:
    """Peak memory of the engine's step, measured beside what --plan says."""
    from dccd_timm.plan.step import Surroundings, step_memory

    rows, checks = [], {}
    for flags in ((), ("--amp", "--amp-dtype", "bfloat16", "--channels-last")):
        run = Step(sizes, *flags)
        precision = run.accelerator.mixed_precision
        on_cpu = build(sizes, run.recipe, torch.device("cpu"), run.dtype)
        where = Surroundings(sizes.device == "cuda", 1, precision)
        planned = sum(
            step_memory(on_cpu, run.recipe, (3, sizes.pixels, sizes.pixels), sizes.images, where).values()
        )  # fmt: skip
        first = peak_of(run, sizes)  # cuDNN tries its kernels, with memory of their own
        measured = peak_of(run, sizes)
        row = {"precision": precision, "planned, MiB": planned / 2**20}
        if sizes.device == "cuda":
            row |= {"measured, MiB": measured / 2**20, "planned / measured": planned / measured}
            row |= {"first steps, MiB": first / 2**20, "reserved, MiB": torch.cuda.max_memory_reserved() / 2**20}
            checks[f"{precision}: within 15 % of the measured peak"] = abs(planned / measured - 1) <= 0.15
        rows.append(row)
        forget(run)
    return Report(rows, checks)


def peak_of(run: Step, sizes: Sizes) -> int:
    """Most bytes allocated on the GPU in three steps; 0 on the CPU."""
    if sizes.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        run()
    wait(sizes)
    return torch.cuda.max_memory_allocated() if sizes.device == "cuda" else 0


def forget(run: Step) -> None:
    """Free a step's memory and accelerate's state, for another precision."""
    run.accelerator.free_memory()
    del run.task, run.optimizer, run.guard, run.batch
    type(run.accelerator.state)._reset_state(reset_partial_state=True)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def waiting(sizes: Sizes) -> Report:
    """Where steps of the engine wait for the device, as torch warns of it, and the time that they lose."""
    rows, checks = [], {}
    for dtype in sizes.dtypes[1:]:
        run = Step(sizes, "--amp", "--amp-dtype", dtype)
        for _ in range(2):
            run()
        wait(sizes)
        places = _waits(run, sizes, repeats=5)
        began = time.perf_counter()
        for _ in range(sizes.rounds):
            run()
        launched = time.perf_counter() - began
        wait(sizes)
        whole = time.perf_counter() - began
        waits = sum(places.values()) / 5
        row = {
            "precision": run.accelerator.mixed_precision,
            "waits a step": waits,
            "ms a step": 1000 * whole / sizes.rounds,
        }
        rows.append(row | {"launched after": launched / whole, "where": "; ".join(places) or "nowhere"})
        # float16's scaler asks in each update whether to skip it
        allowed = 1 if run.accelerator.scaler is not None and run.accelerator.scaler.is_enabled() else 0
        checks[f"{run.accelerator.mixed_precision}: at most {allowed} waits a step ({waits:.1f})"] = waits <= allowed
        forget(run)
    return Report(rows, checks)


def _waits(run: Step, sizes: Sizes, repeats: int) -> Counter[str]:
    """Lines of Python from which a step waits for the device."""
    if sizes.device != "cuda":
        return Counter()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(repeats):
                run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    found = [w for w in caught if "synchronizing" in str(w.message)]
    return Counter(f"{'/'.join(w.filename.split('/')[-3:])}:{w.lineno}" for w in found)


def numbers(sizes: Sizes) -> Report:
    """Each term of the loss and the gradient against float64 on the CPU, for a small pair."""
    rows, checks = [], {}
    reference = _loss_and_gradient(torch.device("cpu"), torch.float64, None)
    # precision of convolutions, the dtype of autocast, and the largest error of a term and of the gradient
    kinds = (("float32", None, 1e-3, 1e-3), ("TF32", None, 5e-3, 0.05), ("bfloat16", torch.bfloat16, 0.02, 0.3))
    for name, dtype, of_term, of_gradient in kinds:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = name != "float32"
        found = _loss_and_gradient(torch.device(sizes.device), torch.float32, dtype)
        errors = {key: float((found[key] - value).norm() / value.norm()) for key, value in reference.items()}
        rows.append({"precision": name, **errors})
        worst, gradient = max(e for key, e in errors.items() if key != "gradient"), errors["gradient"]
        what = (
            f"{name}: errors of terms at most {of_term} ({worst:.2g}), of the gradient {of_gradient} ({gradient:.2g})"
        )
        checks[what] = worst <= of_term and gradient <= of_gradient
    return Report(rows, checks, ("relative errors",))


def _loss_and_gradient(device: torch.device, dtype: torch.dtype, autocast: torch.dtype | None) -> dict[str, Tensor]:
    """Terms of DCCD's loss and the gradient by all weights, in float64 on the CPU."""
    torch.manual_seed(1)
    small: dict[str, Any] = dict(num_classes=10, layers=(1, 1, 1), stem_chs=8)
    student, teacher = (timm.create_model("resnetv2_18", channels=c, **small) for c in ((8, 16, 24), (16, 24, 32)))
    task = DCCDTask(
        student, teacher, criterion=nn.CrossEntropyLoss(), input_size=(3, 64, 64), difference_loss_weight=1.0,
        teacher_img_size="student", device=torch.device("cpu"), dtype=torch.float64, verbose=False,
    )  # fmt: skip
    images = torch.randn(32, 3, 64, 64, dtype=torch.float64)
    target = torch.arange(16).repeat(2) % 10
    task.to(device=device, dtype=dtype).train()
    task.teacher.dtype = dtype if task.teacher.dtype is not None else None
    with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
        out = task(images.to(device, dtype), target.to(device))
    out["loss"].backward()
    gradient = torch.cat([p.grad.flatten() for p in task.trainable_module.parameters() if p.grad is not None])
    found = {name: value for name, value in out.items() if value.ndim == 0} | {"gradient": gradient}
    return {name: value.detach().double().cpu() for name, value in found.items()}
