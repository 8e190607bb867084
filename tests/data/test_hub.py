"""Streaming from a Hub that fails as networks do, and data sets that are broken: by real programs, on loopback."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.conftest import CLASSES, ROOT, run_program, write_parquet
from tests.fakes.data_hub import DatasetHub
from tests.programs.test_programs import assert_one_line

CDN = r"GET /_cdn/.*train-"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_parquet(tmp_path_factory.mktemp("hub") / "shapes", shards=4)


@pytest.fixture
def hub(folder, folders):
    held = {"alice/shapes": folder, "alice/secret": folder, "alice/images": folders}
    hub = DatasetHub(held, private=("alice/secret",))
    yield hub
    hub.stop()


def train(hub, tmp_path, *flags, dataset="alice/shapes", env=None, timeout=120):
    """One tiny training from the Hub, every image once, without augmentation."""
    return run_program(
        "--dataset", f"hfids/{dataset}", "--val-split", "test", "--model", "test_resnet", "--img-size", 32, "-b", 8,
        "-j", 2, "--epochs", 1, "--lr", 0.01, "--warmup-epochs", 0, "--output", tmp_path / "out", "--experiment", "run",
        *flags, env={**hub.environment(tmp_path / "home"), **(env or {})}, timeout=timeout,
    )  # fmt: skip


def report(tmp_path, name="run"):
    return json.loads((tmp_path / "out" / name / "report" / "report.json").read_text())


def test_a_data_set_on_the_hub_is_streamed_by_ranges(hub, tmp_path):
    done = train(hub, tmp_path, "--dataset-revision", "main", dataset="alice/secret")
    assert done.returncode == 0, done.stderr
    assert report(tmp_path)["skipped_images"] == 0
    config = json.loads((tmp_path / "out" / "run" / "best" / "config.json").read_text())
    assert config["label_names"] == CLASSES
    assert "HTTP Request" not in done.stderr and "hf_test" not in done.stderr + done.stdout
    # nothing but metadata was kept on disk
    assert not list((tmp_path / "home").rglob("*.parquet"))


def test_an_image_folder_on_the_hub(hub, tmp_path):
    hub.fail(r"GET /_cdn/.*png", times=2, status=503)
    done = train(hub, tmp_path, "--val-split", "validation", dataset="alice/images")
    assert done.returncode == 0, done.stderr
    assert report(tmp_path)["skipped_images"] == 0


@pytest.mark.parametrize(
    "faults",
    [
        [(CDN, dict(status=503, times=2)), (CDN, dict(status=429, times=1)), ("/tree/", dict(status=503, times=1))],
        [(CDN, dict(drop=True, times=2)), (CDN, dict(cut=500, times=2)), (CDN, dict(delay=8, times=1))],
    ],
)
def test_faults_that_pass_lose_nothing(hub, tmp_path, faults):
    for where, fault in faults:
        hub.fail(where, **fault)
    done = train(hub, tmp_path, env={"HF_HUB_DOWNLOAD_TIMEOUT": "2"})
    assert done.returncode == 0, done.stderr
    assert not any(fault["times"] for fault in hub.faults)
    assert report(tmp_path)["skipped_images"] == 0


def test_a_hub_that_stalls_for_ever_ends_the_run_with_one_line(hub, tmp_path):
    hub.fail(CDN, times=10**6, skip=4, delay=300)
    done = train(hub, tmp_path, "--data-timeout", 4, env={"HF_HUB_DOWNLOAD_TIMEOUT": "1"})
    assert_one_line(done, "gave no data for 4 s (--data-timeout)", "start again")  # it has no state yet


def test_a_shard_that_is_gone(hub, tmp_path):
    hub.fail(r"/resolve/.*/train-00002", times=10**6, status=404)
    known = ["--train-num-samples", 48]
    done = train(hub, tmp_path, *known, "--max-data-errors", 5)
    assert_one_line(done, "train-00002-of-00004.parquet from row 0 on, about 12 images", "--max-data-errors 5")
    done = train(hub, tmp_path, *known, "--train-batches-per-epoch", 8, "--experiment", "skipping")
    assert done.returncode == 0, done.stderr
    assert report(tmp_path, "skipping")["skipped_images"] == 12


def test_what_does_not_exist_is_one_line(hub, tmp_path):
    assert_one_line(train(hub, tmp_path, dataset="alice/nothing"), "alice/nothing is no local folder")
    assert_one_line(train(hub, tmp_path, "--dataset-revision", "v9"), "v9")
    assert_one_line(
        train(hub, tmp_path, "--data-timeout", 2, env={"HF_ENDPOINT": "http://127.0.0.1:9"}), "alice/shapes"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_run_that_is_stopped_ends_with_its_own_code_and_leaves_no_process(folder, tmp_path, number, code):
    """Half-read parquet streams abort or hang interpreters at exit; the loader keeps them out of the main process."""
    words = [
        "--dataset", f"hfids/{folder}", "--val-split", "test", "--model", "test_resnet", "--img-size", 32, "-b", 4, "-j", 2,
        "--epochs", 10000, "--output", tmp_path / "out", "--experiment", "run",
    ]  # fmt: skip
    run = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *map(str, words)],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / "run" / "summary.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    workers = psutil.Process(run.pid).children(recursive=True)
    assert len(workers) >= 2
    run.send_signal(number)
    stderr = run.communicate(timeout=30)[1]
    assert run.returncode == code, stderr
    assert "Traceback" not in stderr and "Fatal Python error" not in stderr
    assert not psutil.wait_procs(workers, timeout=10)[1]
