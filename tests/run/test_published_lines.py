"""Published lines of timm's train.py, flag by flag: each trains an epoch, at the rates of timm's own scheduler.

What is replaced is the network, the data, and what makes an epoch long.
"""

import argparse
import itertools
import math

import pytest
import timm
import torch
from timm.scheduler import create_scheduler
from torch.optim.optimizer import register_optimizer_step_pre_hook

from dccd_timm.engine.optim import build_optimizer, build_schedule
from dccd_timm.recipe import load_recipe
from dccd_timm.report.summary import read_summary
from dccd_timm.run import student
from dccd_timm.run.train import train
from tests.conftest import write_folders
from tests.run.test_train import Recorder

# Whole trainings: not part of the unit ring.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_pictures")]

# Where they are from: hfdocs/source/training_script.mdx of timm; table 2 of "ResNet strikes back" (arXiv 2110.00476) and
# the defaults of DeiT's main.py (arXiv 2012.12877), both in the words of timm's train.py.
LINES = {
    "timm-seresnet34": "--model seresnet34 --sched cosine --epochs 150 --warmup-epochs 5 --lr 0.4 --reprob 0.5"
    " --remode pixel --batch-size 256 --amp -j 4",
    "timm-efficientnet_b2": "--model efficientnet_b2 -b 128 --sched step --epochs 450 --decay-epochs 2.4"
    " --decay-rate .97 --opt rmsproptf --opt-eps .001 -j 8 --warmup-lr 1e-6 --weight-decay 1e-5 --drop 0.3"
    " --drop-path 0.2 --model-ema --model-ema-decay 0.9999 --aa rand-m9-mstd0.5 --remode pixel --reprob 0.2 --amp --lr .016",
    "timm-mixnet_xl": "--model mixnet_xl -b 128 --sched step --epochs 450 --decay-epochs 2.4 --decay-rate .969"
    " --opt rmsproptf --opt-eps .001 -j 8 --warmup-lr 1e-6 --weight-decay 1e-5 --drop 0.3 --drop-path 0.2 --model-ema"
    " --model-ema-decay 0.9999 --aa rand-m9-mstd0.5 --remode pixel --reprob 0.3 --amp --lr .016 --dist-bn reduce",
    "timm-seresnext26t": "--model seresnext26t_32x4d --lr 0.1 --warmup-epochs 5 --epochs 160 --weight-decay 1e-4"
    " --sched cosine --reprob 0.4 --remode pixel -b 112",
    "timm-efficientnet_b0": "--model efficientnet_b0 -b 384 --sched step --epochs 450 --decay-epochs 2.4"
    " --decay-rate .97 --opt rmsproptf --opt-eps .001 -j 8 --warmup-lr 1e-6 --weight-decay 1e-5 --drop 0.2"
    " --drop-path 0.2 --model-ema --model-ema-decay 0.9999 --aa rand-m9-mstd0.5 --remode pixel --reprob 0.2 --amp --lr .048",
    "timm-efficientnet_es": "--model efficientnet_es -b 128 --sched step --epochs 450 --decay-epochs 2.4"
    " --decay-rate .97 --opt rmsproptf --opt-eps .001 -j 8 --warmup-lr 1e-6 --weight-decay 1e-5 --drop 0.2"
    " --drop-path 0.2 --aa rand-m9-mstd0.5 --remode pixel --reprob 0.2 --amp --lr .064",
    "timm-mobilenetv3": "--model mobilenetv3_large_100 -b 512 --sched step --epochs 600 --decay-epochs 2.4"
    " --decay-rate .973 --opt rmsproptf --opt-eps .001 -j 7 --warmup-lr 1e-6 --weight-decay 1e-5 --drop 0.2"
    " --drop-path 0.2 --model-ema --model-ema-decay 0.9999 --aa rand-m9-mstd0.5 --remode pixel --reprob 0.2 --amp"
    " --lr .064 --lr-noise 0.42 0.9",
    "timm-resnext50": "--model resnext50_32x4d --lr 0.6 --warmup-epochs 5 --epochs 240 --weight-decay 1e-4"
    " --sched cosine --reprob 0.4 --recount 3 --remode pixel --aa rand-m7-mstd0.5-inc1 -b 192 -j 6 --amp --dist-bn reduce",
    "rsb-a1": "--model resnet50 -b 512 --opt lamb --lr 5e-3 --weight-decay .01 --sched cosine --epochs 600"
    " --warmup-epochs 5 --warmup-lr 1e-4 --min-lr 1e-6 --smoothing 0.1 --drop-path 0.05 --aug-repeats 3"
    " --aa rand-m7-mstd0.5-inc1 --mixup 0.2 --cutmix 1.0 --bce-loss --bce-target-thresh 0.2 --crop-pct 0.95 --amp",
    "rsb-a2": "--model resnet50 -b 512 --opt lamb --lr 5e-3 --weight-decay .02 --sched cosine --epochs 300"
    " --warmup-epochs 5 --warmup-lr 1e-4 --min-lr 1e-6 --smoothing 0.0 --drop-path 0.05 --aug-repeats 3"
    " --aa rand-m7-mstd0.5-inc1 --mixup 0.1 --cutmix 1.0 --bce-loss --bce-target-thresh 0.2 --crop-pct 0.95 --amp"
    " --channels-last --train-interpolation bicubic",
    "rsb-a3": "--model resnet50 -b 512 --opt lamb --lr 8e-3 --weight-decay .02 --sched cosine --epochs 100"
    " --warmup-epochs 5 --warmup-lr 1e-4 --min-lr 1e-6 --smoothing 0.0 --aug-repeats 0 --aa rand-m6-mstd0.5-inc1"
    " --mixup 0.1 --cutmix 1.0 --bce-loss --bce-target-thresh 0.2 --crop-pct 0.95 --img-size 160 --amp",
    "deit-s": "--model deit_small_patch16_224 -b 256 --opt adamw --opt-eps 1e-8 --lr 1e-3 --weight-decay 0.05"
    " --sched cosine --epochs 300 --warmup-epochs 5 --warmup-lr 1e-6 --min-lr 1e-5 --cooldown-epochs 10 --drop-path 0.1"
    " --color-jitter 0.4 --aa rand-m9-mstd0.5-inc1 --train-interpolation bicubic --reprob 0.25 --remode pixel"
    " --recount 1 --mixup 0.8 --cutmix 1.0 --aug-repeats 3 --model-ema --model-ema-decay 0.99996 --amp",
}

# timm's own small networks, each of the family that the line trains
SMALL = {"deit": "test_vit", "efficientnet": "test_efficientnet", "mixnet": "test_efficientnet",
         "mobilenet": "test_efficientnet"}  # fmt: skip


def small(line):
    """The line with a small network in place of its own."""
    model = line.split()[1]
    return [next((own for family, own in SMALL.items() if model.startswith(family)), "test_resnet"), *line.split()[2:]]


def timms_rates(line, updates_per_epoch):
    """The rate of every update, by timm's own scheduler from the line's words and the defaults of its train.py."""
    words = argparse.ArgumentParser()
    for name, kind, default in (
        ("sched", str, "cosine"), ("epochs", int, 300), ("decay_epochs", float, 90), ("decay_rate", float, 0.1),
        ("warmup_epochs", int, 5), ("warmup_lr", float, 1e-5), ("min_lr", float, 0.0), ("cooldown_epochs", int, 0),
        ("lr", float, None), ("seed", int, 42),
    ):  # fmt: skip
        words.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default)
    words.add_argument("--lr-noise", type=float, nargs="+")
    given, _ = words.parse_known_args(line.split(), argparse.Namespace(lr_cycle_decay=0.5))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=given.lr)
    scheduler, epochs = create_scheduler(given, optimizer, updates_per_epoch)
    for epoch in range(epochs):
        for update in range(updates_per_epoch * epoch, updates_per_epoch * (epoch + 1)):
            yield optimizer.param_groups[0]["lr"]
            scheduler.step_update(update + 1)
        scheduler.step(epoch + 1, None)


def own_rates(recipe, updates_per_epoch):
    """The same by ours."""
    task = timm.task.ClassificationTask(timm.create_model(recipe.model), device=torch.device("cpu"), verbose=False)
    optimizer = build_optimizer(task, recipe, recipe.batch_size)
    schedule = build_schedule(optimizer, recipe, updates_per_epoch)
    for epoch in range(schedule.num_epochs):
        for update in range(updates_per_epoch * epoch, updates_per_epoch * (epoch + 1)):
            yield optimizer.param_groups[0]["lr"]
            schedule.end_update(update + 1)
        schedule.end_epoch(epoch, None)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("images"), per_class=(4, 2))


def test_there_are_twelve():
    assert len(LINES) == 12


@pytest.mark.parametrize("name", LINES)
def test_every_rate_of_the_whole_training_is_timms(name):
    recipe = load_recipe(["--data-dir", "/imagenet", "--model", *small(LINES[name])])
    rates = list(own_rates(recipe, 3))
    assert rates == list(timms_rates(LINES[name], 3))
    assert len(rates) >= 300 and max(rates) > min(rates) and max(rates) == pytest.approx(recipe.lr, rel=0.7)


@pytest.mark.parametrize("name", LINES)
def test_it_trains_an_epoch(name, images, tmp_path, monkeypatch, fresh_accelerator):
    """The first epoch of the published training: its schedule is the whole one's."""
    epochs = student.train_epochs
    monkeypatch.setattr(student, "train_epochs", lambda *given: itertools.islice(epochs(*given), 1))
    used = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *given: used.append(optimizer.param_groups[0]["lr"]))
    short = ["--data-dir", images, "--img-size", 32, "-b", 4, "-j", 0, "--device", "cpu", "--output", tmp_path,
             "--experiment", "run"]  # fmt: skip
    recipe = load_recipe([str(word) for word in ("--model", *small(LINES[name]), *short)])
    try:
        report = train(recipe, Recorder())
    finally:
        hook.remove()
    (row,) = read_summary(tmp_path / "run" / "summary.csv")
    assert math.isfinite(float(row["train_loss"])) and math.isfinite(float(row["eval_loss"]))
    assert used == list(itertools.islice(timms_rates(LINES[name], 3), 3)) and len(used) == 3
    assert report.hardware.precision == ("amp bfloat16" if "--amp" in LINES[name] else "float32")
    assert recipe.aug_repeats == (3 if "--aug-repeats 3" in LINES[name] else 0)
    assert timm.create_model(f"local-dir:{tmp_path / 'run' / 'last'}", pretrained=True).num_classes == 3
