"""--help: short, the usual options first, as wide as the terminal, with examples that work; --help-all; --version."""

import re
import shlex

import pytest

import dccd_timm
from dccd_timm import cli
from dccd_timm.recipe import load_recipe, load_validation, validation
from dccd_timm.recipe.load import GRAMMAR
from dccd_timm.recipe.option import option_of
from tests.conftest import ROOT

PROGRAMS = ("train", "validate", "push", "pull", "report")


def printed(capsys, *words):
    with pytest.raises(SystemExit) as end:
        cli.main(list(words))
    assert end.value.code == 0
    return capsys.readouterr().out


def commands(text):
    """The examples of a --help, each as its words."""
    lines = text.split("\nexamples:\n")[1].replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines]


def test_the_usual_options_are_ten_with_the_recipe():
    usual = [name for name, spec in GRAMMAR.fields.items() if option_of(spec).usual]
    assert len(usual) == 9 and {"data_dir", "dataset", "model", "kd_model_name", "epochs", "batch_size"} <= set(usual)


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
@pytest.mark.parametrize("words", [("--help",), *((name, "--help") for name in PROGRAMS), ("train", "--help-all")])
def test_help_is_as_wide_as_the_terminal(words, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = printed(capsys, *words)
    options = text.split("\nexamples:\n")[0].splitlines()
    widest = max(len(line) for line in options if "{" not in line)  # a list of choices is one word
    assert widest <= min(columns, 120)
    if words[0] in ("train", "validate"):  # the others have nothing that long
        assert widest > min(columns, 120) - 35
    assert "--version" in text and "--help" in text


@pytest.mark.parametrize(("program", "grammar"), [("train", GRAMMAR), ("validate", validation.GRAMMAR)])
def test_help_is_one_screen_and_says_how_to_see_the_rest(program, grammar, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = printed(capsys, program, "--help")
    hidden = [name for name, spec in grammar.fields.items() if not option_of(spec).usual]
    assert text.index("\nUsual options:\n") < 200 and len(text.splitlines()) < 55
    assert f"--help-all shows {len(hidden)} more: Data " in text
    assert not any(re.search(rf"^  --{name.replace('_', '-')}\b(?!-)", text, re.MULTILINE) for name in hidden)
    assert all(f"--{name.replace('_', '-')}" in printed(capsys, program, "--help-all") for name in hidden)


def test_the_examples_of_help_are_commands_that_work(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "output/train/first/best").mkdir(parents=True)
    (tmp_path / "output/train/first/best/config.json").write_text("{}")
    monkeypatch.setenv("COLUMNS", "80")
    for program, read in (("train", load_recipe), ("validate", load_validation)):
        examples = commands(printed(capsys, program, "--help"))
        assert len(examples) == 3
        for words in examples:
            read(words[words.index(program) + 1 :])
    for program in ("push", "pull", "report"):
        for words in commands(printed(capsys, program, "--help")):
            assert words[0] == "dccd-timm" and words[1] in PROGRAMS


@pytest.mark.parametrize("words", [(), *((name,) for name in PROGRAMS)])
def test_version(words, capsys):
    assert printed(capsys, *words, "--version") == f"dccd-timm {dccd_timm.__version__}\n"
