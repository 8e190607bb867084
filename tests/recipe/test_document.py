"""docs/flags.md is what the declarations say today, and names every flag."""

from dccd_timm.recipe.document import flags_page
from dccd_timm.recipe.load import GRAMMAR
from tests.conftest import ROOT


def test_the_page_is_fresh():
    hint = "run: python -m dccd_timm.recipe.document > docs/flags.md"
    assert (ROOT / "docs" / "flags.md").read_text(encoding="utf-8") == flags_page(), hint


def test_the_page_names_every_flag():
    page = flags_page()
    for name in GRAMMAR.fields:
        assert f"`--{name.replace('_', '-')}`" in page
    for foreign in GRAMMAR.foreign.values():
        assert f"| `{foreign.flag}` | {foreign.answer} |" in page


def test_a_row_says_default_range_effect_and_publication():
    page = flags_page()
    assert "| `--batch-size` `-b` | `128` | integer, at least 1 |" in page
    assert "| `--dccd-contrast-weight` | `5` | number, at least 0 |" in page
    assert "| `symmetric` | `symmetric`, `student` |" in page
    row = next(line for line in page.splitlines() if line.startswith("| `--hub-revision`"))
    assert row.endswith("| push_to_hub is not set | no |")
    row = next(line for line in page.splitlines() if line.startswith("| `--kd-model-name`"))
    assert row.endswith("| name |")
