"""A run that keeps its teacher's answers, one that reads them and one without end with bitwise the same student."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image

from dccd_timm.engine import loop
from dccd_timm.errors import UserError
from dccd_timm.report.schema import Report
from dccd_timm.run import cache, load_teacher
from tests.conftest import ROOT, encoded

# Whole trainings: not part of the unit ring.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_pictures", "fresh_accelerator")]

# as readable_size writes it
SIZE = r"[\d.]+ (?:bytes|[MG]iB)"
VARIED = ["--dccd-views", 3, "--dccd-view-aug", "near", "--reprob", 0.5, "--grad-accum-steps", 2]


@pytest.fixture
def no_teacher(monkeypatch):
    """From its call on, a teacher that is loaded ends the test."""

    def forbid():
        monkeypatch.setattr(load_teacher, "load_teacher", lambda *_, **__: pytest.fail("the teacher was loaded"))

    return forbid


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("folder", VARIED),
        ("hfids", []),
        ("hfds", ["--kd-distill-type", "logit", "--dccd-views", 1, "--epochs", 2, "--dccd-view-period", 1]),
    ],
    ids=["folder, near views, accumulation", "hfids", "hfds, timm's KD"],
)
def test_filled_read_and_without_it_is_bitwise_the_same_student(kind, flags, run, no_teacher, capsys):
    plain = run("plain", *flags, cache=False, kind=kind)
    filled = run("fill", *flags, kind=kind)
    assert same(plain, filled)
    capsys.readouterr()
    no_teacher()
    assert same(plain, run("read", *flags, kind=kind))
    images = 48 if kind != "hfds" else 24
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  answers"))
    assert re.search(
        rf"/answers: views of {images} of {images} images are answered, {SIZE} of {SIZE}, {SIZE} left on", line
    )
    # the report knows the teacher that was not loaded
    reports = [Report.read(run.folder / name) for name in ("plain", "fill", "read")]
    for name in ("teacher", "redundancy", "classes"):
        first, *others = (getattr(report, name) for report in reports)
        assert first is not None and others == [first] * 2
    assert reports[0].teacher.top1 is not None


def test_killed_while_it_fills_and_resumed(run, monkeypatch):
    plain = run("plain", *VARIED, cache=False)

    class Killed(BaseException):
        pass

    step, done = loop.training_step, []

    def killed(*given):
        done.append(1)
        if len(done) == 7:  # in the middle of the second epoch's accumulation: half the answers are written
            raise Killed
        return step(*given)

    monkeypatch.setattr(loop, "training_step", killed)
    with pytest.raises(Killed):
        run("cut", *VARIED)
    monkeypatch.setattr(loop, "training_step", step)
    assert same(plain, run("cut", *VARIED, "--resume", run.folder / "cut"))


def test_a_shorter_run_is_read_by_a_longer_one_that_loads_the_teacher_in_time(run, caplog):
    """Another number of images in a batch, too; answers are then those of other batches, equal but for rounding."""
    plain = run("plain", cache=False)
    run("short", "--epochs", 1)
    found = run("long")
    assert all(torch.allclose(plain[name], found[name], atol=1e-5) for name in plain)


def test_answers_of_something_else_are_refused(run, inputs, tmp_path, monkeypatch):
    run("fill", "--epochs", 1)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "answers").iterdir()}
    shutil.copytree(inputs / "teacher", tmp_path / "other")
    weights = torch.load(tmp_path / "other" / "pytorch_model.bin", weights_only=True)
    weights[next(name for name in weights if name.endswith(".weight"))] *= 1.01
    torch.save(weights, tmp_path / "other" / "pytorch_model.bin")
    for flags, line in [
        (["--scale", 0.5, 1], "differs in views scale 0.08 1 -> 0.5 1:"),
        (["--seed", 1], "differs in views seed 42 -> 1:"),
        (["--kd-cache-logits", "float16"], "differs in answers logits float32 -> float16"),
        (["--kd-distill-type", "logit", "--dccd-views", 2], "teacher folded True -> False, answers stages 2 -> none"),
        (["--kd-model-name", f"local-dir:{tmp_path / 'other'}"], "differs in teacher weights"),
        (["--kd-teacher-img-size", 64], "teacher input 3 48 48 -> 3 64 64"),
        (["--amp", "--amp-dtype", "bfloat16"], "teacher mixed precision no -> bf16"),
        (["--kd-cache-logits", 3], "the teacher has 3 classes; give fewer, or float16"),
    ]:
        with pytest.raises(UserError, match=re.escape(line)):
            run("refused", "--epochs", 1, *flags)
        assert not (tmp_path / "refused").exists(), flags
    (inputs / "folder" / "train" / "cross" / "more.png").write_bytes(b"one more")
    try:
        with pytest.raises(UserError, match="data images 24 -> 25, data fingerprint"):
            run("refused", "--epochs", 1)
    finally:
        (inputs / "folder" / "train" / "cross" / "more.png").unlink()
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "answers").iterdir()}


def test_an_image_that_was_replaced_is_noticed(run, inputs):
    run("fill", "--epochs", 1)
    path = inputs / "folder" / "train" / "cross" / "1.png"
    old = path.read_bytes()
    new = encoded(Image.open(path).rotate(90).point(lambda value: 255 - value))
    assert len(new) <= len(old)
    path.write_bytes(new + bytes(len(old) - len(new)))
    try:
        with pytest.raises(UserError, match="1 images of a batch are not those that the answers in .* belong to"):
            run("read", "--epochs", 1)
    finally:
        path.write_bytes(old)


def test_pooled_maps_and_highest_logits_are_small(run):
    run("fill", "--epochs", 1, "--kd-cache-logits", 2, "--kd-cache-map", "pooled")
    belongs = json.loads((run.folder / "answers" / "answers.json").read_text())["belongs"]["answers"]
    assert belongs["maps"] == [[belongs["maps"][0][0], 1, 1]] and belongs["temperature"] == 4.0
    assert same(*(run(name, "--epochs", 1, "--kd-cache-logits", 2, "--kd-cache-map", "pooled") for name in ("a", "b")))


def test_one_run_writes_and_another_reads(run, caplog, monkeypatch):
    """Both within this process: the lock of the first is held by a program of its own."""
    script = (
        "import sys, pathlib, time; from dccd_timm.run.cache import lock_folder; folder = pathlib.Path(sys.argv[1]);"
        "folder.mkdir(parents=True); lock = lock_folder(folder); print('locked', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(run.folder / "answers")], stdout=subprocess.PIPE, cwd=ROOT
    )
    try:
        assert holder.stdout.readline() == b"locked\n"
        run("second", "--epochs", 1)
    finally:
        holder.kill()
        holder.wait()
    assert "another run writes answers into it, so this one reads what is there and writes none" in caplog.text
    assert [path.name for path in (run.folder / "answers").iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_written_is_read(run, caplog, monkeypatch):
    expected = run("fill", "--epochs", 1)

    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache, "lock_folder", refuse)
    assert same(expected, run("read", "--epochs", 1)) and "Permission denied" not in caplog.text
    run("more", "--epochs", 2)
    assert caplog.text.count("Permission denied, so this one reads what is there and writes none") == 1
    with pytest.raises(UserError, match=r"--kd-cache \S+ cannot be written: Permission denied"):
        run("new", "--epochs", 1, "--kd-cache", run.folder / "others")


def test_a_control_keeps_answers_of_its_own(run):
    run("both", "--epochs", 1, "--dccd-control", "logit")
    answers = run.folder / "answers"
    assert list(answers.glob("answers-*")) and list((answers / "control-logit").glob("answers-*"))
