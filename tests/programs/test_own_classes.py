"""README's commands for classes of one's own and a teacher of 1,000 others, as they stand there, on small data."""

import json
import re
import shlex

import pytest
import timm
import torch
from timm.models import save_for_hf

from dccd_timm.report.schema import Report
from tests.conftest import ROOT, run_program

# enough for a teacher that is clearly better than chance
SHORT = ["--img-size", 48, "-b", 16, "-j", 0, "--opt", "sgd", "--lr", 0.05, "--epochs", 6, "--warmup-epochs", 0,
         "--scale", 0.8, 1, "--smoothing", 0]  # fmt: skip


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """Small networks with 1,000 classes, saved as pretrained ones are, by the names that README has."""
    found = {}
    for name, channels in (("resnet50", (16, 24, 32)), ("resnet18", (8, 16, 24))):
        torch.manual_seed(0)
        arguments = dict(layers=(1, 1, 1), channels=channels, stem_chs=8)
        model = timm.create_model("resnetv2_18", num_classes=1000, **arguments)
        folder = tmp_path_factory.mktemp(name)
        save_for_hf(model, str(folder), model_args=arguments, safe_serialization=True)
        found[name] = f"local-dir:{folder}"
    return found


def commands():
    block = re.search(r"<!-- test: own classes -->\n```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]


def test_a_teacher_of_other_classes_is_fine_tuned_and_distilled_from(stand_ins, folders, tmp_path):
    for command in commands():
        assert command[:2] == ["python", "train.py"]
        words = [stand_ins.get(word, str(folders) if word == "/data/flowers" else word) for word in command[2:]]
        done = run_program(*words, *SHORT, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    teacher, student = (Report.read(tmp_path / "output/train" / name) for name in ("teacher", "student"))
    assert (teacher.method, student.method, student.control.method) == ("none", "dccd", "logit")
    assert student.teacher.top1 == teacher.student.top1 and student.teacher.parameters_m > student.student.parameters_m
    assert teacher.student.start and student.student.start  # both from pretrained weights
    config = json.loads((tmp_path / "output/train/teacher/best/config.json").read_text())
    assert config["num_classes"] == 3 and config["label_names"] == ["circle", "cross", "stripes"]
