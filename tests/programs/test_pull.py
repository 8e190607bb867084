"""Students back from a Hub: with timm alone, by revision, from the cache, and into the next training."""

import hashlib
import json
import os
import re
import subprocess
import sys

import pytest
import safetensors.torch
import timm
import torch
import yaml

from tests.conftest import READ, WRITE, run_program
from tests.fakes.model_hub.client import assert_failed
from tests.models.test_weights import POINTER


@pytest.fixture(autouse=True)
def no_faults_left(model_hub):
    model_hub.faults.clear()


DOWNLOAD = """
import hashlib, huggingface_hub, pathlib
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 500  # what it has by then is written, and not asked for again
path = huggingface_hub.hf_hub_download(name, "model.safetensors")
print(hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest())
"""

PULL_ALONE = """
import sys, timm, torch
torch.set_num_threads(1), torch.manual_seed(0)
images = torch.randn(4, 3, 48, 48)
torch.save(timm.create_model("hf-hub:alice/student", pretrained=True).eval()(images), sys.argv[1])
assert "dccd_timm" not in sys.modules
"""


def test_timm_alone_pulls_the_student_bit_for_bit_and_the_cards_snippet_runs(model_hub, pushed, tmp_path):
    snippet = re.search(r"```python\n(.*?)```", model_hub.files("alice/student")["README.md"].decode(), re.S)[1]
    torch.manual_seed(0)
    images = torch.randn(4, 3, 48, 48)
    expected = timm.create_model(f"local-dir:{pushed[0] / 'best'}", pretrained=True).eval()(images)
    for xet in (True, False):
        path = tmp_path / str(xet)
        env = {**os.environ, **model_hub.environment(tmp_path / f"home{xet}", READ, xet), "PYTHONPATH": ""}
        done = subprocess.run([sys.executable, "-c", PULL_ALONE + snippet, path], env=env, cwd=tmp_path,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert torch.equal(torch.load(path), expected)
        assert re.fullmatch(r"( *\d+\.\d %  (circle|cross|stripes)\n){3}", done.stdout)


def test_a_download_that_breaks_off_goes_on(model_hub, pushed, client):
    name = f"alice/cut-{'xet' if client.xet else 'lfs'}"
    assert client.push(pushed[0], name, token=WRITE).code == 0
    seen = len(model_hub.log)
    model_hub.fail(r"GET /(_cdn|_xet/data)/", cut=2000)
    done = client.do(DOWNLOAD, READ, name=name)
    assert done.code == 0 and not model_hub.faults[0]["times"], done.text
    assert done.text.split()[-1] == hashlib.sha256((pushed[0] / "best/model.safetensors").read_bytes()).hexdigest()
    parts = [sent for request, sent, *_ in model_hub.log[seen:] if "/_cdn/" in request]
    assert client.xet or parts == [200, 206]  # the rest, and not all of it again


def test_validate_gives_the_cards_number(model_hub, pushed, parquet, tmp_path):
    done = run_program(
        "hf-hub:alice/student", "--dataset", f"hfids/{parquet}", "--split", "test", "-j", 0, program="validate.py",
        env=model_hub.environment(tmp_path, READ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    card = yaml.safe_load(model_hub.files("alice/student")["README.md"].decode().split("---")[1])
    value = card["model-index"][0]["results"][0]["metrics"][0]["value"]
    assert round(json.loads(done.stdout.split("--result\n")[1])["top1"], 2) == value


def test_student_start_and_teacher_come_from_the_hub(model_hub, pushed, parquet, tmp_path):
    done = run_program(
        "--dataset", f"hfids/{parquet}", "--val-split", "test", "--model", "hf-hub:alice/student@main", "--pretrained",
        "--kd-model-name", "hf-hub:alice/student", "--allow-weak-teacher", "--kd-distill-type", "dccd", "-b", 16, "-j", 0, "--epochs", 1,
        "--warmup-epochs", 0, "--lr", 0, "--output", tmp_path, "--experiment", "r", env=model_hub.environment(tmp_path, READ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "r" / "report" / "report.json").read_text())
    commit = model_hub.repos["alice/student"]["refs"]["refs/heads/main"]
    assert report["student"]["start"]["commit"] == report["teacher"]["commit"] == commit
    front = yaml.safe_load((tmp_path / "r" / "README.md").read_text().split("---")[1])
    assert front["base_model"] == front["teacher"] == "alice/student"
    ours, theirs = (safetensors.torch.load_file(p / "best" / "model.safetensors") for p in (tmp_path / "r", pushed[0]))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items() if name.endswith("weight"))


PULL = """
from dccd_timm.launch.guard import guarded
from dccd_timm.models.load import checkpoint_file, create
def story(words):
    model = create(words[0], "student (--model)", pretrained=True)
    print(model.num_classes, checkpoint_file(words[0], "--initial-checkpoint").endswith("model.safetensors"))
guarded(story, [name])
"""


def test_what_a_repository_is_not_is_said(model_hub, client, tmp_path):
    files = {
        "transformers": {"config.json": b'{"architectures": ["ViTForImageClassification"]}', "model.safetensors": b"x"},
        "empty": {"config.json": b'{"architecture": "test_resnet"}'},
        "pointer": {"config.json": b'{"architecture": "test_resnet"}', "model.safetensors": POINTER},
    }
    for repo, parts in files.items():
        name = f"alice/{repo}-{'xet' if client.xet else 'lfs'}"
        model_hub.create(name, "alice", "write", private=False)
        tree = {path: model_hub.record(content) for path, content in parts.items()}
        model_hub.commit(model_hub.repos[name], "refs/heads/main", tree, "x")
        words = {"transformers": "of transformers (ViTForImageClassification), not of timm",
                 "empty": "it has no model.safetensors", "pointer": "pointer of Git LFS"}[repo]  # fmt: skip
        assert_failed(client.do(PULL, READ, name=f"hf-hub:{name}"), words)
    gated = dict(status=403, message="Access is restricted. Visit the page", headers={"X-Error-Code": "GatedRepo"})
    model_hub.fail(f"/{name}/", times=1000, **gated)
    assert_failed(
        client.do(PULL, READ, name=f"hf-hub:{name}@new"), "it is gated (Access is restricted. Visit the page)"
    )


def test_pull_by_revision_from_an_old_cache_and_what_is_not_there(model_hub, pushed, client):
    name = f"alice/pull-{'xet' if client.xet else 'lfs'}"
    assert client.push(pushed[0], name, token=WRITE).code == 0
    repo = model_hub.repos[name]
    repo["refs"]["refs/tags/v1"] = repo["refs"]["refs/heads/main"]
    commit = repo["refs"]["refs/tags/v1"]
    for revision in ("", "@v1", f"@{commit}"):
        done = client.do(PULL, READ, name=f"hf-hub:{name}{revision}")
        assert done.code == 0 and done.text.split() == ["3", "True"], done.text
    for words, token, said in (
        (f"hf-hub:{name}@v9", READ, "no branch, tag or commit v9"),
        ("hf-hub:alice/nowhere", READ, "does not exist, or is private"),
        ("hf-hub:alice/student", None, "does not exist, or is private"),
    ):
        assert_failed(client.do(PULL, token, name=words), said)
    model_hub.fail(r"(HEAD|GET) .*/config.json", times=1000, status=503)
    done = client.do(PULL, READ, name=f"hf-hub:{name}")
    assert done.code == 0 and "could not be asked" in done.text and commit[:12] in done.text
    done = client.do(PULL, READ, name=f"hf-hub:{name}@{commit}")
    assert done.code == 0 and "could not be asked" not in done.text  # a commit does not grow old
