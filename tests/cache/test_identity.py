"""A folder of answers is refused where they belong to something else, with the names of what differs."""

import re

import pytest

from dccd_timm.cache.identity import FILE, Identity, TeacherFacts, differences
from dccd_timm.errors import UserError

FACTS = TeacherFacts(
    options={"kd_model_name": "local-dir:t"}, files="f", num_classes=3, num_parameters=5, has_features=True, input_size=(3, 8, 8), sees="", stages=[(4, 2, 2)],
    gmacs=0.1, draws=7, network={"name": "t"},
)  # fmt: skip
BELONGS = {
    "views": {"seed": 42, "scale": (0.08, 1.0), "aa": None, "mean": (0.5,)},
    "teacher": {"weights": "a" * 64},
    "data": {"classes": ["a", "b"]},
}


@pytest.fixture
def folder(tmp_path):
    Identity(belongs=BELONGS, teacher=FACTS, images=9).write(tmp_path)
    return tmp_path


def test_it_comes_back(folder, tmp_path):
    found = Identity.read(folder)
    assert found.teacher == FACTS and found.images == 9
    found.check(BELONGS, folder)
    found.check({"teacher": {"weights": "a" * 64}}, folder)  # some subjects only
    assert Identity.read(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"views": {**BELONGS["views"], "seed": 1}},
            "differs in views seed 42 -> 1: give another folder to --kd-cache",
        ),
        ({"views": {**BELONGS["views"], "scale": (0.5, 1.0)}}, "views scale 0.08 1 -> 0.5 1"),
        ({"views": {**BELONGS["views"], "aa": "augmix"}}, "views aa none -> augmix"),
        ({"teacher": {"weights": "b" * 64}}, "teacher weights aaaaaaaaaaaa -> bbbbbbbbbbbb"),
        (
            {"data": {"classes": ["a", "c"]}, "teacher": {}},
            "data classes a b -> a c, teacher weights aaaaaaaaaaaa -> none",
        ),
    ],
)
def test_what_differs_is_named(change, line, folder):
    with pytest.raises(UserError, match=re.escape(line)) as info:
        Identity.read(folder).check(change, folder)
    assert str(folder) in str(info.value) and "\n" not in str(info.value)


def test_many_differences_are_counted():
    assert len(differences(dict.fromkeys("abcdef", 0), dict.fromkeys("abcdef", 1))) == 6


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 99}', '{"version": 1, "images": 3}'])
def test_another_file_is_refused(text, tmp_path):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match="does not describe a teacher's answers"):
        Identity.read(tmp_path)
