"""Peak memory of a training step as `--plan` has it, against the peak that torch's profiler measures on this CPU.

    python benchmarks/plan.py
    python benchmarks/plan.py --only vit --images 8

The step is engine/step.py's own, with random images. Both peaks are those of tensors: of the same allocations, one by
shapes alone, the other by what the allocator reports.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import timm
import torch
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState
from timm.task import TrainingTask
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_iter

from dccd_timm.batch import Batch
from dccd_timm.engine.optim import build_optimizer
from dccd_timm.engine.step import training_step
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.models.student import build_student
from dccd_timm.models.teacher import freeze
from dccd_timm.plan.step import Surroundings, step_memory
from dccd_timm.recipe import load_recipe
from dccd_timm.task.build import build_task

BF16 = "--amp --amp-dtype bfloat16"
# Student, teacher and flags
PAIRS = {
    "resnet18, SGD": "--model resnet18 --kd-model-name resnet34 --opt momentum",
    "resnet18, AdamW, EMA, bf16": f"--model resnet18 --kd-model-name resnet34 --opt adamw --model-ema {BF16}",
    "resnet18, accumulation, bf16": "--model resnet18 --kd-model-name resnet34 --opt momentum"
    f" --grad-accum-steps 4 {BF16}",
    "mobilenetv3, accumulation, EMA": "--model mobilenetv3_small_100 --kd-model-name resnet34 --opt momentum"
    " --grad-accum-steps 2 --model-ema",
    "resnet18, timm's logit task": "--model resnet18 --kd-model-name resnet34 --kd-distill-type logit --opt momentum",
    "convnext, channels-last": "--model convnext_atto --kd-model-name convnext_tiny --opt adamw --channels-last",
    "efficientnet <- ViT, bf16": f"--model efficientnet_b0 --kd-model-name vit_tiny_patch16_224 --opt momentum {BF16}",
    "vit, AdamW": "--model vit_tiny_patch16_224 --kd-model-name vit_small_patch16_224 --opt adamw",
    "vit, AdamW, EMA, bf16": "--model vit_tiny_patch16_224 --kd-model-name vit_small_patch16_224 --opt adamw"
    f" --model-ema {BF16}",
    "vit <- CNN, accumulation, clipping": "--model vit_tiny_patch16_224 --kd-model-name resnet34 --opt lamb"
    " --grad-accum-steps 2 --clip-grad 1.0",
    "vit, checkpointing, bf16": "--model vit_tiny_patch16_224 --kd-model-name vit_small_patch16_224 --opt adamw"
    f" --grad-checkpointing {BF16}",
}  # fmt: skip


def compare(flags: list[str], num_classes: int = 1000) -> tuple[int, int]:
    """Bytes at the peak of a step of these flags: planned and measured."""
    recipe = load_recipe([*flags, "--device", "cpu"])
    torch.manual_seed(0)
    accelerator = start_accelerator(recipe)
    student, data_config = build_student(recipe, num_classes)
    assert recipe.kd_model_name is not None
    teacher = freeze(timm.create_model(recipe.kd_model_name, num_classes=num_classes))
    task = build_task(recipe, student, teacher, data_config, recipe.mixes, accelerator.device)
    optimizer = build_optimizer(task, recipe, recipe.batch_size)
    if recipe.model_ema:
        task.setup_ema()
    prepared: AcceleratedOptimizer
    task.trainable_module, prepared = accelerator.prepare(task.trainable_module, optimizer)
    where = Surroundings(gpu=False, mixed_precision=accelerator.mixed_precision)
    planned = step_memory(task, recipe, data_config["input_size"], recipe.batch_size, where)
    views = torch.randn(recipe.batch_size, recipe.dccd_views, *data_config["input_size"])
    batch = Batch(views, torch.arange(recipe.batch_size) % num_classes)

    def update() -> None:
        for _ in range(recipe.grad_accum_steps):
            training_step(task, batch, prepared, recipe, accelerator, lambda: True)
        task.update_ema(step=1)

    task.train()
    update()  # makes the optimizer's state
    return sum(planned.values()), _resident(task, prepared, batch) + _most_allocated(update)


def _resident(task: TrainingTask, optimizer: AcceleratedOptimizer, batch: Batch) -> int:
    """Bytes of what lives from update to update."""
    state = [value for value in tree_iter(list(optimizer.optimizer.state.values())) if isinstance(value, Tensor)]
    tensors = [*task.parameters(), *task.buffers(), *state, batch.views, batch.target]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def _most_allocated(update) -> int:  # type: ignore[no-untyped-def]
    """The most bytes that an update has allocated at any time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        update()
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def main() -> None:
    """Print a table of all pairs, and end with 1 when one is further off than --within."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="pairs whose name has this text")
    parser.add_argument("--images", type=int, default=4, help="batch size")
    parser.add_argument("--within", type=float, default=0.10, help="largest difference allowed")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| step | planned, MiB | measured, MiB | planned / measured |\n|---|---|---|---|")
    worst = 0.0
    for name, flags in PAIRS.items():
        if args.only in name:
            method = [] if "--kd-distill-type" in flags else ["--kd-distill-type", "dccd"]
            AcceleratorState._reset_state(reset_partial_state=True)  # each pair has a precision of its own
            planned, measured = compare([*flags.split(), *method, "-b", str(args.images)])
            worst = max(worst, abs(planned / measured - 1))
            print(f"| {name} | {planned / 2**20:.1f} | {measured / 2**20:.1f} | {planned / measured:.3f} |", flush=True)
    sys.exit(worst > args.within)


if __name__ == "__main__":
    main()
