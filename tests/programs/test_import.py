"""A network of the user's own, registered in a file that no package knows: trained, resumed, validated, reported."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import run_program
from tests.programs.test_programs import assert_one_line

MY_MODELS = """
import os
from own_blocks import Net
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

with open(os.environ["SEEN"], "a") as stream:
    print(os.getpid(), file=stream)

default_cfgs = generate_default_cfgs({"my_net": {"input_size": (3, 32, 32), "classifier": "fc", "first_conv": "conv"}})

@register_model
def my_net(pretrained=False, **kwargs):
    return build_model_with_cfg(Net, "my_net", pretrained, **kwargs)
"""
OWN_BLOCKS = """
import torch

class Net(torch.nn.Module):
    def __init__(self, num_classes=1000, in_chans=3, drop_rate=0.0):
        super().__init__()
        self.num_classes, self.num_features = num_classes, 8
        self.conv = torch.nn.Conv2d(in_chans, 8, 5, stride=4)
        self.fc = torch.nn.Linear(8, num_classes)

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory, parquet):
    """A user's folder with the code in it, and a run by the console command."""
    place = tmp_path_factory.mktemp("own")
    (place / "my_models.py").write_text(MY_MODELS)
    (place / "own_blocks.py").write_text(OWN_BLOCKS)
    (place / "words.txt").write_text(str(parquet))
    done = train(place, "--epochs", 2, "--experiment", "whole")
    assert done.returncode == 0, done.stderr
    return place


def run(place, *words):
    env = {"SEEN": str(place / "seen.txt")}
    return run_program(*words, program="-m dccd_timm", cwd=place, env=env)


def train(place, *words):
    data = (place / "words.txt").read_text()
    return run(
        place, "train", "--import", "my_models", "--model", "my_net", "--dataset", f"hfids/{data}", "--val-split", "test",
        "-b", 16, "-j", 1, "--sched", "none", "--lr", 0.05, "--warmup-epochs", 0, "--kd-distill-type", "none", *words,
    )  # fmt: skip


def test_it_trains_and_its_workers_import_it_and_its_card_says_what_timm_needs(place):
    folder = place / "output/train/whole"
    assert len(set((place / "seen.txt").read_text().split())) > 1  # the rank, and workers
    config = json.loads((folder / "best/config.json").read_text())
    assert (config["architecture"], config["registered_by"]) == ("my_net", "my_models")
    card = (folder / "README.md").read_text()
    assert "once its author's module `my_models`, which registers `my_net`, has been imported" in card
    assert re.search(r"^import my_models ", card, re.MULTILINE)
    assert not list(folder.rglob("*.py"))
    assert "redundancy" not in json.loads((folder / "report/report.json").read_text())  # it gives no features


def test_it_resumes_exactly(place):
    assert train(place, "--epochs", 1, "--experiment", "parts").returncode == 0
    done = run(place, "train", "--resume", "output/train/parts", "--epochs", 2)
    assert done.returncode == 0, done.stderr
    whole, parts = (load_file(place / f"output/train/{name}/last/model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_it_is_validated_with_its_module_and_without_it_one_line_says_so(place):
    data = ["--dataset", "hfids/" + (place / "words.txt").read_text(), "--split", "test", "-j", 0]
    done = run(place, "validate", "--import", "./my_models.py", "output/train/whole", *data)
    assert done.returncode == 0, done.stderr
    report = json.loads((place / "output/train/whole/report/report.json").read_text())
    assert json.loads(done.stdout.split("--result\n")[1])["top1"] == pytest.approx(report["student"]["top1"], abs=1e-4)
    assert_one_line(run(place, "validate", "output/train/whole", *data),
                    "timm has no model 'my_net': give --import my_models, that registers it")  # fmt: skip


def test_its_report_is_drawn_again_also_when_the_file_has_moved(place):
    (place / "code").mkdir()
    for name in ("my_models.py", "own_blocks.py"):
        (place / name).rename(place / "code" / name)
    assert_one_line(run(place, "report", "output/train/whole"), "--import my_models cannot be imported")
    done = run(place, "report", "output/train/whole", "--import", "code/my_models.py")
    assert done.returncode == 0, done.stderr
