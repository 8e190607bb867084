"""The command line: flags that are not known, stray arguments, and what --help shows."""

import pytest

from dccd_timm.recipe.load import GRAMMAR
from dccd_timm.recipe.parse import shown_default
from tests.recipe.mistakes import assert_refused


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--lrr 0.5", "unknown flag --lrr; did you mean --lr"),
        ("--jsd", "unknown flag --jsd; did you mean --jsd-loss? It is refused: it needs --aug-splits"),
        ("--pretrain", "did you mean --pretrain"),
        ("--dccd-contrast-wait 1", "did you mean --dccd-contrast-weight"),
        ("--zzzzzz", "unknown flag --zzzzzz; --help-all lists them all"),
        ("--input-size 3 224", "expected 3 arguments"),
        ("stray --lr 1 stray2", "unexpected stray2: values follow a flag"),
        ("--lrr 1 --lr x", "2 mistakes"),
    ],
)
def test_mistakes(flags, message):
    assert_refused(flags, message)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("epochs", "300"),
        ("lr", ""),
        ("amp", ""),
        ("scale", "0.08 1"),
        ("decay_milestones", "90 180 270"),
        ("opt", "sgd"),
    ],
)
def test_the_default_that_help_shows(name, shown):
    assert shown_default(GRAMMAR.fields[name]) == shown


def test_help_all_has_each_group_once_and_each_flag():
    text = GRAMMAR.parser(shows_all=True).format_help()
    for title in ("Usual options:", "Data:", "Model:", "DCCD:", "Optimizer:", "Hugging Face Hub:"):
        assert text.count(f"\n{title}\n") == 1
    assert all(f"--{name.replace('_', '-')}" in text for name in GRAMMAR.fields)
    assert "--aug-splits" not in text  # refused ones are not offered
