"""--plan: what a start checks, and what the training would take; nothing is written."""

import json
import time

import pytest

from dccd_timm import ChannelContrastiveLoss
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from dccd_timm.run import memory
from dccd_timm.run import plan as module
from dccd_timm.run.plan import plan_training, print_plan


class Publisher:
    def __init__(self, fault=None):
        self.fault = fault

    def check(self):
        if self.fault:
            raise UserError(self.fault)


@pytest.fixture(autouse=True)
def short_measurement(monkeypatch, fresh_accelerator):
    measure = module.images_per_second
    monkeypatch.setattr(module, "images_per_second", lambda *given: measure(*given, seconds=0.1))


def recipe_of(small, *flags):
    return load_recipe([*map(str, small), "--plan", *map(str, flags)])


def test_it_has_the_training_s_numbers_and_writes_nothing(small, tmp_path, capsys):
    files = set(tmp_path.rglob("*"))
    recipe = recipe_of(small, "--plan-gpus", 3, "--plan-device", "A100 80GB", "--amp", "--model-ema", "-b", 8, "--json")
    began = time.process_time()  # others may use the cores too
    print_plan(recipe, Publisher())
    assert time.process_time() - began < 30
    data = json.loads(capsys.readouterr().out)
    assert (data["images"], data["classes"], data["updates_per_epoch"], data["epochs"]) == (48, 3, 2, 2)
    assert data["device"] == "A100 80GB" and data["ranks"] == 3 and data["precision"] == "float16"
    parts = data["memory"]
    assert parts["gradients"] < parts["weights"] <= parts["EMA"] and parts["teacher"] > 0
    # around a ring of three a rank sends 4 / 3 of the gradients and of the contrast's sums; BatchNorm's buffers once
    around = parts["gradients"] + 4 * ChannelContrastiveLoss().numbers_summed(24)
    assert data["network_bytes"] == int(4 / 3 * around) + parts["weights"] - parts["gradients"]
    full, half, third = data["times"]
    assert half["hours"] == pytest.approx(2 * full["hours"]) and third["share"] == 0.3
    assert full["update_seconds"] == pytest.approx(data["flops"] / 312e12)
    assert full["hours"] == pytest.approx(4 * full["update_seconds"] / 3600)
    loading = data["loading"]
    assert loading["needed"] == pytest.approx(8 / half["update_seconds"])
    assert loading["hours"] == pytest.approx(4 * 8 / loading["per_core"] / 3600)
    assert data["fit"]["fits"] and data["state_bytes"] > data["export_bytes"] / 2 and data["states"] == 2
    assert set(tmp_path.rglob("*")) == files


def test_a_step_that_is_too_large_names_a_batch_that_fits(small, monkeypatch):
    monkeypatch.setattr(module, "usable", lambda memory: 5 * 2**20)
    plan = plan_training(recipe_of(small), Publisher())
    assert not plan.fit.fits and plan.fit.batch_size * plan.fit.grad_accum_steps == 16
    assert 0 < plan.fit.batch_size <= plan.fit.largest_batch < 16
    assert f"--batch-size {plan.fit.batch_size} --grad-accum-steps {plan.fit.grad_accum_steps}" in plan.text()


@pytest.mark.parametrize("flags", [["--kd-teacher-probe", 5], ["--kd-teacher-head", "drop"]], ids=["probe", "headless"])
def test_a_teacher_without_a_head_of_its_own_is_planned_and_no_head_is_trained(flags, small, monkeypatch):
    monkeypatch.setattr(module, "images_per_second", lambda *given: 1.0)
    plan = plan_training(recipe_of(small, *flags), Publisher())
    assert plan.teacher.parameters > 30_000 and plan.memory["teacher"] > 0


@pytest.mark.parametrize(
    ("flags", "publisher", "line"),
    [
        (["--plan-gpus", 8], Publisher(), "one update takes 128 images"),
        (["--plan-device", "abacus"], Publisher(), "--plan-device abacus is not known"),
        ([], Publisher("no token"), "no token"),
        (["--num-classes", 5], Publisher(), "has 3 classes, the student 5"),
        (["--kd-model-name", "resnet-18"], Publisher(), "resnet-18"),
    ],
)
def test_what_would_end_a_start_ends_it(flags, publisher, line, small, tmp_path):
    with pytest.raises(UserError, match=line):
        plan_training(recipe_of(small, *flags), publisher)
    assert not (tmp_path / "out").exists()


def test_a_step_that_cannot_be_planned_leaves_the_rest(small, monkeypatch, caplog):
    def broken(*given):
        raise NotImplementedError("no fake kernel")

    monkeypatch.setattr(memory, "step_memory", broken)
    plan = plan_training(recipe_of(small), Publisher())
    assert plan.memory is None and plan.flops is None and plan.loading.per_core > 0 and plan.updates_per_epoch == 3
    assert "tensors without numbers fails (no fake kernel)" in caplog.text


def test_a_launcher_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="without a launcher, with --plan-gpus N"):
        plan_training(load_recipe(["--plan"]), Publisher())
