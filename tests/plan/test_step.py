"""A planned step against the same step of engine/step.py, whose peak torch's profiler measures."""

import pytest

from benchmarks.plan import compare
from dccd_timm import DCCDTask
from dccd_timm.models.cost import gmacs
from dccd_timm.plan.ledger import ACTIVATIONS
from dccd_timm.plan.step import (
    EMA,
    GRADIENTS,
    INPUTS,
    OPTIMIZER,
    TEACHER,
    WEIGHTS,
    Surroundings,
    step_flops,
    step_memory,
)
from dccd_timm.recipe import load_recipe
from tests.task.small import resnet

CNN = "--model resnet10t --img-size 64"
VIT = "--model vit_tiny_patch16_224 --model-kwargs depth=6 embed_dim=96 num_heads=3 --img-size 64"
TEACHER_OF = "--kd-model-name resnet10t --kd-teacher-img-size student --kd-distill-type dccd -b 8"


@pytest.mark.parametrize(
    "flags",
    [
        f"{CNN} --opt momentum --grad-accum-steps 2",
        f"{CNN} --opt adamw --model-ema --amp --amp-dtype bfloat16",
        f"{VIT} --opt adamw --clip-grad 1",
    ],
    ids=["CNN, accumulation", "CNN, EMA, bf16", "ViT, clipping"],
)
def test_the_peak_is_that_of_the_step(flags, fresh_accelerator):
    # convolutions on a CPU copy images and answer into a layout of their own, which matters in networks so small
    planned, measured = compare([*flags.split(), *TEACHER_OF.split()], num_classes=10)
    assert planned == pytest.approx(measured, rel=0.10)


def memory(*flags, where=None, batch_size=8):
    recipe = load_recipe(["--kd-model-name", "resnet10t", "--kd-distill-type", "dccd", *flags])
    task = DCCDTask(resnet(), resnet(1, channels=(16, 24, 32)), input_size=(3, 64, 64), verbose=False)
    if recipe.model_ema:
        task.setup_ema()
    size = sum(t.numel() * t.element_size() for t in task.trainable_module.parameters())
    return step_memory(task, recipe, (3, 64, 64), batch_size, where or Surroundings(gpu=False)), size, task


def test_the_parts_are_what_they_are_called():
    found, size, task = memory("--opt", "adamw", "--model-ema")
    buffers = sum(t.numel() * t.element_size() for t in task.trainable_module.buffers())
    assert found[WEIGHTS] == found[EMA] == size + buffers
    assert 2 * size <= found[OPTIMIZER] < 2.1 * size  # and a number of steps for each
    assert found[TEACHER] == sum(
        t.numel() * t.element_size() for t in (*task.teacher.parameters(), *task.teacher.buffers())
    )
    assert found[INPUTS] >= 2 * 8 * 2 * 3 * 64 * 64 * 4  # as they come, and folded
    assert memory("--opt", "momentum")[0][EMA] == 0


def test_ddp_and_accumulation_keep_all_gradients():
    _, size, _ = memory()
    assert memory(where=Surroundings(ranks=2))[0][GRADIENTS] == size
    assert memory("--grad-accum-steps", "4")[0][GRADIENTS] == size
    assert memory()[0][GRADIENTS] < size


def test_half_precision_halves_activations_but_for_what_gpus_keep_in_float32():
    places = (
        Surroundings(gpu=False),
        Surroundings(gpu=False, mixed_precision="bf16"),
        Surroundings(mixed_precision="bf16"),
    )
    full, half, gpu = (memory(where=where)[0] for where in places)
    assert half[ACTIVATIONS] <= gpu[ACTIVATIONS] < full[ACTIVATIONS]


def test_the_next_batch_takes_as_much_as_this_one():
    alone, two = (memory(where=Surroundings(next_batch=there))[0][INPUTS] for there in (False, True))
    assert two - alone == 8 * 2 * 3 * 64 * 64 * 4


def test_operations_are_three_forwards_of_the_student_and_one_of_the_teacher():
    task = DCCDTask(
        resnet(), resnet(1), input_size=(3, 64, 64), contrast_loss_weight=0.0, teacher_img_size="student", verbose=False
    )
    recipe = load_recipe(["--kd-model-name", "resnet10t", "--kd-distill-type", "dccd"])
    flops = [step_flops(task, recipe, (3, 64, 64), size, Surroundings()) for size in (4, 8)]
    assert flops[1] == 2 * flops[0]
    forward, stem = gmacs(resnet(), (3, 64, 64)), 3 * 8 * 7 * 7 * 32 * 32 / 1e9
    # 4 images of 2 views; the stem's images need no gradient
    assert flops[0] / 2e9 / 8 == pytest.approx(4 * forward - stem, rel=1e-3)
