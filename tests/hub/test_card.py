"""The card of runs that need not be run: lineage, licenses, words that could break it."""

import json
import logging
import re
import tomllib
from pathlib import Path

import pytest
import timm
import yaml
from huggingface_hub import ModelCard

from dccd_timm.errors import UserError
from dccd_timm.hub.card import TEMPLATE, Card
from dccd_timm.hub.manifest import CARD_MARK
from dccd_timm.recipe import load_recipe
from dccd_timm.recipe.methods import METHODS, Method


@pytest.fixture
def run(tmp_path):
    """A function that writes a run's folder with these facts and settings."""

    def write(start=None, teacher=None, flags=(), **report):
        recipe = load_recipe(["--dataset", "hfids/uoft-cs/cifar10", "--kd-model-name", "resnet34", "--model", "resnet18",
                              "--kd-distill-type", "dccd", *flags])  # fmt: skip
        settings = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(recipe).items()}
        student = {"name": "resnet18", "top1": 70.125, "top5": 90, "parameters_m": 11.7, "method": "dccd"}
        student |= {"start": start} if start else {}
        facts = {"method": "dccd", "epochs": 2, "best_epoch": 1, "student": student}
        facts["teacher"] = {"name": "resnet34", "parameters_m": 21.8, "top1": 75, "top5": 92} | (teacher or {})
        config = {"architecture": "resnet18", "num_classes": 10, "pretrained_cfg": {"input_size": [3, 224, 224]}}
        for path, text in (("args.yaml", yaml.safe_dump(settings)), ("best/config.json", json.dumps(config)),
                           ("report/report.json", json.dumps(facts | report))):  # fmt: skip
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(text)
        return tmp_path

    return write


def front(card):
    return ModelCard(card.text()).data.to_dict()


def test_a_network_of_the_authors_own_says_what_timm_needs_and_that_no_code_is_published(run):
    folder = run(flags=["--import", "/home/alice/my_models.py"])
    plain = Card(folder).text()
    config = json.loads((folder / "best/config.json").read_text())
    config |= {"architecture": "my_net", "registered_by": "my_models"}
    (folder / "best/config.json").write_text(json.dumps(config))
    card = Card(folder, "alice/student")
    assert "plain timm loads it" in plain and "plain timm loads it" not in card.text()
    assert (
        "timm loads it once its author's module `my_models`, which registers `my_net`, has been imported" in card.text()
    )
    assert re.search(r"^import my_models  # its author's", card.text(), re.MULTILINE)
    assert "my_models.py is imported first (--import) and is not published" in card.text()
    assert "/home/alice" not in card.text() + card.recipe() + card.args()
    assert "transformers" not in front(card)["tags"]


def test_base_model_is_what_the_student_started_from_and_the_teacher_is_not(run):
    teacher = {"hub_id": "timm/resnet34.tv_in1k", "license": "bsd-3-clause"}
    card = Card(run(teacher=teacher), "alice/student")
    data = front(card)
    assert "base_model" not in data and data["teacher"] == "timm/resnet34.tv_in1k"
    assert "teacher:timm/resnet34.tv_in1k" in data["tags"] and data["datasets"] == ["uoft-cs/cifar10"]
    assert "https://huggingface.co/timm/resnet34.tv_in1k" in card.text() and "from scratch" in card.text()
    result = data["model-index"][0]["results"][0]
    assert (result["dataset"]["type"], result["metrics"][0]["value"]) == ("uoft-cs/cifar10", 70.12)
    data = front(Card(run(start={"name": "x", "hub_id": "timm/resnet18.a1_in1k"}, teacher=teacher), "alice/student"))
    assert (data["base_model"], data["base_model_relation"]) == ("timm/resnet18.a1_in1k", "finetune")


@pytest.mark.parametrize(
    ("theirs", "chosen", "license", "warns"),
    [
        (None, None, None, False),
        ("bsd-3-clause", None, "apache-2.0", False),  # the start's
        ("bsd-3-clause", "mit", "mit", False),
        ("cc-by-nc-4.0", None, "cc-by-nc-4.0", False),
        ("cc-by-nc-4.0", "apache-2.0", "apache-2.0", True),
    ],
)
def test_license_is_chosen_or_the_strictest_source(run, caplog, theirs, chosen, license, warns):
    start = {"name": "x", "hub_id": "timm/x", "license": "apache-2.0"} if theirs else None
    with caplog.at_level(logging.WARNING):
        card = Card(run(start=start, teacher={"license": theirs} if theirs else None), "alice/student", chosen)
    assert front(card).get("license") == license
    assert bool(caplog.records) is warns
    assert ("No license is stated" in card.text()) is (license is None)


def test_what_came_from_the_hub_is_pinned_in_the_recipe(run):
    teacher, start = ({"name": n, "hub_id": n, "commit": c * 40} for n, c in (("bob/teacher", "c"), ("eve/start", "d")))
    flags = ["--kd-model-name", "hf-hub:bob/teacher", "--model", "hf-hub:eve/start", "--pretrained"]
    recipe = yaml.safe_load(Card(run(start, teacher, flags), "alice/student").recipe())
    assert recipe["kd_model_name"] == f"hf-hub:bob/teacher@{'c' * 40}"
    assert recipe["model"] == f"hf-hub:eve/start@{'d' * 40}"


def test_words_cannot_break_the_front_matter(run):
    data = front(Card(run(teacher={"name": "a: [b\n---\nlicense: mit"}), "alice/student", "x\ny: ["))
    assert data["license"] == "x\ny: [" and data["teacher"] == "a: [b\n---\nlicense: mit"


def test_the_card_of_an_unfinished_training_says_so(run):
    assert "training is not finished" in Card(run(complete=False), "alice/student").text()
    assert "training is not finished" not in Card(run(), "alice/student").text()


def test_a_new_method_and_a_new_term_stand_in_the_card(run, monkeypatch):
    method = Method("mirror", "mirrors", ("task_loss", "mirror_loss"), ("logits",))
    monkeypatch.setitem(METHODS, "mirror", method)
    card = Card(run(method="mirror", terms={"task_loss": 1.0, "mirror_loss": 0.125}), "alice/student")
    assert "distilled by mirrors from resnet34" in card.text()
    assert "| `task_loss` | 1 |\n| `mirror_loss` | 0.125 |" in card.text()
    assert card.headline() == "resnet18, mirror, top-1 70.12 %"


def test_teacher_student_and_control_stand_side_by_side(run):
    control = {"name": "resnet18", "parameters_m": 11.7, "top1": 65, "top5": 88, "label": "student by KD on logits"}
    ranks = {"student": {"effective_rank": 5.25, "channels": 10}}
    text = Card(run(control=control, redundancy=ranks), "alice/student").text()
    assert "| teacher (resnet34) | 21.800 M | 75.00 | 92.00 |" in text
    assert "| **student** (resnet18) | 11.700 M | 70.12 | 90.00 | | 5.2 of 10 |" in re.sub(" +", " ", text)
    assert "| student by KD on logits (resnet18) | 11.700 M | 65.00 | 88.00 |" in text


def test_the_card_shows_how_the_answers_follow_the_teachers_beside_the_controls(run):
    student = {"correlation": 0.8125, "norm_ratio": 0.5, "flips": 3.0, "flip_agreement": None}
    other = {"correlation": 0.75, "norm_ratio": 1.25, "flips": 2.0, "flip_agreement": 20.0}
    change = {"name": "noise", "teacher_flips": 1.5, "student": student}
    control = {"name": "resnet18", "top1": 65, "label": "student by KD on logits"}
    alone = Card(run(sensitivity={"images": 12, "changes": [change]})).text()
    assert "## Sensitivity" in alone and "on 12 images" in alone and "In brackets" not in alone
    assert "| noise | 0.81 | 0.50 |  | 1.50 |" in alone
    both = Card(run(sensitivity={"images": 12, "changes": [change | {"control": other}]}, control=control)).text()
    assert "In brackets: student by KD on logits." in both
    assert "| noise | 0.81 (0.75) | 0.50 (1.25) |  (20.00) | 1.50 |" in both
    assert "## Sensitivity" not in Card(run()).text()


def test_the_first_number_is_the_gain_over_the_control(run):
    control = {"name": "resnet18", "parameters_m": 11.7, "top1": 69, "top5": 88, "label": "student by KD on logits"}
    text = Card(run(control=control, flags=["--dccd-control", "logit"])).text()
    gain = "+1.12 points over the student by KD on logits with the same seed, steps and views"
    assert f"**Top-1 70.12 %: {gain}.**" in text and text.index(gain) < text.index("| teacher (")
    further = [
        {"name": "resnet18", "parameters_m": 11.7, "top1": 60, "top5": 80, "label": "student without distillation"}
    ]
    both = Card(run(control=control, further_controls=further, flags=["--dccd-control", "logit", "none"])).text()
    assert f"**Top-1 70.12 %: {gain}.**" in both and "| `dccd_control` | `logit none` |" in both
    assert "| student without distillation (resnet18) | 11.700 M | 60.00 | 80.00 |" in both
    other = Card(run(control=control | {"label": "other (logit)"}, flags=["--dccd-control", "logit"])).text()
    assert "**Top-1 70.12 %: +1.12 points over other (logit).**" in other  # dccd-timm report --against
    assert "**Top-1 70.12 %.**" in Card(run()).text()


def test_networks_of_one_name_are_told_apart_by_their_size(run):
    control = {"name": "resnet18", "parameters_m": 11.7, "top1": 65, "label": "student by KD on logits"}
    text = Card(run(control=control, teacher={"name": "resnet18", "parameters_m": 21.8})).text()
    for row in (
        "teacher (resnet18, 21.800 M)",
        "**student** (resnet18, 11.700 M)",
        "KD on logits (resnet18, 11.700 M)",
    ):
        assert row in text
    assert text.endswith("\n\nThe teacher: resnet18, 21.800 M.\n")
    assert "| teacher (resnet34) |" in Card(run()).text()


@pytest.mark.parametrize(("method", "distilled"), [("dccd", True), ("none", False)])
def test_tags_say_what_the_student_is(run, method, distilled):
    tags = front(Card(run(method=method), "alice/student"))["tags"]
    assert "timm" in tags and "transformers" not in tags
    assert ("knowledge-distillation" in tags) is ("teacher:resnet34" in tags) is distilled


def test_it_is_trained_again_without_a_checkout(run, tmp_path, monkeypatch):
    folder = run(flags=["--dataset", "hfids//data/flowers"])
    text = Card(folder, "alice/student").text()
    block = text[text.index("train it again") :].split("```")[1]
    assert block == ("bash\npip install dccd-timm\nhf download alice/student recipe.yaml --local-dir . "
                     "&& dccd-timm train -c recipe.yaml\n")  # fmt: skip
    assert "hfids//" not in text + Card(folder).recipe()
    (tmp_path / "recipe.yaml").write_text(Card(folder, "alice/student").recipe())
    monkeypatch.chdir(tmp_path)
    assert load_recipe(["-c", "recipe.yaml"]).kd_distill_type == "dccd"


def test_the_snippet_runs_as_it_is_printed(run, monkeypatch):
    text = Card(run(), "alice/student").text()
    snippet = text[text.index("```python\n") + 10 :].split("```")[0]
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create("test_resnet", num_classes=10))
    exec(snippet, {})


def test_without_validation_there_is_no_accuracy(run):
    card = Card(run(flags=["--val-split", ""], student={"name": "resnet18", "parameters_m": 11.7}), "alice/student")
    assert "top-1" not in card.text() and "also chose its epoch" not in card.text()
    assert "model-index" not in front(card) and "metrics" not in front(card)


def test_a_local_card_names_files_of_the_run_and_shows_the_pictures_that_are_there(run):
    folder = run()
    for name in ("curves", "views"):
        (folder / "report" / f"{name}.png").write_bytes(b"")
    text = Card(folder).text()
    assert "local-dir:best" in text and "dccd-timm train -c args.yaml" in text
    assert re.findall(r"!\[.*?\]\((.*?)\)", text) == [
        "report/curves.png"
    ]  # and not the views, which are training images


def test_the_card_has_no_gap_in_its_layout(run):
    text = Card(run(control={"name": "x", "top1": 1, "top5": 2}, terms={"task_loss": 1}), "alice/student").text()
    assert "\n\n\n" not in text and text.endswith("\n\nThe teacher: resnet34.\n")
    assert "{{" not in text.replace("{{DCCD}", "") and "{%" not in text
    for line in text.split("```")[0].splitlines():
        assert line == line.rstrip(), repr(line)


def test_a_folder_without_a_report_is_refused(run):
    folder = run()
    (folder / "report/report.json").unlink()
    with pytest.raises(UserError, match=r"no report/report\.json"):
        Card(folder)


def test_the_template_is_part_of_the_package():
    """A file that is no module reaches users only when pyproject.toml names it."""
    root = Path(__file__).parents[2]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["dccd_timm"]
    packaged = {file for pattern in patterns for file in (root / "dccd_timm").glob(pattern)}
    others = (p for p in (root / "dccd_timm").rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    assert {p for p in others if p.suffix not in (".py", ".pyc")} <= packaged
    assert root / "dccd_timm/hub/card.md.jinja" in packaged and TEMPLATE.is_file()


def test_a_network_that_timm_does_not_have_is_not_said_to_be_timms(run):
    folder = run()
    config = json.loads((folder / "best/config.json").read_text()) | {"architecture": "cifar_resnet8x4"}
    (folder / "best/config.json").write_text(json.dumps(config))
    card = Card(folder, "alice/student")
    assert "import dccd_timm.models" in card.text() and "plain timm loads it" not in card.text()
    assert "transformers" not in front(card)["tags"]


def test_every_card_has_the_mark_by_which_a_push_is_known(run):
    assert CARD_MARK in Card(run()).text()


def test_the_card_says_how_many_images_the_numbers_are_from(run):
    whole = {"train": {"name": "train", "images": 48, "skipped": 0}, "validation": {"name": "v", "images": 24}}
    text = Card(run(splits=whole)).text()
    assert "Measured on 24 images of the split `validation`, which" in text and "unreadable" not in text
    part = {"train": whole["train"] | {"skipped": 7}, "validation": whole["validation"] | {"skipped": 40}}
    text = Card(run(splits=part)).text()
    assert "**40 more images of this split were unreadable and do not count.**" in text
    assert "\n- 7 training images were unreadable: it was trained on the other 48.\n" in text
    assert "Measured on the split `validation`, which" in Card(run()).text()  # a report of an older version


@pytest.mark.parametrize("name", ["a\nb: [", "$5 {x} | `y`", "caf\udce9", "猫🍕"])
def test_a_folder_with_any_name_leaves_a_card_and_a_recipe_that_can_be_read(name, run):
    card = Card(run(flags=["--dataset", "", "--data-dir", f"/data/{name}"]))
    assert front(card)["library_name"] == "timm"
    shown = name.replace("\udce9", "?")
    assert yaml.safe_load(card.recipe())["data_dir"] == yaml.safe_load(card.args())["data_dir"] == shown
    (row,) = [line for line in card.text().splitlines() if line.startswith("| `data_dir`")]
    assert re.sub(r"\\\|", "", row).count("|") == 3 and card.text().encode()


def test_what_resumes_changed_stands_in_card_recipe_and_settings_without_places(run):
    here = "hfids//home/me/cats"
    change = {"epoch": 2, "settings": {"lr": [0.1, 0.05], "dataset": [here, "hfids/uoft-cs/cifar10"]}}
    card = Card(run(changes=[change]), "alice/student")
    line = "from epoch 3 on, `lr` 0.1 -> 0.05, `dataset` hfids/cats -> hfids/uoft-cs/cifar10"
    assert f"- {line}\n" in card.text() and f"# Changed on the way: {line}" in card.recipe()
    assert yaml.safe_load(card.args())["changed"] == [
        {"epoch": 2, "lr": [0.1, 0.05], "dataset": ["hfids/cats", "hfids/uoft-cs/cifar10"]}
    ]
    assert "home/me" not in card.text() + card.recipe() + card.args() + card.public_report()
    assert "Settings were changed" not in Card(run(), "alice/student").text()
