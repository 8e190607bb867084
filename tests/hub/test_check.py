"""What is found before a training: tokens, roles, licenses."""

import json

import pytest
from huggingface_hub import ModelCard

from dccd_timm.errors import UserError
from dccd_timm.hub.check import _check_owner, _check_token, check, check_card
from dccd_timm.hub.target import Target


def me(role="write", orgs=(), **token):
    return {"name": "alice", "orgs": list(orgs), "auth": {"accessToken": {"role": role} | token}}


def scope(name, *permissions, kind="user"):
    return {"entity": {"type": kind, "name": name}, "permissions": list(permissions)}


@pytest.mark.parametrize(
    "token",
    [
        {},
        dict(role="admin"),
        dict(role="fineGrained", fineGrained={"global": [], "scoped": [scope("Alice", "repo.write")]}),
        dict(role="fineGrained", fineGrained={"global": ["repo.write"], "scoped": []}),
        dict(role="fineGrained", fineGrained={"scoped": [scope("alice/s", "repo.write", kind="model")]}),
        dict(role="fineGrained", fineGrained={"scoped": [scope("x", "repo.write", kind="resource-group")]}),
        dict(role="fineGrained"),
    ],
    ids=repr,
)
def test_a_token_that_may_write_passes(token):
    _check_token(me(**token), Target("alice/s"))
    _check_token({"name": "alice"}, Target("alice/s"))


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (dict(role="read"), "may only read"),
        (dict(role="fineGrained", fineGrained={"global": [], "scoped": []}), "may not write to repositories of alice"),
        (dict(role="fineGrained", fineGrained={"scoped": [scope("alice", "repo.content.read")]}), "may not write"),
        (dict(role="fineGrained", fineGrained={"scoped": [scope("lab", "repo.write", kind="org")]}), "may not write"),
        (dict(fineGrained={"scoped": [scope("alice/other", "repo.write", kind="model")]}), "may not write"),
    ],
    ids=repr,
)
def test_a_token_that_may_not_write_is_refused(token, words):
    with pytest.raises(UserError, match=words):
        _check_token(me(**token), Target("alice/s"))


def test_a_role_that_may_create_nothing_is_refused():
    for role in ("contributor", "write", "admin", None):
        _check_owner(me(orgs=[{"name": "lab", "roleInOrg": role}]), Target("lab/s"))
    _check_owner(me(), Target("alice/s"))
    with pytest.raises(UserError, match="alice has the role read in lab"):
        _check_owner(me(orgs=[{"name": "lab", "roleInOrg": "read"}]), Target("lab/s"))
    orgs = [{"name": "lab", "roleInOrg": "read"}, {"name": "club", "roleInOrg": "write"}]
    with pytest.raises(UserError, match="the token is that of alice, who may write to alice, club$"):
        _check_owner(me(orgs=orgs), Target("bob/s"))


def answer(text):
    def validate(card):
        raise ValueError(text)

    return validate


def test_a_license_that_the_hub_does_not_know_is_named_with_the_nearest(monkeypatch):
    wrong = {"errors": [{"message": '"license" must be one of [apache-2.0, mit, ...]'}], "warnings": []}
    monkeypatch.setattr(ModelCard, "validate", answer(json.dumps(wrong)))
    with pytest.raises(UserError, match="does not know --hub-license GPL-3: did you mean gpl-3.0?"):
        check_card("---\nlicense: GPL-3\n---\n", Target("a/b", license="GPL-3"))
    with pytest.raises(UserError, match="the license of teacher or start weights: give --hub-license one of"):
        check_card("---\nlicense: GPL-3\n---\n", Target("a/b"))
    monkeypatch.setattr(ModelCard, "validate", answer("- bad YAML\nin line 3"))
    with pytest.raises(UserError, match="refuses the model card: - bad YAML in line 3"):
        check_card("---\nlicense: mit\n---\n", Target("a/b"))


@pytest.mark.parametrize("name", ["new", "alice/../new", "alice/one/two", "https://huggingface.co/alice/one"])
def test_a_name_is_checked_before_the_hub_is_asked(name):
    with pytest.raises(UserError, match=f"^cannot push to {name}: "):
        check(Target(name))
