"""dccd-timm cache says what a folder holds, and asks the teacher again."""

import re

import pytest

from dccd_timm.cache.identity import Identity
from dccd_timm.cache.store import AnswerStore
from dccd_timm.cli import main
from dccd_timm.errors import UserError
from dccd_timm.run.cache_report import show_cache
from tests.run.test_cache import SIZE

# A whole training: not part of the unit ring.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_pictures", "fresh_accelerator")]


def test_a_folder_is_described_and_verified(run, capsys):
    run("fill", "--epochs", 2, "--dccd-view-aug", "near")
    folder = run.folder / "answers"
    capsys.readouterr()
    run.forget()
    show_cache(folder, verify=7)
    text = capsys.readouterr().out
    for line in (
        r"teacher    local-dir:\S+teacher, 0.373 M parameters, weights [0-9a-f]{12}",
        r"data       24 images, fingerprint [0-9a-f]{12}",
        "views      2 of each image, seed 42, epoch e has those of epoch e mod 2",
        "answers    logits of 3 classes, map 48x6x6 of stage 2, float32",
        "there      epoch 1: 24 images, epoch 2: 24 images",
        rf"on disk    {SIZE} in 2 files, {SIZE} an image, {SIZE} left",
        r"verified   7 images, largest difference \S+ % of the largest logit or feature",
    ):
        assert re.search(line, text), text
    assert "damaged" not in text
    # answers that are whole, but not the teacher's
    store = AnswerStore(folder)
    store.writes = True
    for shard in list(store.shards.values()):
        rows = {name: values.clone() for name, values in shard.rows.items()}
        rows["logits"] += 0.1
        store.add(shard.seeds, shard.epochs, rows)
    store.flush()
    run.forget()
    with pytest.raises(UserError, match=r"answers differ from those that are kept by \S+ % of the largest"):
        show_cache(folder, verify=7)
    identity = Identity.read(folder)
    identity.belongs["teacher"]["weights"] = "0" * 64
    identity.write(folder)
    run.forget()
    with pytest.raises(UserError, match="has other weights than the teacher whose answers"):
        show_cache(folder, verify=1)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["/nowhere"], "/nowhere is no folder"),
        (["{folder}"], "holds no answers of a teacher: it has no answers.json"),
        (["{folder}", "--verify", "-1"], "--verify -1: give a number of images"),
    ],
)
def test_mistakes_are_one_line(words, line, tmp_path, capsys):
    with pytest.raises(SystemExit) as info:
        main(["cache", *(word.format(folder=tmp_path) for word in words)])
    assert info.value.code == 2 and line in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
