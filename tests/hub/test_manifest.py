"""What a push may delete and replace: what an earlier one wrote, and nothing else."""

import hashlib
import json

import pytest
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import GitCommitInfo, RepoFile

from dccd_timm.errors import UserError
from dccd_timm.hub.manifest import CARD, CARD_MARK, MANIFEST, Contents, manifest
from dccd_timm.hub.target import Target
from tests.test_network import response

TARGET = Target("alice/s")
OURS = {CARD: b"our card", "report/old.png": b"old", "config.json": b"{}"}


class Api:
    """A repository as the client shows it: commits, oldest first, each a title and files; PNGs are large files."""

    def __init__(self, *commits):
        self.commits = commits

    def list_repo_tree(self, repo_id, recursive=False, revision=None):
        if not self.commits:
            raise RepositoryNotFoundError("none", response=response(404))
        if revision == "v2":
            raise RevisionNotFoundError("none", response=response(404))
        for path, content in self._files(revision).items():
            sha256 = hashlib.sha256(content).hexdigest()
            lfs = {"size": 1, "oid": sha256, "pointerSize": 1} if path.endswith(".png") else None
            yield RepoFile(path=path, size=len(content), oid=hashlib.sha1(content).hexdigest(), lfs=lfs)

    def _files(self, revision):
        return self.commits[int(revision) if revision else -1][1]

    def hf_hub_download(self, repo_id, path, revision, local_dir):
        assert not path.endswith(".png")  # the listing has their hashes
        target = f"{local_dir}/{path.replace('/', '-')}"
        with open(target, "wb") as file:
            file.write(self._files(revision)[path])
        return target

    def list_repo_commits(self, repo_id, revision):
        rows = [(str(number), title) for number, (title, _) in enumerate(self.commits)]
        more = dict(authors=[], created_at=None, message="", formatted_title=None, formatted_message=None)
        return [GitCommitInfo(commit_id=number, title=title, **more) for number, title in reversed(rows)]


def contents(*commits, target=TARGET):
    return Contents.read_from(Api(*commits), target)


def with_manifest(files, tmp_path, **changed):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    text = manifest({name: tmp_path / name for name in files})
    return {".gitattributes": b"", **files, MANIFEST: text.encode(), **changed}


def test_a_new_repository_and_an_empty_one_take_everything():
    for found in (contents(), contents(("initial commit", {".gitattributes": b""}))):
        found.refuse_foreign(TARGET)
        assert found.keeps_card() is None and found.stale(["a"]) == ([], []) and found.overwritten(["a"]) == []


def test_other_work_is_refused_unless_told_and_its_readme_stays():
    found = contents(("x", {".gitattributes": b"", CARD: b"mine", "optimizer.pt": b"o", "config.json": b"{}"}))
    with pytest.raises(UserError, match=r"\(README.md, config.json, optimizer.pt\): give another name, or --hub-overw"):
        found.refuse_foreign(TARGET)
    found.refuse_foreign(Target("alice/s", overwrite=True))
    assert found.keeps_card() == "no push of dccd-timm wrote it as it is"
    assert found.stale(["config.json"]) == ([], []) and found.overwritten(["config.json", "a"]) == ["config.json"]


def test_many_files_are_counted():
    found = contents(("x", {f"{k}.bin": b"" for k in range(9)}))
    with pytest.raises(UserError, match="0.bin, 1.bin, 2.bin, 3.bin, 4.bin and 4 more"):
        found.refuse_foreign(TARGET)


def test_only_what_a_push_wrote_and_nobody_changed_is_stale(tmp_path):
    files = OURS | {"report/new.png": b"n", "notes.json": b"1", "kept.json": b"2"}
    changed = {"report/new.png": b"changed", "notes.json": b"changed", "weights.png": b"theirs"}
    found = contents(("x", with_manifest(files, tmp_path, **changed)))
    found.refuse_foreign(TARGET)
    assert found.keeps_card() is None
    assert found.stale(["config.json"]) == (["kept.json", "report/old.png"], ["notes.json", "report/new.png"])
    assert found.overwritten(["config.json", "weights.png"]) == ["weights.png"]


def test_a_readme_that_somebody_edited_after_the_push_stays_for_good(tmp_path):
    found = contents(("x", with_manifest(OURS, tmp_path, **{CARD: b"our card, and more"})))
    assert found.keeps_card() == "it was edited after the last push"
    without_card = {name: content for name, content in OURS.items() if name != CARD}
    found = contents(("x", with_manifest(without_card, tmp_path, **{CARD: b"our card, and more"})))
    assert found.keeps_card() == "no push of dccd-timm wrote it as it is"  # after the push that left it alone


def test_a_push_without_manifest_is_known_by_its_card():
    card = f"# s\n{CARD_MARK}\n".encode()
    pushed = ("resnet18, dccd, top-1 70.12 %", {CARD: card, "report/old.png": b"old"})
    found = contents(("initial commit", {}), pushed, ("Upload x", {**pushed[1], "x": b""}))
    found.refuse_foreign(TARGET)
    assert found.keeps_card() is None
    assert found.stale([]) == ([], []) and found.overwritten(["x"]) == []  # nobody knows who wrote what
    edited = ("Update README.md", {CARD: card + b"My words"})
    for commits in ((pushed, edited), (("Upload folder", pushed[1]),)):
        assert contents(*commits).keeps_card() == "it was edited after the last push"


def test_a_new_branch_will_be_a_copy_of_the_main_one(tmp_path):
    found = contents(("x", with_manifest(OURS, tmp_path)), target=Target("alice/s", revision="v2"))
    assert found.stale([]) == (["config.json", "report/old.png"], [])


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"files": 3}', b"\xff"])
def test_with_a_manifest_that_somebody_broke_nothing_is_deleted(text):
    found = contents(("x", OURS | {MANIFEST: text}))
    assert found.stale([]) == ([], []) and found.keeps_card() == "no push of dccd-timm wrote it as it is"


def test_a_manifest_names_files_with_their_hashes(tmp_path):
    files = json.loads(with_manifest(OURS, tmp_path)[MANIFEST])["files"]
    assert files == {name: hashlib.sha256(content).hexdigest() for name, content in OURS.items()}
