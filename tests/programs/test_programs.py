"""The programs as a user types them: real processes, real data, and every mistake in one line."""

import csv
import json
import subprocess
import sys

import pytest
import yaml

from tests.conftest import run_program, write_parquet


def rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def assert_one_line(done, *words):
    """A user's mistake: code 2, one error line with these words, no traceback, nothing started."""
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert lines[-1].startswith("error: ") and sum(line.startswith("error: ") for line in lines) == 1
    for word in words:
        assert word in lines[-1], lines[-1]


@pytest.fixture(scope="module")
def finished(parquet, teacher, tmp_path_factory):
    """A distilled student with its control."""
    out = tmp_path_factory.mktemp("finished")
    done = run_program(
        "--dataset", f"hfids/{parquet}", "--val-split", "test", "--model", "resnetv2_18", "--model-kwargs",
        "layers=(1,1,1)", "channels=(8,16,24)", "stem_chs=8", "--img-size", 48, "-b", 16, "-j", 1, "--epochs", 3,
        "--lr", 0.05, "--warmup-epochs", 0, "--kd-model-name", f"local-dir:{teacher}", "--kd-distill-type", "dccd",
        "--dccd-control", "none", "--channels-last", "--output", out, "--experiment", "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out / "run", done


def test_a_run_leaves_what_it_promises(finished):
    run, done = finished
    for part in ("args.yaml", "summary.csv", "README.md", "report/report.json", "state/update-000000006/progress.json"):
        assert (run / part).is_file() and (run / "control" / part).is_file()
    for word in ("last", "best"):
        assert {p.name for p in (run / word).iterdir()} == {"model.safetensors", "config.json"}
    assert {p.name for p in (run / "report").glob("*.png")} == {
        f"{name}.png" for name in ("views", "comparison", "curves", "channels", "redundancy", "classes", "sensitivity")
    }
    table = rows(run / "summary.csv")
    assert [int(r["epoch"]) for r in table] == [0, 1, 2]
    parts = ["train_loss", "train_task_loss", "train_kd_loss", "train_contrast_loss", "train_difference_loss"]
    assert all(float(r[c]) == float(r[c]) for r in table for c in [*parts, "eval_loss", "eval_top1", "eval_top5", "lr"])
    settings = yaml.safe_load((run / "args.yaml").read_text())
    assert settings["dccd_views"] == 2 and set(settings["versions"]) >= {"timm", "torch", "dccd-timm"}
    report = json.loads((run / "report" / "report.json").read_text())
    assert set(report) >= {"student", "teacher", "control", "redundancy", "sensitivity"}
    assert report["sensitivity"]["images"] == 24 and len(report["sensitivity"]["changes"]) == 6
    assert all(
        -1 <= c[who]["correlation"] <= 1 for c in report["sensitivity"]["changes"] for who in ("student", "control")
    )
    assert "## Sensitivity" in (run / "README.md").read_text()
    assert report["control"]["method"] == "none" and 0 <= report["student"]["agreement"] <= 100
    for name in ("student", "teacher", "control"):
        assert f"{report[name]['top1']:.2f} %" in done.stdout
    assert "3 classes, columns image and label" in done.stdout and "sees 3x48x48" in done.stdout
    assert not any(p.name.startswith(".") for p in run.rglob("*"))  # nothing half-written is left


def test_timm_alone_loads_the_student_bit_for_bit(finished, tmp_path):
    run, _ = finished
    script = (
        "import sys, torch, timm; m = timm.create_model(f'local-dir:{sys.argv[1]}', pretrained=True).eval();"
        "torch.set_num_threads(1); torch.manual_seed(0); x = torch.randn(4, 3, 48, 48); torch.save(m(x), sys.argv[2]);"
        "assert 'dccd_timm' not in sys.modules;"
        "c = m.pretrained_cfg; assert c['input_size'] == (3, 48, 48) and c['label_names'][0] == 'circle', c"
    )
    subprocess.run([sys.executable, "-c", script, run / "best", tmp_path / "logits"], check=True, cwd=tmp_path)
    import safetensors.torch
    import timm
    import torch

    model = timm.create_model("resnetv2_18", num_classes=3, layers=(1, 1, 1), channels=(8, 16, 24), stem_chs=8).eval()
    model.load_state_dict(safetensors.torch.load_file(run / "best" / "model.safetensors"))
    torch.manual_seed(0)
    assert torch.equal(model(torch.randn(4, 3, 48, 48)), torch.load(tmp_path / "logits"))


def test_validate_gives_the_number_of_summary_csv(finished, parquet, teacher, tmp_path):
    run, _ = finished
    done = run_program(
        run, "--dataset", f"hfids/{parquet}", "--split", "test", "-j", 0, "-b", 7, "--teacher", teacher,
        "--results-file", tmp_path / "r.json", "--results-format", "json", program="validate.py",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.split("--result\n")[1])
    assert json.loads((tmp_path / "r.json").read_text()) == result
    assert list(result)[:9] == ["model", "top1", "top1_err", "top5", "top5_err", "param_count", "img_size", "crop_pct",
                                "interpolation"]  # fmt: skip
    best = max(float(r["eval_top1"]) for r in rows(run / "summary.csv"))
    assert result["top1"] == pytest.approx(best, abs=1e-4)
    report = json.loads((run / "report" / "report.json").read_text())
    assert result["agreement"] == pytest.approx(report["student"]["agreement"], abs=1e-4)
    assert result["teacher_top1"] == pytest.approx(report["teacher"]["top1"], abs=1e-4)


def test_same_seed_same_student_whatever_the_workers(small, tmp_path):
    weights = []
    for name, workers in (("a", 0), ("b", 1)):
        done = run_program(*small, "-j", workers, "--experiment", name)
        assert done.returncode == 0, done.stderr
        weights.append((tmp_path / "out" / name / "last" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


@pytest.mark.parametrize("method", ["none", "logit", "feature", "dccd"])
def test_each_method_runs_with_every_trimming(small, folders, method):
    """EMA, mixing, smoothing, accumulation, clipping, layer decay, channels-last, bf16 and compile, on an image folder."""
    done = run_program(
        *small, "--dataset", "", "--data-dir", folders, "--val-split", "validation", "--kd-distill-type", method,
        "--dccd-views", 2, "--model-ema", "--model-ema-decay", 0.9, "--mixup", 0.2, "--cutmix", 1, "--smoothing", 0.1,
        "--grad-accum-steps", 2, "-b", 8, "--clip-grad", 1, "--opt", "adamw", "--layer-decay", 0.7, "--channels-last",
        "--amp", "--amp-dtype", "bfloat16", "--torchcompile", "eager", "--reprob", 0.5, "--resplit", "--epochs", 1,
        "--drop-path", 0.1, "--drop", 0.1, "--sched", "step", "--decay-epochs", 1, "--no-prefetcher",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert method in done.stdout


def test_token_distillation_and_bce(small, tmp_path):
    done = run_program(
        *[w for w in small if w not in ("--model-kwargs", "layers=(1,1,1)", "channels=(8,16,24)", "stem_chs=8")],
        "--model", "deit_tiny_distilled_patch16_224", "--model-kwargs", "depth=1", "embed_dim=48", "num_heads=3",
        "--kd-distill-type", "token", "--dccd-views", 2, "--bce-loss", "--epochs", 1, "--clip-grad", 0.1, "--clip-mode",
        "agc", "--opt", "lamb",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "train_distill_loss" in (tmp_path / "out" / "run" / "summary.csv").read_text()


def test_teacher_from_a_checkpoint_file(small, teacher):
    words = [w for w in small if not str(w).startswith("local-dir:")]
    words.insert(words.index("--kd-model-name") + 1, "test_resnet")
    assert_one_line(
        run_program(*words, "--kd-teacher-checkpoint", teacher / "model.safetensors"), "does not fit test_resnet"
    )
    assert_one_line(run_program(*words, "--kd-teacher-checkpoint", teacher / "modle.safetensors"), "does not exist",
                    "model.safetensors")  # fmt: skip


def test_resume_goes_on_where_the_run_stopped(small, tmp_path):
    assert run_program(*small, "--epochs", 1).returncode == 0
    run = tmp_path / "out" / "run"
    done = run_program(*small, "--epochs", 3, "--resume", run)
    assert done.returncode == 0, done.stderr
    assert [int(r["epoch"]) for r in rows(run / "summary.csv")] == [0, 1, 2]
    assert_one_line(run_program(*small, "--epochs", 3, "--resume", run), "trained already")
    assert_one_line(run_program(*small, "--resume", tmp_path / "nowhere"), "nothing to resume")


MISTAKES = {
    "unknown model": (["--model", "resnet51"], ["timm has no model 'resnet51'", "did you mean resnet"]),
    "unknown argument of the model": (["--model-kwargs", "layerz=3"], ["cannot be built", "layerz"]),
    "unknown teacher": (["--kd-model-name", "resnet"], ["teacher", "no model 'resnet'"]),
    "teacher folder": (["--kd-model-name", "local-dir:/nowhere"], ["teacher", "/nowhere"]),
    "classes of the student": (["--num-classes", "7"], ["has 3 classes, the student 7"]),
    "fewer classes than the data": (["--num-classes", "2"], ["the data set has 3 classes, the student 2"]),
    "no feature maps": (["--img-size", "6"], ["16 positions"]),
    "missing data": (["--dataset", "hfids/no/such/folder"], ["no/such/folder does not exist"]),
    "missing split": (["--val-split", "dev"], ["split dev", "train"]),
    "missing column": (["--target-key", "lable"], ["no column lable; did you mean label?"]),
    "class map": (["--class-map", "recipes/README.md"], ["--class-map recipes/README.md", "cannot be read"]),
    "no data at all": (["--dataset", ""], ["no data: set --data-dir"]),
    "one sample for BatchNorm": (["-b", "1", "--dccd-views", "1", "--dccd-difference-weight", "0"], ["BatchNorm"]),
    "batch larger than the data": (["-b", "500"], ["lower --batch-size"]),
    "unknown optimizer": (["--opt", "adamx"], ["optimizer adamx", "did you mean"]),
    "unknown schedule": (["--sched", "cosinus"], ["scheduler cosinus"]),
    "float16 without a GPU": (["--kd-teacher-dtype", "float16"], ["float16 needs a GPU", "bfloat16"]),
    "device module": (["--device-modules", "no_such_module"], ["no_such_module"]),
    "output is a file": (["--output", "/etc/hostname"], ["cannot be written", "--output"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_and_write_nothing(small, tmp_path, name):
    flags, words = MISTAKES[name]
    if name == "float16 without a GPU":
        flags = [*flags, "--device", "cpu"]
    assert_one_line(run_program(*small, *flags), *words)
    assert not (tmp_path / "out").exists()


def test_empty_image_folder(small, tmp_path):
    (tmp_path / "empty" / "train").mkdir(parents=True)
    assert_one_line(run_program(*small, "--dataset", "", "--data-dir", tmp_path / "empty"), "empty")


def test_class_indices_out_of_range(small, tmp_path):
    data = write_parquet(tmp_path / "data", labels=(0, 1, 5), features=False)
    done = run_program(*small, "--dataset", f"hfids/{data}", "--num-classes", 3)
    assert_one_line(done, "class index 5 is outside 0 ... 2")
    assert not (tmp_path / "out").exists()


def test_unreadable_images_are_skipped_counted_and_limited(small, tmp_path):
    data = write_parquet(tmp_path / "data", spoil=(4, 9, 30))
    done = run_program(*small, "--dataset", f"hfids/{data}")
    assert done.returncode == 0, done.stderr
    assert "skipped unreadable image 1: " in done.stderr and ".png" in done.stderr
    report = json.loads((tmp_path / "out" / "run" / "report" / "report.json").read_text())
    assert report["skipped_images"] == 3  # each once, however many epochs meet it
    assert any("(9.png)" in name for name in report["skipped_first"])
    done = run_program(*small, "--dataset", f"hfids/{data}", "--max-data-errors", 1, "--experiment", "limited")
    assert_one_line(done, "more than --max-data-errors 1")


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_student(small, tmp_path):
    assert run_program(*small, "--epochs", 1).returncode == 0
    run = tmp_path / "out" / "run"
    before = {p: p.read_bytes() for p in (*run.glob("last/*"), *run.glob("best/*"), *run.glob("state/*/*"))}
    done = run_program(*small, "--epochs", 2, "--resume", run, "--lr", 1e30)
    assert_one_line(done, "not finite at update", "epoch 2", "last/ holds the last good epoch")
    assert {p: p.read_bytes() for p in before} == before


def test_validate_mistakes(parquet, teacher):
    data = ["--dataset", f"hfids/{parquet}", "--split", "test"]
    for words, expected in (
        (["--model", "resnet51", *data], "no model 'resnet51'"),
        (["--model", "resnet18", "--checkpoint", "no.pth", *data], "no.pth does not exist"),
        ([teacher, "--img-size", "0", *data], "must be at least 1"),
        ([teacher, "--dataset", "hfids/no/such/folder"], "does not exist"),
        ([teacher, *data, "--teacher", "resnet51"], "resnet51"),
    ):
        assert_one_line(run_program(*words, program="validate.py"), expected)


def test_help_reads_well():
    for program in ("train.py", "validate.py"):
        done = run_program("--help-all", program=program)
        assert done.returncode == 0 and "--amp-dtype" in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= 120
