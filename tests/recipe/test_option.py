"""A declaration is complete: what is allowed, when it has no effect, how it is published."""

import dataclasses
from typing import Literal

import pytest

from dccd_timm.recipe import Recipe, Validation
from dccd_timm.recipe.coerce import coerce
from dccd_timm.recipe.option import GROUPS, Kind, NoEffect, default_of, kind_of, option, option_of, without


@dataclasses.dataclass(frozen=True)
class Example:
    on: bool = option(False, "a switch", group="Run")
    mode: Literal["a", "b"] | None = option(None, "a choice", "-m", group="Run", no_effect=(without("on"),))
    sizes: tuple[int, ...] = option((1, 2), "sizes", group="Run", count=2, low=1)
    extra: dict[str, int] = option({"a": 1}, "more", group="Run")
    decided: int = option(None, "decided later", group="Run")
    name: str = option("x", "one of a table", group="Run", choices=("x", "y"), published="model")


FIELDS = {f.name: f for f in dataclasses.fields(Example)}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("on", Kind(bool, False, False, ())),
        ("mode", Kind(str, False, True, ("a", "b"))),
        ("sizes", Kind(int, True, False, ())),
        ("extra", Kind(dict, False, False, ())),
        ("decided", Kind(int, False, True, ())),
        ("name", Kind(str, False, False, ("x", "y"))),
    ],
)
def test_the_annotation_is_read(name, kind):
    assert kind_of(FIELDS[name]) == kind


def test_what_is_declared_is_read_from_the_field():
    declared = option_of(FIELDS["mode"])
    assert (declared.help, declared.flags, declared.published) == ("a choice", ("-m",), "yes")
    (rule,) = declared.no_effect
    assert isinstance(rule, NoEffect) and rule.reason == "on is not set"
    assert rule.when({"on": False}) and not rule.when({"on": True})
    assert default_of(FIELDS["extra"]) == {"a": 1} and default_of(FIELDS["extra"]) is not default_of(FIELDS["extra"])


@pytest.mark.parametrize("settings", [Recipe, Validation])
def test_each_default_is_allowed_by_its_own_declaration(settings):
    for spec in dataclasses.fields(settings):
        default = default_of(spec)
        assert coerce(spec, default) == default
        assert option_of(spec).group in GROUPS and option_of(spec).help
