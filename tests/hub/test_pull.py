"""``dccd-timm pull``: a published student arrives whole, without code, or not at all and with one line."""

import pytest
import safetensors.torch
import torch

from tests.conftest import READ
from tests.fakes.model_hub.client import assert_failed

STUDENT = {
    "config.json": b'{"architecture": "test_resnet"}',
    "model.safetensors": safetensors.torch.save({"weight": torch.zeros(2)}),
    "README.md": b"card",
    "recipe.yaml": b"epochs: 1",
    "report/report.json": b"{}",
}
CODE = {"my_models.py": b"print()", "pytorch_model.bin": b"x", "setup.sh": b"x", "sub/model.pth": b"x"}


@pytest.fixture
def published(model_hub, client):
    """Makes a repository with these files; a name of its own for each client."""
    model_hub.faults.clear()

    def publish(name, files):
        repo_id = f"alice/{name}-{'xet' if client.xet else 'lfs'}"
        model_hub.create(repo_id, "alice", "write", private=False)
        tree = {path: model_hub.record(content) for path, content in files.items()}
        model_hub.commit(model_hub.repos[repo_id], "refs/heads/main", tree, "x")
        return repo_id

    return publish


def test_a_student_arrives_without_code_and_without_a_token(published, client, tmp_path):
    name = published("pulled", STUDENT | CODE)
    for number, words in enumerate((name, f"hf-hub:{name}@main")):
        target = tmp_path / "students" / str(number)
        done = client.pull(words, target)
        assert done.code == 0 and f"into {target}" in done.text, done.text
        assert f"evaluate it: dccd-timm validate {target} --data-dir FOLDER\n" in done.text
        arrived = {p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*") if p.is_file()}
        assert arrived == STUDENT
        assert [p.name for p in target.parent.iterdir() if p.name.startswith(".")] == []
    assert_failed(client.pull(name, target), f"cannot pull {name} into {target}, which exists: give a new folder")
    own = published("own", STUDENT | {"config.json": b'{"architecture": "net", "registered_by": "my_nets"}'})
    done = client.pull(own, tmp_path / "own")
    assert f"evaluate it: dccd-timm validate {tmp_path / 'own'} --import my_nets --data-dir FOLDER\n" in done.text


def test_what_cannot_be_pulled_is_one_line_and_leaves_nothing(published, client, model_hub, tmp_path):
    name = published("whole", STUDENT)
    bare = published("bare", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    damaged = published("damaged", STUDENT | {"model.safetensors": b"version https://git-lfs"})
    target = tmp_path / "student"
    for words, said in (
        ("alice/nowhere-at-all", "it does not exist, or is private: check the name"),
        (f"{name} {target} --hub-revision v9", "it has no branch, tag or commit v9"),
        (f"{bare} {target}", "it is no timm student: it has no model.safetensors"),
        (f"{damaged} {target}", "its model.safetensors is damaged"),
        (f"a/b/c {target}", "give owner/name"),
    ):
        assert_failed(client.pull(*words.split(" "), token=READ), said)
    model_hub.fail("/api/models/", times=1000, status=503)
    assert_failed(client.pull(name, target), "the Hub has a fault (503)")
    assert not list(tmp_path.iterdir())
