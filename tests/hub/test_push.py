"""Students onto a Hub, by the real clients, through every fault that a network has."""

import getpass
import hashlib
import json
import re
import shutil
import socket
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml

from tests.conftest import READ, WRITE, run_program
from tests.fakes.model_hub.client import assert_failed
from tests.programs.test_programs import assert_one_line

PICTURES = ("comparison", "curves", "channels", "redundancy", "classes", "sensitivity")
PUBLISHED = {".gitattributes", "README.md", "args.yaml", "config.json", "model.safetensors", "recipe.yaml",
             "summary.csv", ".dccd-push.json", "report/report.json", *(f"report/{name}.png" for name in PICTURES)}  # fmt: skip


@pytest.fixture(autouse=True)
def no_faults_left(model_hub):
    model_hub.faults.clear()


def fingerprint(folder):
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_run_pushes_one_commit_with_everything_and_nothing_else(model_hub, pushed):
    run, done = pushed
    assert f"pushed to {model_hub.url}/alice/student" in done.stdout and "private" in done.stdout
    assert model_hub.repos["alice/student"]["private"]
    files = model_hub.files("alice/student")
    assert set(files) == PUBLISHED
    assert files["model.safetensors"] == (run / "best" / "model.safetensors").read_bytes()
    titles = model_hub.history("alice/student")
    assert len(titles) == 4 and titles[-1] == "initial commit"  # two while it trained, one at the end
    assert b"training is not finished" not in files["README.md"]
    parents = list(model_hub.repos["alice/student"]["commits"].values())
    assert b"training is not finished" in model_hub.blob(parents[1]["tree"]["README.md"]["sha256"]).read_bytes()


def test_nothing_private_is_published(model_hub, pushed):
    private = {WRITE, str(Path.home()), socket.gethostname(), str(pushed[0].parent), "/tmp/"}
    private |= {getpass.getuser()} - {"alice"} if len(getpass.getuser()) > 4 else set()
    for path, content in model_hub.files("alice/student").items():
        for word in private:
            # a short name stands in noise by chance, so it is looked for as a word, and not in weights and pixels
            found = word.encode() in content if len(word) > 4 else re.search(rf"\b{word}\b".encode(), content)
            assert not found or (len(word) <= 4 and path.endswith((".png", ".safetensors"))), (path, word)


def test_the_token_goes_to_the_hub_alone(model_hub, pushed):
    """Not to the stores that take and give large files, which are others' machines; the Hub verifies uploads itself."""
    assert any("/commit/" in entry[0] and entry[3] for entry in model_hub.log)
    stores = [
        entry for entry in model_hub.log if re.match(r"PUT /_lfs/|\w+ /_cdn/", entry[0]) or "localhost" in entry[2]
    ]
    assert not [entry for entry in stores if entry[3] not in (None, "Bearer xet")]


def test_the_better_of_plain_and_averaged_weights_is_exported(pushed):
    report = json.loads((pushed[0] / "report" / "report.json").read_text())
    assert report["weights"] == "raw"  # an average so slow is still the student of the start
    plain = safetensors.torch.load_file(max((pushed[0] / "state").glob("update-*")) / "model.safetensors")
    best = safetensors.torch.load_file(pushed[0] / "best" / "model.safetensors")
    assert all(torch.equal(value, plain[f"student.{name}"]) for name, value in best.items())


def test_config_claims_no_other_origin_and_has_names(pushed):
    config = json.loads((pushed[0] / "best" / "config.json").read_text())
    assert not {"tag", "origin_url", "paper_ids", "license", "file", "url"} & set(config["pretrained_cfg"])
    assert "num_classes" not in config["model_args"] and config["num_classes"] == 3
    assert config["label_names"] == ["circle", "cross", "stripes"]


def test_card_is_valid_and_tells_the_truth(model_hub, pushed, client):
    files = model_hub.files("alice/student")
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


def test_the_recipe_makes_the_same_student_again(model_hub, pushed, tiny, tmp_path):
    (tmp_path / "recipe.yaml").write_bytes(model_hub.files("alice/student")["recipe.yaml"])
    places = [*tiny[tiny.index("--dataset") :][:2], *tiny[tiny.index("--kd-model-name") :][:2]]
    done = run_program("-c", tmp_path / "recipe.yaml", *places, "--output", tmp_path, "--experiment", "again")
    assert done.returncode == 0, done.stderr
    again = tmp_path / "again" / "best" / "model.safetensors"
    assert again.read_bytes() == (pushed[0] / "best" / "model.safetensors").read_bytes()


# what is asked, by Xet and without it, and how it fails until the fault is over
FAULTS = {
    "create refused": (r"POST /api/repos/create", dict(status=503), "fault (503)"),
    "too many requests": (r"POST .*/preupload/", dict(status=429, headers={"Retry-After": "1"}), "429"),
    "no answer": (r"GET /api/whoami", dict(delay=1.2), "cannot be reached"),
    "upload cut": (r"POST /_xet/v1/xorbs|PUT /_lfs/", dict(cut=2000), ""),
    "busy": (
        r"POST /api/repos/create",
        dict(status=409, message="Cannot create repo: another conflicting operation is in progress"),
        "does not end (409)",
    ),
    "commit refused": (r"POST .*/commit/", dict(status=500), "fault (500)"),
    "commit cut": (r"POST .*/commit/", dict(drop=True), "cannot be reached"),
    "verification refused": (r"GET .*/tree/", dict(status=502), "fault (502)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_push_is_one_line_and_a_second_one_completes(model_hub, pushed, client, fault, tmp_path):
    if fault == "no answer" and client.xet:
        pytest.skip("the same client asks")
    match, what, cause = FAULTS[fault]
    run = pushed[0]
    if fault == "upload cut":  # other weights, or there is nothing to upload
        run = shutil.copytree(run, tmp_path / "run")
        weights = {
            k: v + client.xet + 1 for k, v in safetensors.torch.load_file(run / "best/model.safetensors").items()
        }
        safetensors.torch.save_file(weights, run / "best/model.safetensors")
    before = fingerprint(run)
    name = f"alice/{fault.replace(' ', '-')}-{'xet' if client.xet else 'lfs'}"
    model_hub.fail(match, times=1000, **what)
    words = (cause,) if fault == "no answer" else (cause, str(run / "best"), f"`dccd-timm push {run} {name}`")
    assert_failed(client.push(run, name, token=WRITE), *words)
    model_hub.faults.clear()
    done = client.push(run, name, token=WRITE)
    assert done.code == 0, done.text
    assert set(model_hub.files(name)) == PUBLISHED
    assert model_hub.files(name)["model.safetensors"] == (run / "best" / "model.safetensors").read_bytes()
    history = model_hub.history(name)
    assert client.push(run, name, token=WRITE).code == 0 and model_hub.history(name) == history  # again changes nothing
    assert fingerprint(run) == before


def test_a_short_fault_is_waited_for(model_hub, pushed, client):
    name = f"alice/short-{'xet' if client.xet else 'lfs'}"
    model_hub.fail(r"POST /api/repos/create", times=1, status=503)
    model_hub.fail(r"POST .*/commit/", times=1, status=503)
    assert client.push(pushed[0], name, token=WRITE).code == 0
    assert set(model_hub.files(name)) == PUBLISHED
    model_hub.fail(r"POST .*/commit/", times=1, drop=True, after=True)  # done, and the answer lost
    assert client.push(pushed[0], f"{name}-lost", token=WRITE).code == 0
    assert set(model_hub.files(f"{name}-lost")) == PUBLISHED


def test_tokens_names_and_folders(model_hub, pushed, client, tmp_path):
    run, repos = pushed[0], set(model_hub.repos)
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
    assert set(model_hub.repos) == repos


OTHER_WORK = {"README.md": b"# My own words", "optimizer.pt": b"a", "weights/epoch_12.pth": b"b", "config.json": b"{}",
              "dataset/train.bin": b"c", "report/thesis.pdf": b"d", "report/old.png": b"e"}  # fmt: skip


def test_a_repository_with_other_work_is_refused_and_with_the_flag_loses_nothing(model_hub, pushed, client):
    name = f"alice/work-{'xet' if client.xet else 'lfs'}"
    model_hub.create(name, "alice", "write", private=False)
    tree = {path: model_hub.record(content) for path, content in OTHER_WORK.items()}
    model_hub.commit(model_hub.repos[name], "refs/heads/main", tree, "old")
    done = client.push(pushed[0], name, "--hub-revision", "v2", token=WRITE)
    assert_failed(done, f"cannot push to {name}", "README.md, config.json", "--hub-overwrite")
    assert set(model_hub.repos[name]["refs"]) == {"refs/heads/main"} and model_hub.files(name) == OTHER_WORK
    done = client.push(pushed[0], name, "--hub-revision", "v2", "--hub-overwrite", token=WRITE)
    assert done.code == 0 and "public (as it was before" in done.text
    assert "README.md of" in done.text and "stays: no push of dccd-timm wrote it as it is" in done.text
    assert "replaced (no push of dccd-timm wrote it): config.json" in done.text
    files = model_hub.files(name, "v2")
    assert set(files) == PUBLISHED - {".gitattributes"} | set(OTHER_WORK)
    assert {path for path, content in OTHER_WORK.items() if files[path] != content} == {"config.json"}
    assert model_hub.files(name) == OTHER_WORK


def test_a_push_deletes_what_an_earlier_one_wrote_and_an_edited_readme_stays(model_hub, pushed, client, tmp_path):
    name = f"alice/again-{'xet' if client.xet else 'lfs'}"
    run = shutil.copytree(pushed[0], tmp_path / "run")
    assert client.push(run, name, token=WRITE).code == 0
    ours = {path: model_hub.record(content) for path, content in model_hub.files(name).items()}
    theirs = {"README.md": b"# Edited", "report/mine.png": b"mine", "report/classes.png": b"better", "old.pth": b"old"}
    changed = ours | {path: model_hub.record(content) for path, content in theirs.items()}
    model_hub.commit(model_hub.repos[name], "refs/heads/main", changed, "by hand")
    for picture in ("channels", "classes"):
        (run / "report" / f"{picture}.png").unlink()
    for again in range(2):
        done = client.push(run, name, token=WRITE)
        assert done.code == 0 and "README.md of" in done.text, done.text
        files = model_hub.files(name)
        assert set(files) == PUBLISHED - {"report/channels.png"} | set(theirs)
        assert {path: files[path] for path in theirs} == theirs
        assert ("deleted (an earlier push wrote it): report/channels.png" in done.text) is not bool(again)
        assert ("not deleted (it changed" in done.text) is not bool(again)
    assert len(model_hub.history(name)) == 4  # the last push found nothing to change


def test_a_push_of_the_version_without_manifest_is_known_by_its_card(model_hub, pushed, client):
    name = f"alice/earlier-{'xet' if client.xet else 'lfs'}"
    assert client.push(pushed[0], name, token=WRITE).code == 0
    files = model_hub.files(name) | {"notes.md": b"mine"}
    tree = {path: model_hub.record(content) for path, content in files.items() if path != ".dccd-push.json"}
    model_hub.commit(model_hub.repos[name], "refs/heads/main", tree, "resnetv2_18, dccd, top-1 50.00 %")
    assert client.push(pushed[0], name, token=WRITE).code == 0
    assert model_hub.files(name) == files


def test_other_work_is_found_before_the_training(model_hub, tiny, tmp_path):
    model_hub.create("alice/busy", "alice", "write", private=True)
    model_hub.commit(model_hub.repos["alice/busy"], "refs/heads/main", {"a.bin": model_hub.record(b"a")}, "mine")
    done = run_program(
        *tiny, "--push-to-hub", "alice/busy", "--output", tmp_path / "out", env=model_hub.environment(tmp_path, WRITE)
    )
    assert_one_line(done, "cannot push to alice/busy", "(a.bin)", "--hub-overwrite")
    assert not (tmp_path / "out").exists()


def test_a_bug_is_said_as_such_is_not_tried_again_and_leaves_its_traceback(model_hub, pushed, client, tmp_path):
    run = shutil.copytree(pushed[0], tmp_path / "run")
    name = f"alice/bug-{'xet' if client.xet else 'lfs'}"
    code = (
        "import dccd_timm.hub.push as p; from dccd_timm.cli import push_main\n"
        "def fail(*args): print('tried'); raise RuntimeError('a bug in the card')\n"
        "kept, p.check_card = p.check_card, fail\n"
        "try: push_main(words.split(' '))\n"
        "finally: p.check_card = kept"
    )
    done = client.do(code, WRITE, words=f"{run} {name}")
    assert_failed(done, "a bug of dccd-timm", "a bug in the card", f"its traceback is in {run / 'errors.log'}")
    assert done.text.count("tried") == 1 and name not in model_hub.repos and "again in" not in done.text
    assert "RuntimeError: a bug in the card" in (run / "errors.log").read_text()


def test_damaged_weights_and_a_wrong_license_leave_no_repository(model_hub, pushed, client, tmp_path):
    run, name = shutil.copytree(pushed[0], tmp_path / "run"), f"alice/no-{'xet' if client.xet else 'lfs'}"
    model_hub.fail("POST /api/validate-yaml", times=1, status=400, message='"license" must be one of [mit]')
    assert_failed(client.push(run, name, "--hub-license", "GPL-3", token=WRITE), "--hub-license GPL-3", "mean gpl-3.0?")
    weights = run / "best" / "model.safetensors"
    for content in (weights.read_bytes()[:-100], b"version https://git-lfs.github.com/spec/v1\n"):
        weights.write_bytes(content)
        assert_failed(client.push(run, name, token=WRITE), "nothing to push", "damaged or cut short")
    assert name not in model_hub.repos


def test_a_token_that_may_not_write_is_told_before_the_training(model_hub, tiny, tmp_path):
    done = run_program(
        *tiny, "--push-to-hub", "alice/early", "--output", tmp_path / "out", env=model_hub.environment(tmp_path, READ)
    )
    assert_one_line(done, "may only read")
    assert not (tmp_path / "out").exists()


def test_the_report_is_drawn_again_beside_another_run(pushed, teacher, client, tmp_path):
    if not client.xet:
        pytest.skip("once is enough")
    run = shutil.copytree(pushed[0], tmp_path / "run")
    before = json.loads((run / "report" / "report.json").read_text())
    for picture in (run / "report").glob("*.png"):
        picture.unlink()
    again = "from dccd_timm.cli import report_main; report_main(words.split(' '))"
    done = client.do(again, words=f"{run} --against {teacher.parent}")
    assert done.code == 0, done.text
    assert json.loads((run / "report" / "report.json").read_text()) == before
    after = json.loads((run / "against-t" / "report" / "report.json").read_text())
    assert {p.stem for p in (run / "against-t" / "report").glob("*.png")} == set(PICTURES)
    assert after["redundancy"]["student_teacher"].pop("control") > 0.9  # it is the teacher
    for word in ("teacher", "student", "student_before_training", "student_teacher"):
        assert after["redundancy"][word] == before["redundancy"][word]
    assert after["control"]["top1"] == after["teacher"]["top1"] and after["control"]["label"] == "t (none)"
    assert_failed(client.do(again, words=tmp_path), "holds no finished run")
