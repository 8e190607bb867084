"""Students onto a Hub and back, by the real clients, through every fault that a network has."""

import getpass
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import yaml

from tests.conftest import run_program
from tests.model_hub import ModelHub
from tests.model_hub.client import Client
from tests.test_programs import assert_one_line

WRITE, READ = "hf_writeTokenOfAlice1", "hf_readTokenOfAlice22"
PICTURES = ("curves", "channels", "redundancy", "classes")
PUBLISHED = {".gitattributes", "README.md", "args.yaml", "config.json", "model.safetensors", "recipe.yaml",
             "summary.csv", "report/report.json", *(f"report/{name}.png" for name in PICTURES)}  # fmt: skip


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    hub = ModelHub(tmp_path_factory.mktemp("hub"), {WRITE: ("alice", "write"), READ: ("alice", "read")})
    yield hub
    hub.stop()


@pytest.fixture(autouse=True)
def no_faults_left(hub):
    hub.faults.clear()


@pytest.fixture(scope="session")
def flags(parquet, teacher):
    return [
        "--dataset", f"hfids/{parquet}", "--val-split", "test", "--model", "resnetv2_18", "--model-kwargs",
        "layers=(1,1,1)", "channels=(8,16,24)", "stem_chs=8", "--img-size", 48, "-b", 16, "-j", 0, "--epochs", 3,
        "--lr", 0.1, "--warmup-epochs", 0, "--model-ema", "--model-ema-decay", 0.9999, "--kd-model-name", f"local-dir:{teacher}", "--kd-distill-type", "dccd",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def finished(hub, flags, tmp_path_factory):
    """A run that pushed its student after every epoch and at its end, and what it printed."""
    out = tmp_path_factory.mktemp("run")
    push = ["--push-to-hub", "alice/student", "--hub-interval", 1, "--hub-license", "apache-2.0"]
    done = run_program(*flags, *push, "--output", out, "--experiment", "r", env=hub.environment(out / "home", WRITE))
    assert done.returncode == 0, done.stderr
    return out / "r", done


@pytest.fixture(scope="session", params=[True, False], ids=["xet", "lfs"])
def client(request, hub, tmp_path_factory):
    client = Client(hub.environment(tmp_path_factory.mktemp("home"), xet=request.param))
    client.xet = request.param
    yield client
    client.stop()


def fingerprint(folder):
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def assert_failed(done, *words):
    """Code 2 and one line with these words, no traceback."""
    assert done.code == 2, done.text
    errors = [line for line in done.text.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in done.text
    for word in words:
        assert word in errors[0], errors[0]


def test_a_run_pushes_one_commit_with_everything_and_nothing_else(hub, finished):
    run, done = finished
    assert f"pushed to {hub.url}/alice/student" in done.stdout and "private" in done.stdout
    assert hub.repos["alice/student"]["private"]
    files = hub.files("alice/student")
    assert set(files) == PUBLISHED
    assert files["model.safetensors"] == (run / "best" / "model.safetensors").read_bytes()
    titles = hub.history("alice/student")
    assert len(titles) == 4 and titles[-1] == "initial commit"  # two while it trained, one at the end
    assert b"still goes on" not in files["README.md"]
    parents = list(hub.repos["alice/student"]["commits"].values())
    assert b"still goes on" in hub.blob(parents[1]["tree"]["README.md"]["sha256"]).read_bytes()


def test_nothing_private_is_published(hub, finished):
    private = {WRITE, str(Path.home()), socket.gethostname(), str(finished[0].parent), "/tmp/"}
    private |= {getpass.getuser()} - {"alice"} if len(getpass.getuser()) > 4 else set()
    for path, content in hub.files("alice/student").items():
        for word in private:
            # a short name stands in noise by chance, so it is looked for as a word, and not in weights and pixels
            found = word.encode() in content if len(word) > 4 else re.search(rf"\b{word}\b".encode(), content)
            assert not found or (len(word) <= 4 and path.endswith((".png", ".safetensors"))), (path, word)


def test_the_token_goes_to_the_hub_alone(hub, finished):
    assert any("/commit/" in entry[0] and entry[3] for entry in hub.log)
    others = [entry for entry in hub.log if "/_lfs/" in entry[0] or "/_cdn/" in entry[0] or "localhost" in entry[2]]
    assert all(entry[3] in (None, "Bearer xet") for entry in others)


def test_the_better_of_plain_and_averaged_weights_is_exported(finished):
    report = json.loads((finished[0] / "report" / "report.json").read_text())
    assert report["weights"] == "raw"  # an average so slow is still the student of the start
    plain = safetensors.torch.load_file(max((finished[0] / "state").glob("update-*")) / "model.safetensors")
    best = safetensors.torch.load_file(finished[0] / "best" / "model.safetensors")
    assert all(torch.equal(value, plain[f"student.{name}"]) for name, value in best.items())


def test_config_claims_no_other_origin_and_has_names(finished):
    config = json.loads((finished[0] / "best" / "config.json").read_text())
    assert not {"tag", "origin_url", "paper_ids", "license", "file", "url"} & set(config["pretrained_cfg"])
    assert "num_classes" not in config["model_args"] and config["num_classes"] == 3
    assert config["label_names"] == ["circle", "cross", "stripes"]


def test_card_is_valid_and_tells_the_truth(hub, finished, client):
    files = hub.files("alice/student")
    text, report = files["README.md"].decode(), json.loads(files["report/report.json"])
    done = client.do(
        "import sys; from huggingface_hub import ModelCard; card = ModelCard(text); card.validate();"
        "print(card.data.eval_results[0].metric_value, card.data.license, card.data.library_name)", text=text,
    )  # fmt: skip
    assert done.code == 0 and done.text.split() == [str(round(report["student"]["top1"], 2)), "apache-2.0", "timm"]
    front = yaml.safe_load(text.split("---")[1])
    assert front["teacher"] == "resnetv2_18" and "teacher:resnetv2_18" in front["tags"]
    assert "base_model" not in front and "datasets" not in front  # from scratch, on data of its own
    assert f"| {report['teacher']['top1']:.2f} |" in text and f"| {report['student']['top1']:.2f} |" in text
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert picture in files
    assert {f"report/{name}.png" for name in PICTURES} == set(re.findall(r"!\[.*?\]\((.*?)\)", text))


def test_the_recipe_makes_the_same_student_again(hub, finished, flags, tmp_path):
    (tmp_path / "recipe.yaml").write_bytes(hub.files("alice/student")["recipe.yaml"])
    places = [*flags[flags.index("--dataset") :][:2], *flags[flags.index("--kd-model-name") :][:2]]
    done = run_program("-c", tmp_path / "recipe.yaml", *places, "--output", tmp_path, "--experiment", "again")
    assert done.returncode == 0, done.stderr
    again = tmp_path / "again" / "best" / "model.safetensors"
    assert again.read_bytes() == (finished[0] / "best" / "model.safetensors").read_bytes()


# what is asked, by Xet and without it, and how it fails until the fault is over
FAULTS = {
    "create refused": (r"POST /api/repos/create", dict(status=503), "fault (503)"),
    "too many requests": (r"POST .*/preupload/", dict(status=429, headers={"Retry-After": "1"}), "429"),
    "no answer": (r"GET /api/whoami", dict(delay=1.2), "cannot be reached"),
    "upload cut": (r"POST /_xet/v1/xorbs|PUT /_lfs/", dict(cut=2000), ""),
    "commit refused": (r"POST .*/commit/", dict(status=500), "fault (500)"),
    "commit cut": (r"POST .*/commit/", dict(drop=True), "cannot be reached"),
    "verification refused": (r"GET .*/tree/", dict(status=502), "fault (502)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_push_is_one_line_and_a_second_one_completes(hub, finished, client, fault, tmp_path):
    if fault == "no answer" and client.xet:
        pytest.skip("the same client asks")
    match, what, cause = FAULTS[fault]
    run = finished[0]
    if fault == "upload cut":  # other weights, or there is nothing to upload
        run = shutil.copytree(run, tmp_path / "run")
        weights = {
            k: v + client.xet + 1 for k, v in safetensors.torch.load_file(run / "best/model.safetensors").items()
        }
        safetensors.torch.save_file(weights, run / "best/model.safetensors")
    before = fingerprint(run)
    name = f"alice/{fault.replace(' ', '-')}-{'xet' if client.xet else 'lfs'}"
    hub.fail(match, times=1000, **what)
    words = (cause,) if fault == "no answer" else (cause, str(run / "best"), f"`dccd-push {run} {name}`")
    assert_failed(client.push(run, name, token=WRITE), *words)
    hub.faults.clear()
    done = client.push(run, name, token=WRITE)
    assert done.code == 0, done.text
    assert set(hub.files(name)) == PUBLISHED
    assert hub.files(name)["model.safetensors"] == (run / "best" / "model.safetensors").read_bytes()
    history = hub.history(name)
    assert client.push(run, name, token=WRITE).code == 0 and hub.history(name) == history  # again changes nothing
    assert fingerprint(run) == before


def test_a_short_fault_is_waited_for(hub, finished, client):
    name = f"alice/short-{'xet' if client.xet else 'lfs'}"
    hub.fail(r"POST /api/repos/create", times=1, status=503)
    hub.fail(r"POST .*/commit/", times=1, status=503)
    assert client.push(finished[0], name, token=WRITE).code == 0
    assert set(hub.files(name)) == PUBLISHED
    hub.fail(r"POST .*/commit/", times=1, drop=True, after=True)  # done, and the answer lost
    assert client.push(finished[0], f"{name}-lost", token=WRITE).code == 0
    assert set(hub.files(f"{name}-lost")) == PUBLISHED


def test_tokens_names_and_folders(hub, finished, client, tmp_path):
    run, repos = finished[0], set(hub.repos)
    for token, name, words in (
        (None, "alice/new", ("no token", "hf auth login")),
        ("hf_wrong", "alice/new", ("token is not valid",)),
        (READ, "alice/new", ("alice", "may only read")),
        (WRITE, "bob/new", ("that of alice",)),
        (WRITE, "new", ("owner/name",)),
        (WRITE, "alice/../new", ("alice/../new",)),
    ):
        assert_failed(client.push(run, name, token=token), *words)
    assert_failed(client.push(tmp_path, "alice/new", token=WRITE), "nothing to push")
    assert set(hub.repos) == repos


def test_old_pickles_and_pictures_go_and_public_is_said(hub, finished, client):
    name = f"alice/old-{'xet' if client.xet else 'lfs'}"
    hub.create(name, "alice", "write", private=False)
    old = {path: hub.record(b"old") for path in ("pytorch_model.bin", "report/old.png", "notes.md")}
    hub.commit(hub.repos[name], "refs/heads/main", old, "old")
    done = client.push(finished[0], name, "--hub-revision", "v2", token=WRITE)
    assert "public (it was before" in done.text
    assert set(hub.files(name, "v2")) == PUBLISHED - {".gitattributes"} | {"notes.md"}
    assert set(hub.files(name)) == set(old)


def test_a_token_that_may_not_write_is_told_before_the_training(hub, flags, tmp_path):
    done = run_program(
        *flags, "--push-to-hub", "alice/early", "--output", tmp_path / "out", env=hub.environment(tmp_path, READ)
    )
    assert_one_line(done, "may only read")
    assert not (tmp_path / "out").exists()


PULL_ALONE = """
import sys, timm, torch
torch.set_num_threads(1), torch.manual_seed(0)
images = torch.randn(4, 3, 48, 48)
torch.save(timm.create_model("hf-hub:alice/student", pretrained=True).eval()(images), sys.argv[1])
assert "dccd_timm" not in sys.modules
"""


def test_timm_alone_pulls_the_student_bit_for_bit_and_the_cards_snippet_runs(hub, finished, tmp_path):
    snippet = re.search(r"```python\n(.*?)```", hub.files("alice/student")["README.md"].decode(), re.S)[1]
    torch.manual_seed(0)
    images = torch.randn(4, 3, 48, 48)
    expected = timm.create_model(f"local-dir:{finished[0] / 'best'}", pretrained=True).eval()(images)
    for xet in (True, False):
        path = tmp_path / str(xet)
        env = {**os.environ, **hub.environment(tmp_path / f"home{xet}", READ, xet), "PYTHONPATH": ""}
        done = subprocess.run([sys.executable, "-c", PULL_ALONE + snippet, path], env=env, cwd=tmp_path,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert torch.equal(torch.load(path), expected)
        assert re.fullmatch(r"( *\d+\.\d %  (circle|cross|stripes)\n){3}", done.stdout)


def test_validate_gives_the_cards_number(hub, finished, parquet, tmp_path):
    done = run_program(
        "hf-hub:alice/student", "--dataset", f"hfids/{parquet}", "--split", "test", "-j", 0, program="validate.py",
        env=hub.environment(tmp_path, READ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    card = yaml.safe_load(hub.files("alice/student")["README.md"].decode().split("---")[1])
    value = card["model-index"][0]["results"][0]["metrics"][0]["value"]
    assert round(json.loads(done.stdout.split("--result\n")[1])["top1"], 2) == value


def test_student_start_and_teacher_come_from_the_hub(hub, finished, parquet, tmp_path):
    done = run_program(
        "--dataset", f"hfids/{parquet}", "--val-split", "test", "--model", "hf-hub:alice/student@main", "--pretrained",
        "--kd-model-name", "hf-hub:alice/student", "--kd-distill-type", "dccd", "-b", 16, "-j", 0, "--epochs", 1,
        "--warmup-epochs", 0, "--lr", 0, "--output", tmp_path, "--experiment", "r", env=hub.environment(tmp_path, READ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "r" / "report" / "report.json").read_text())
    commit = hub.repos["alice/student"]["refs"]["refs/heads/main"]
    assert report["student"]["start"]["commit"] == report["teacher"]["commit"] == commit
    front = yaml.safe_load((tmp_path / "r" / "README.md").read_text().split("---")[1])
    assert front["base_model"] == front["teacher"] == "alice/student"
    ours, theirs = (
        safetensors.torch.load_file(p / "best" / "model.safetensors") for p in (tmp_path / "r", finished[0])
    )
    assert all(torch.equal(ours[name], value) for name, value in theirs.items() if name.endswith("weight"))


PULL = """
from dccd_timm.guard import guarded
from dccd_timm.models.create import checkpoint_file, create
def story(words):
    model = create(words[0], "student (--model)", pretrained=True)
    print(model.num_classes, checkpoint_file(words[0], "--initial-checkpoint").endswith("model.safetensors"))
guarded(story, [name])
"""


def test_pull_by_revision_from_an_old_cache_and_what_is_not_there(hub, finished, client):
    name = f"alice/pull-{'xet' if client.xet else 'lfs'}"
    assert client.push(finished[0], name, token=WRITE).code == 0
    repo = hub.repos[name]
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
    hub.fail(r"(HEAD|GET) .*/config.json", times=1000, status=503)
    done = client.do(PULL, READ, name=f"hf-hub:{name}")
    assert done.code == 0 and "could not be asked" in done.text and commit[:12] in done.text
    done = client.do(PULL, READ, name=f"hf-hub:{name}@{commit}")
    assert done.code == 0 and "could not be asked" not in done.text  # a commit does not grow old


def test_the_report_is_drawn_again_beside_another_run(finished, teacher, client, tmp_path):
    if not client.xet:
        pytest.skip("once is enough")
    run = shutil.copytree(finished[0], tmp_path / "run")
    before = json.loads((run / "report" / "report.json").read_text())
    for picture in (run / "report").glob("*.png"):
        picture.unlink()
    again = "from dccd_timm.report import main; main(words.split(' '))"
    done = client.do(again, words=f"{run} --against {teacher.parent}")
    assert done.code == 0, done.text
    after = json.loads((run / "report" / "report.json").read_text())
    assert {p.stem for p in (run / "report").glob("*.png")} == set(PICTURES)
    for word in ("teacher", "student", "student_before_training", "student_teacher"):
        assert after["redundancy"][word] == before["redundancy"][word]
    assert after["control"]["top1"] == after["teacher"]["top1"] and "t (none)" in (run / "README.md").read_text()
    assert_failed(client.do(again, words=tmp_path), "holds no finished run")
