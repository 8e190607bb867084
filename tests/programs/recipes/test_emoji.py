"""The script that makes the emoji data, on packages of a few drawings."""

import importlib.util
import io
import json
import sys

import datasets
import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT

TONES = ("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_emoji", ROOT / "recipes" / "emoji" / "make_data.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_emoji"] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """12 hands with skin tones, 8 birds of which one has no drawing by Google, and a class of two."""
    root, emoji = tmp_path_factory.mktemp("packages"), []
    for label, count in (("hand", 12), ("bird", 8), ("rare", 2)):
        for number in range(count):
            name = f"{label}-{number}"
            drawn = {"has_img_google": name != "bird-3", "has_img_twitter": True, "image": f"{name}.png"}
            tones = {tone: drawn | {"image": f"{name}-{tone}.png"} for tone in TONES} if label == "hand" else {}
            tones |= {"1F3FB-1F3FC": drawn | {"image": f"{name}-two.png"}} if label == "hand" else {}
            emoji.append(drawn | {"subcategory": label, "sort_order": number, "skin_variations": tones})
    for artist in ("google", "twitter"):
        folder = root / f"emoji-datasource-{artist}"
        (folder / "img" / artist / "64").mkdir(parents=True)
        (folder / "emoji.json").write_text(json.dumps(emoji))
        for one in emoji:
            for drawn in (one, *one["skin_variations"].values()):
                if drawn[f"has_img_{artist}"]:
                    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
                    image.paste((200, 40, 20, 255), (16, 16, 48, 48))
                    image.save(folder / "img" / artist / "64" / drawn["image"])
    return root


def test_no_drawing_and_no_skin_tone_is_in_both_splits(script, packages):
    drawings = script.read_drawings(packages, 6, 0)
    assert all(drawing.path.is_file() for drawing in drawings)
    assert {drawing.label for drawing in drawings} == {"hand", "bird"}  # two are too few
    splits = {"train": {}, "test": {}}
    for drawing in drawings:
        emoji, _, tone = drawing.path.stem.removeprefix("hand-").partition("-")
        own = drawing.path.stem if drawing.label == "bird" else f"hand-{emoji}"
        splits[drawing.split].setdefault((own, drawing.path.parts[-3]), set()).add(tone)
    assert not splits["train"].keys() & splits["test"].keys()
    assert splits["train"].keys() | splits["test"].keys() == {
        (f"{label}-{number}", artist)
        for label, count in (("hand", 12), ("bird", 8))
        for number in range(count)
        for artist in ("google", "twitter")
        if (label, number, artist) != ("bird", 3, "google")
    }
    hands = {split: [tones for (own, _), tones in found.items() if "hand" in own] for split, found in splits.items()}
    assert all(tones == {"", "1F3FB", "1F3FD", "1F3FF"} for tones in hands["train"]) and hands["train"]
    assert all(tones == {"", "1F3FC", "1F3FE"} for tones in hands["test"]) and hands["test"]
    tested = [own for own, _ in splits["test"]]
    assert len(tested) == len(set(tested))  # the other artist's drawing is in training
    assert {artist for _, artist in splits["test"]} == {"google", "twitter"}
    assert drawings == script.read_drawings(packages, 6, 0) != script.read_drawings(packages, 6, 1)


def test_the_files_have_classes_and_drawings_on_white(script, packages, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["make_data.py", "--packages", str(packages), "--out", str(tmp_path)])
    script.main()
    files = {split: str(tmp_path / "data" / f"{split}-00000-of-00001.parquet") for split in ("train", "test")}
    found = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert found["train"].features["label"].names == ["bird", "hand"]
    pixels = np.asarray(found["test"][0]["image"])
    assert pixels.shape == (64, 64, 3) and (pixels[0, 0] == 255).all() and list(pixels[32, 32]) == [200, 40, 20]
    card = (tmp_path / "README.md").read_text()
    assert f"{len(found['train'])} for training" in card and "Apache License 2.0" in card and "cc-by-4.0" in card
    monkeypatch.setattr(sys, "argv", ["make_data.py", "--packages", str(tmp_path), "--out", str(tmp_path / "x")])
    monkeypatch.setattr(sys, "stderr", said := io.StringIO())
    with pytest.raises(SystemExit, match="2"):
        script.main()
    assert "has no emoji-datasource-google: npm install it" in said.getvalue() and not (tmp_path / "x").exists()
