"""Mixed precision on the CPU: every method leaves a student that timm alone loads and that answers as its row says."""

import pytest
import timm
import torch
from torch.nn import functional as F

from dccd_timm.models.student import build_student
from dccd_timm.recipe import load_recipe
from dccd_timm.report.schema import Report
from dccd_timm.report.summary import read_summary
from dccd_timm.run.export import export
from dccd_timm.run.train import train
from dccd_timm.task.contract import plain_copy
from tests.conftest import picture, write_folders
from tests.run.test_train import Recorder

# Whole trainings: not part of the unit ring.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_pictures")]

DISTILLED = "--model deit_tiny_distilled_patch16_224 --model-kwargs depth=1 embed_dim=48 num_heads=3"


WEAK = "--allow-weak-teacher"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("images"), per_class=(4, 3))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A teacher of three classes; what it knows does not matter here."""
    folder = tmp_path_factory.mktemp("teacher") / "teacher"
    model, config = build_student(load_recipe(["--model", "test_resnet", "--img-size", "32"]), 3)
    export(model, folder, config, None, {})
    return folder


def run(images, output, *more):
    flags = ["--data-dir", images, "--model", "test_resnet", "--img-size", 32, "-b", 6, "-j", 0, "--epochs", 1]
    flags += ["--lr", 0.05, "--warmup-epochs", 0, "--device", "cpu", "--output", output, "--experiment", "run"]
    return train(load_recipe([str(word) for word in (*flags, *more)]), Recorder())


def loss_of(folder):
    """The loss of an exported student on the validation split, by plain timm under torch's own autocast."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    batch = torch.stack([transform(picture(k % 3, k)) for k in range(9)])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        logits = model(batch)
    return F.cross_entropy(logits.float(), torch.arange(9) % 3).item()


@pytest.mark.parametrize("ema", [[], ["--model-ema", "--model-ema-decay", 0.5]], ids=["plain", "ema"])
@pytest.mark.parametrize(
    "method", ["none", "logit", "feature", "token", "dccd", "fitnet", "at", "sp", "rkd", "wkd", "ofa"]
)
def test_bfloat16_on_the_cpu(method, ema, images, teacher, tmp_path, fresh_accelerator):
    more = [] if method == "none" else ["--kd-model-name", f"local-dir:{teacher}", "--kd-distill-type", method, WEAK]
    more += DISTILLED.split() if method == "token" else []
    report = run(images, tmp_path, "--amp", "--amp-dtype", "bfloat16", *more, *ema)
    assert report.hardware.precision == "amp bfloat16" and report == Report.read(tmp_path / "run")
    (row,) = read_summary(tmp_path / "run" / "summary.csv")
    assert float(row["eval_loss"]) == pytest.approx(loss_of(tmp_path / "run" / "last"), rel=1e-4)
    assert report.student.loss == pytest.approx(loss_of(tmp_path / "run" / "best"), rel=1e-4)


def test_the_launchers_bfloat16_with_a_control(images, teacher, tmp_path, fresh_accelerator, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    distil = ["--kd-model-name", f"local-dir:{teacher}", "--kd-distill-type", "logit", "--dccd-control", "none", WEAK]
    report = run(images, tmp_path, *distil)
    assert report.hardware.precision == "amp bfloat16"
    for name, network in (("run", report.student), ("run/control", report.control)):
        assert network.loss == pytest.approx(loss_of(tmp_path / name / "best"), rel=1e-4)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_plain_copy_computes_in_full_precision_and_leaves_the_network_alone(compiled, fresh_accelerator):
    from accelerate import Accelerator

    model = timm.create_model("test_resnet", num_classes=3).eval()
    image = torch.randn(1, 3, 32, 32)
    wanted = model(image)
    trained = torch.compile(model, backend="eager") if compiled else model
    prepared = Accelerator(cpu=True, mixed_precision="bf16").prepare(trained)
    mixed = prepared(image)
    plain = plain_copy(prepared)
    assert torch.equal(plain(image), wanted) and not torch.equal(mixed, wanted)
    assert torch.equal(prepared(image), mixed) and type(plain) is type(model)
