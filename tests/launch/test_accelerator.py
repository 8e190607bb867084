"""Launches that would train something else than was asked for are refused in one line, before anything is opened."""

import pytest

from dccd_timm.errors import UserError
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.recipe import load_recipe


@pytest.mark.parametrize(
    ("env", "flags", "message"),
    [
        # what accelerate launch --cpu --num_processes 2 sets
        ({"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}, [], "starts one process.*torchrun"),
        ({"ACCELERATE_USE_FSDP": "true"}, [], "FSDP splits the student.*--multi_gpu"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, [], "DeepSpeed splits the student.*--multi_gpu"),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, [], "give --grad-accum-steps 4"),
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, [], "float16 needs a GPU"),
        ({}, ["--kd-model-name", "resnet18", "--kd-teacher-dtype", "float16"], "needs a GPU"),
        ({}, ["--log-with", "wandb"], "pip install wandb"),
        ({}, ["--torchcompile", "inductr"], "--torchcompile inductr is no compiler of torch's: it has .*inductor"),
    ],
)
def test_it_is_refused(env, flags, message, monkeypatch):
    for name in ("WORLD_SIZE", "MASTER_ADDR", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        start_accelerator(load_recipe(["--device", "cpu", *flags]))


@pytest.mark.parametrize("dtype", [[], ["--amp-dtype", "float16"]])
def test_mixed_precision_on_a_cpu_is_bfloat16_and_one_line_says_so(dtype, fresh_accelerator, monkeypatch, caplog):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    accelerator = start_accelerator(load_recipe(["--device", "cpu", "--amp", *dtype]))
    assert accelerator.mixed_precision == "bf16"
    assert [r.message for r in caplog.records] == ["--amp takes bfloat16 on this CPU: float16 needs a GPU"]


def test_settings_reach_accelerate(fresh_accelerator, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    flags = ["--device", "cpu", "--amp", "--amp-dtype", "bfloat16", "--grad-accum-steps", "3"]
    accelerator = start_accelerator(load_recipe(flags))
    assert accelerator.device.type == "cpu" and accelerator.num_processes == 1
    assert accelerator.mixed_precision == "bf16" and accelerator.gradient_accumulation_steps == 3


def test_a_device_module_that_does_not_exist_is_named(fresh_accelerator):
    with pytest.raises(UserError, match="--import no_such_plugin cannot be imported"):
        start_accelerator(load_recipe(["--device", "cpu", "--device-modules", "no_such_plugin"]))
