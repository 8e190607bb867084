"""Whether a student could be pushed, asked before its training; nothing is created."""

import difflib
import json
import re
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from dccd_timm.errors import UserError, one_line
from dccd_timm.hub import client
from dccd_timm.hub.manifest import Contents
from dccd_timm.hub.target import Target

_Answer = dict[str, Any]  # what the Hub says of a token and its user
# The usual ones, by the Hub's names; the Hub itself knows which others there are
_LICENSES = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0",
             "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "gpl-2.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "openrail",
             "unlicense", "other")  # fmt: skip
# What a fine-grained token may be restricted to; another kind is not refused, since it may cover the repository
_SCOPES = ("user", "org", "model", "dataset", "space")


def check(target: Target) -> None:
    """Check before a training that its student could be pushed; this creates nothing.

    Raises:
        UserError: bad name or license, no token, a wrong one, or one that may not write there; a repository with other
            work in it; or no connection to the Hub.
    """
    if target.repo_id.count("/") != 1:
        raise UserError(f"cannot push to {target.repo_id}: give owner/name")
    try:
        validate_repo_id(target.repo_id)
    except HFValidationError as error:
        raise UserError(f"cannot push to {target.repo_id}: {one_line(error)}") from None
    try:
        client.request(lambda api: _check(api, target), f"ask {client.host()}")
    except UserError as error:
        raise UserError(f"cannot push to {target.repo_id}: {error}") from error.__cause__
    except Exception as error:  # the clients' errors share no base class
        if not client.is_refusal(error):
            raise
        raise UserError(
            f"cannot push to {target.repo_id}: {client.cause(error, target.repo_id, target.revision)}"
        ) from error


def _check(api: HfApi, target: Target) -> None:
    me = api.whoami()
    _check_token(me, target)
    try:
        api.auth_check(target.repo_id, write=True)
    except RepositoryNotFoundError:  # a new one, or a private one of somebody else
        _check_owner(me, target)
    else:
        Contents.read_from(api, target).refuse_foreign(target)
    if target.license:
        check_card(str(ModelCard(f"---\n{ModelCardData(license=target.license).to_yaml()}\n---\n")), target)


def _check_token(me: _Answer, target: Target) -> None:
    """Refuse a token that may not write to the repository."""
    token = me.get("auth", {}).get("accessToken", {})
    owner = target.repo_id.split("/")[0]
    may = None
    if token.get("role") == "read":
        may = "only read"
    elif (fine := token.get("fineGrained")) is not None:
        names = (owner.lower(), target.repo_id.lower())
        scopes = [
            scope for scope in fine.get("scoped", [])
            if (entity := scope.get("entity", {})).get("type") not in _SCOPES or entity.get("name", "").lower() in names
        ]  # fmt: skip
        granted = {name for scope in scopes for name in scope.get("permissions", [])} | set(fine.get("global", []))
        may = None if "repo.write" in granted else f"not write to repositories of {owner}"
    if may:
        raise UserError(
            f"the token of {me['name']} may {may}; it needs write access (https://huggingface.co/settings/tokens)"
        )


def _check_owner(me: _Answer, target: Target) -> None:
    """Refuse a new repository of an owner for whom this user may create none."""
    owner = target.repo_id.split("/")[0]
    roles = {me["name"]: "admin"} | {org["name"]: org.get("roleInOrg") for org in me.get("orgs", [])}
    writable = [name for name, role in roles.items() if role not in ("read", "no_access")]
    if owner in writable:
        return
    if owner in roles:
        raise UserError(
            f"{me['name']} has the role {roles[owner]} in {owner}, which may create no"
            " repository: ask for the role contributor or write"
        )
    raise UserError(f"the token is that of {me['name']}, who may write to {', '.join(writable)}")


def check_card(text: str, target: Target) -> None:
    """Ask the Hub whether it takes a card.

    Raises:
        UserError: with what the Hub says is wrong with it.
    """
    try:
        ModelCard(text, ignore_metadata_errors=True).validate()
    except ValueError as error:
        said = _messages(str(error))
        if "license" not in said.lower():
            raise UserError(f"the Hub refuses the model card: {one_line(ValueError(said))}") from error
        known = re.findall(r"[a-z0-9][\w.+-]*", said.partition("[")[2])
        near = difflib.get_close_matches((target.license or "").lower(), {*known, *_LICENSES}, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        which = f"--hub-license {target.license}" if target.license else "the license of teacher or start weights"
        raise UserError(
            f"the Hub does not know {which}: {hint}give --hub-license one of"
            " https://huggingface.co/docs/hub/repositories-licenses"
        ) from error


def _messages(answer: str) -> str:
    """The Hub's messages about a card, in one text."""
    try:
        return "; ".join(str(error["message"]) for error in json.loads(answer)["errors"])
    except (ValueError, KeyError, TypeError):
        return answer
