"""What another job, MPI or accelerate's configuration left in the environment ends in one line, or is overruled in one."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from dccd_timm.errors import UserError
from dccd_timm.launch import environment
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.launch.environment import check_accelerate, check_ranks
from dccd_timm.recipe import load_recipe

OURS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in [*OURS, *(name for name in os.environ if name.startswith("ACCELERATE_"))]:
        monkeypatch.delenv(name, raising=False)


def set_all(monkeypatch, text):
    for pair in text.split():
        monkeypatch.setenv(*pair.split("="))


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ("WORLD_SIZE=2", "WORLD_SIZE=2 but no RANK, MASTER_ADDR, MASTER_PORT"),
        ("RANK=1", "RANK=1 but no WORLD_SIZE"),
        ("LOCAL_RANK=0", "LOCAL_RANK=0 but no WORLD_SIZE"),
        ("WORLD_SIZE=2 RANK=2 MASTER_ADDR=a MASTER_PORT=1", "ranks count from 0"),
        ("WORLD_SIZE=two", "WORLD_SIZE=two in the environment is not a number"),
        ("OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_SIZE=2 in the environment is MPI's.*torchrun"),
        ("PMI_SIZE=4 OMPI_COMM_WORLD_RANK=1", "PMI_SIZE=4"),
    ],
)
def test_what_is_half_set_is_named(variables, message, monkeypatch):
    set_all(monkeypatch, variables)
    with pytest.raises(UserError, match=message):
        check_ranks()


@pytest.mark.parametrize(
    ("variables", "world"),
    [
        ("", 1),
        ("WORLD_SIZE=1", 1),
        ("RANK=0", 1),
        ("OMPI_COMM_WORLD_SIZE=1", 1),
        ("WORLD_SIZE=1 RANK=0 LOCAL_RANK=0 MASTER_ADDR=a MASTER_PORT=1", 1),
        ("WORLD_SIZE=3 RANK=2 LOCAL_RANK=0 MASTER_ADDR=a MASTER_PORT=1 OMPI_COMM_WORLD_SIZE=3", 3),
    ],
)
def test_launchers_and_what_is_harmless_pass(variables, world, monkeypatch):
    set_all(monkeypatch, variables)
    assert check_ranks() == world


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ("ACCELERATE_MIXED_PRECISION=fp8", "ACCELERATE_MIXED_PRECISION=fp8 is not supported: use no, bf16, fp16"),
        ("ACCELERATE_DYNAMO_BACKEND=quick", "ACCELERATE_DYNAMO_BACKEND=quick is not supported"),
        ("ACCELERATE_USE_MEGATRON_LM=true", "Megatron-LM splits the student"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG=true", "splits the student"),
        ("ACCELERATE_USE_CPU=maybe", "neither true nor false"),
        ("ACCELERATE_TORCH_DEVICE=meta", "contradicts --device cpu"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS=3", "give --grad-accum-steps 3"),
    ],
)
def test_what_this_program_would_not_do_is_refused(variables, message, monkeypatch):
    set_all(monkeypatch, variables)
    with pytest.raises(UserError, match=message):
        check_accelerate(load_recipe(["--device", "cpu", "--grad-accum-steps", "2"]))


def test_the_recipe_overrules_the_environment_and_says_so(fresh_accelerator, monkeypatch, caplog):
    set_all(monkeypatch, "ACCELERATE_GRADIENT_ACCUMULATION_STEPS=1 ACCELERATE_MIXED_PRECISION=fp16")
    set_all(monkeypatch, "ACCELERATE_DYNAMO_BACKEND=INDUCTOR ACCELERATE_GRADIENT_CLIPPING=1.0")
    flags = ["--grad-accum-steps", "2", "--amp", "--amp-dtype", "bfloat16", "--torchcompile", "eager"]
    accelerator = start_accelerator(load_recipe(["--device", "cpu", *flags]))
    assert accelerator.gradient_accumulation_steps == 2 and accelerator.mixed_precision == "bf16"
    assert accelerator.state.dynamo_plugin.backend.value == "NO"
    assert [record.message.split(" in the environment is not used: ")[1] for record in caplog.records] == [
        "--amp --amp-dtype bfloat16 is", "--torchcompile eager is", "--grad-accum-steps 2 is", "--clip-grad (none) is",
    ]  # fmt: skip


def test_without_a_flag_the_environment_holds(fresh_accelerator, monkeypatch, caplog):
    set_all(monkeypatch, "ACCELERATE_MIXED_PRECISION=bf16 ACCELERATE_USE_CPU=yes ACCELERATE_DYNAMO_BACKEND=EAGER")
    accelerator = start_accelerator(load_recipe([]))
    assert accelerator.mixed_precision == "bf16" and accelerator.device.type == "cpu" and not caplog.records
    assert accelerator.state.dynamo_plugin.backend.value == "EAGER"


WAITING = """
from dccd_timm.launch import environment
environment._WAIT = 0.5
from dccd_timm.launch import environment
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.recipe import load_recipe
start_accelerator(load_recipe(["--device", "cpu"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("local", ["0", "1"])
def test_a_rank_that_waits_alone_says_so_whatever_its_number_on_the_machine(local, monkeypatch, caplog):
    """Another job may have left LOCAL_RANK too; in a group the first rank of each machine says it, and the others late."""
    set_all(monkeypatch, f"WORLD_SIZE=2 RANK=1 LOCAL_RANK={local}")
    monkeypatch.setattr(environment, "_WAIT", 0.1)
    with environment.waiting_for_ranks(2):
        time.sleep(0.2)
        assert bool(caplog.messages) is (local == "0")
        time.sleep(0.2)
    assert len(caplog.messages) == 1 and "rank 1 waits for rank 0 and the others" in caplog.text


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_waits_says_for_whom_and_ctrl_c_ends_it(rank):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    values = {"WORLD_SIZE": 2, "RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], stderr=subprocess.PIPE, text=True,
        env={**os.environ, **{name: str(value) for name, value in values.items()}},
    )  # fmt: skip
    line = next(line for line in process.stderr if " waits for " in line)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT
    assert f"rank {rank} waits for {'rank 0' if rank else 'the other 1 of 2'}" in line
    assert f"WORLD_SIZE=2, RANK={rank}, MASTER_ADDR=127.0.0.1, MASTER_PORT={port} in the environment" in line
