"""Model names in their parts, as timm reads them."""

import pytest
from timm.models import parse_model_name

from dccd_timm.recipe.model_name import ModelName

NAMES = [
    # text, source, place, revision, short
    ("resnet18.a1_in1k", "timm", "resnet18.a1_in1k", None, "resnet18.a1_in1k"),
    ("hf-hub:alice/student", "hf-hub", "alice/student", None, "student"),
    ("hf-hub:alice/student@v1.2", "hf-hub", "alice/student", "v1.2", "student@v1.2"),
    ("local-dir:/data/run/best", "local-dir", "/data/run/best", None, "best"),
    ("local-dir:odd@place/a:b/", "local-dir", "odd@place/a:b/", None, "a:b"),
]


@pytest.mark.parametrize(("text", "source", "place", "revision", "short"), NAMES)
def test_parts(text, source, place, revision, short):
    name = ModelName.parse(text)
    assert (name.source, name.place, name.revision, name.short) == (source, place, revision, short)
    assert name.timm_name == text
    assert name.is_private == (source == "local-dir") and name.brings_weights == (source != "timm")
    assert parse_model_name(text)[0] == (None if source == "timm" else source)


def test_timms_older_spelling_is_the_hub():
    assert ModelName.parse("HF_hub:alice/student") == ModelName.parse("hf-hub:alice/student")


@pytest.mark.parametrize("text", ["s3:bucket", "local-dir:", "owner/name"])
def test_what_timm_refuses_stays_as_it_is_for_timm_to_say(text):
    assert ModelName.parse(text).timm_name == text
    with pytest.raises(ValueError, match="nknown model source|no model id|no source prefix"):
        parse_model_name(text)


def test_a_runs_folder_is_its_best_student(tmp_path):
    best = tmp_path / "run" / "best"
    best.mkdir(parents=True)
    (best / "config.json").write_text("{}")
    for text in (tmp_path / "run", best, f"local-dir:{best}"):
        assert ModelName.exported(str(text)) == ModelName("local-dir", str(best))
    assert ModelName.exported("resnet18") == ModelName("timm", "resnet18")
