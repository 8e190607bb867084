"""Launches that would train something else than was asked are refused in one line, before anything is opened."""

import pytest
from torch._dynamo import OptimizedModule

from dccd_timm.data.sources import open_split
from dccd_timm.errors import UserError
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.recipe import load_recipe
from dccd_timm.run.pieces import Splits, build_training


@pytest.mark.parametrize(
    ("env", "flags", "message"),
    [
        # what accelerate launch --cpu --num_processes 2 sets
        ({"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}, [], "starts one process.*torchrun"),
        ({"ACCELERATE_USE_FSDP": "true"}, [], "FSDP splits the student.*--multi_gpu"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, [], "DeepSpeed splits the student.*--multi_gpu"),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, [], "give --grad-accum-steps 4"),
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, [], "float16 needs a GPU"),
        ({}, ["--amp"], "float16 needs a GPU"),
        ({}, ["--kd-model-name", "resnet18", "--kd-teacher-dtype", "float16"], "needs a GPU"),
        ({}, ["--log-with", "wandb"], "pip install wandb"),
    ],
)
def test_it_is_refused(env, flags, message, monkeypatch):
    for name in ("WORLD_SIZE", "MASTER_ADDR", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        start_accelerator(load_recipe(["--device", "cpu", *flags]))


@pytest.mark.parametrize("method", ["dccd", "logit"])
def test_a_launcher_that_compiles_the_student_compiles_its_teacher(method, small, monkeypatch, fresh_accelerator):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    recipe = load_recipe([*map(str, small), "--kd-distill-type", method, "--device", "cpu"])
    splits = Splits(open_split(recipe, recipe.train_split, True, None), None)
    training = build_training(recipe, splits, start_accelerator(recipe), 0, None)
    training.loader.close()
    teacher = training.task.teacher  # timm's own compiles the model in it
    assert teacher._compiled_call_impl or isinstance(teacher.model, OptimizedModule)
