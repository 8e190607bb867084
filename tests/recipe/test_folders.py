"""A name that can only be meant as a folder is never looked up on the Hub: its typing error would wait for a minute.

And a folder that is not there is said before anything is opened."""

import logging
import re
import time

import pytest

from dccd_timm import network
from dccd_timm.data.sources import hfids, open_split
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from dccd_timm.recipe.folders import check_data_folder, check_model_folder


@pytest.mark.parametrize("origin", ["hfids", "hfds"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("data/flowrs", "; did you mean {origin}/data/flowers?"),
        ("data/zebras", "data folder data/zebras does not exist"),
        ("./flowers", "data folder ./flowers does not exist"),
        ("../no-such-folder", "does not exist"),
        (".flowers", "does not exist"),
        ("/no/such/folder", "data folder /no/such/folder does not exist"),
        ("~/flowers", "does not exist"),
        ("./data/flowrs", "did you mean {origin}/data/flowers?"),
        ("a/b/c", "data folder a/b/c does not exist"),
        ("https://huggingface.co/datasets/alice/good", "is an address: the data set is {origin}/alice/good"),
        ("alice/good@v1", "of {origin}/alice/good is --dataset-revision v1"),
    ],
)  # fmt: skip
def test_it_is_said_at_once(origin, name, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    (tmp_path / "data" / "flowers").mkdir(parents=True)
    recipe = load_recipe(["--dataset", f"{origin}/{name}"])
    begin = time.monotonic()
    with pytest.raises(UserError) as caught:
        open_split(recipe, "train", True, None)
    assert said.format(origin=origin) in str(caught.value) and "\n" not in str(caught.value)
    assert time.monotonic() - begin < 10  # the first of these imports datasets


def test_a_folder_below_the_data_dir_has_a_near_one_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root" / "sets" / "flowers").mkdir(parents=True)
    recipe = load_recipe(["--dataset", "hfids/sets/flowes", "--data-dir", "root"])
    with pytest.raises(UserError, match="data folder sets/flowes does not exist.*did you mean hfids/root/sets/flowers"):
        open_split(recipe, "train", True, None)


@pytest.mark.parametrize("origin", ["hfids", "hfds"])
def test_a_hub_that_does_not_answer_is_waited_for_with_a_line(origin, monkeypatch, caplog, tmp_path):
    import datasets

    def answer(*_, **__):
        time.sleep(0.3)
        raise ConnectionError("no answer")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(network, "_ANNOUNCED", (0.05,))
    monkeypatch.setattr(hfids, "is_offline", lambda: False)
    monkeypatch.setattr(datasets, "load_dataset_builder", answer)
    caplog.set_level(logging.INFO)
    timeout = ["--data-timeout", "1"] if origin == "hfids" else []
    with pytest.raises(UserError, match="no answer"):
        open_split(load_recipe(["--dataset", f"{origin}/alice/flowers", *timeout]), "train", True, None)
    assert any(line.startswith("data set ") and "waiting for" in line for line in caplog.messages)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--data-dir flowrs", "data folder flowrs does not exist; did you mean flowers?"),
        ("--data-dir no/flowers", "data folder no/flowers does not exist"),
        ("--dataset torch/folder --data-dir flowrs", "did you mean flowers?"),
        ("--model resnet18", "no data: set --data-dir"),
        ("--dataset hfids/./flowrs", "did you mean hfids/flowers?"),
        ("--dataset hfids/flowers", None),
        ("--dataset alice/good", None),  # refused when it is opened, since it names no reader
        ("--dataset torch/cifar10 --data-dir new --dataset-download", None),
        ("--data-dir flowers", None),
    ],
)
def test_a_data_folder_is_looked_at_before_it_is_opened(flags, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowers").mkdir()
    recipe = load_recipe(flags.split())
    if said is None:
        check_data_folder(recipe)
    else:
        with pytest.raises(UserError, match=re.escape(said)):
            check_data_folder(recipe)


def test_a_model_folder_that_is_not_there_or_a_run_is_said_with_the_one_that_is_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    best = tmp_path / "runs" / "teacher" / "best"
    best.mkdir(parents=True)
    (best / "config.json").write_text("{}")
    for name in (None, "resnet18", "hf-hub:alice/x", "local-dir:runs/teacher/best"):
        check_model_folder(name, "teacher")
    for name, said in (
        ("local-dir:runs/teacher", "has no config.json; did you mean local-dir:runs/teacher/best?"),
        ("local-dir:runs", "has no config.json; give an exported model, such as a run's best/"),
        ("local-dir:runs/techer", "runs/techer does not exist; did you mean local-dir:runs/teacher?"),
        ("local-dir:nowhere/best", "nowhere/best does not exist"),
    ):
        with pytest.raises(UserError, match=f"^teacher {name}: .*{re.escape(said)}$"):
            check_model_folder(name, "teacher")
