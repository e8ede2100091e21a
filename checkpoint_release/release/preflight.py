"""What can be known to fail before a byte is uploaded: the token's rights, the card.

The repository's name is checked with the parameters, its visibility and people's files
by the survey, and whether it takes pull requests there, too. How much room is left in a
namespace, no Hub tells before an upload is announced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from checkpoint_release.core.artifacts.release import CARD
from checkpoint_release.core.errors import PublishError
from checkpoint_release.release.hub import Hub
from checkpoint_release.release.plan import LocalFile, Survey, Target
from checkpoint_release.release.tokens import RESOURCE
from checkpoint_release.release.transfer import chooses_xet

WRITE = "repo.write"
"""The permission that a fine-grained token needs."""


def require_publishable(
    hub: Hub, local: Mapping[str, LocalFile], target: Target, survey: Survey
) -> None:
    """Make sure that nothing is known to stand against a publication.

    Args:
        hub: where to.
        local: path in the release → file.
        target: where on the Hub.
        survey: what is there, and what is left to do.

    Raises:
        PublishError: the token may not do it, the Hub refuses the card, lacks Xet that
            was asked for, or can't be asked.
    """
    if survey.complete(target):
        return
    _require_right(hub, target, survey)
    if survey.exists:
        chooses_xet(hub, target)  # raises where it can't be what it shall be
    if CARD in survey.plan.uploaded:
        _require_valid_card(hub, local[CARD])


# The token


def _require_right(hub: Hub, target: Target, survey: Survey) -> None:
    """Require that the token may write to the namespace.

    What isn't stated isn't held against it: the Hub itself has the last word.

    Raises:
        PublishError: it may not.
    """
    if hub.repository is not None:
        _require_repository(hub.repository, target)
        return
    who = hub.who()
    if who.get("type") != "user":  # a token of a workflow, say, which has other rules
        return
    reason = _token_refusal(who, target)
    if reason is None and not (target.create_pr and survey.exists):
        # anybody who sees a repository may open a pull request there
        reason = _namespace_refusal(who, target)
    if reason is not None:
        raise PublishError(
            f"the token of {who.get('name')} can't write to {target.repo_id}: {reason}",
            "use a token with write access to that namespace, or change"
            " {publish.repo_id}",
            options=["publish.repo_id"],
        )


def _require_repository(trusted: str, target: Target) -> None:
    """Require that a job's token is for the repository.

    Args:
        trusted: what the token is for: a repository, or a user, for whom it only reads.
        target: where on the Hub.

    Raises:
        PublishError: it isn't.
    """
    if trusted != target.repo_id:
        raise PublishError(
            f"the job's token is for {trusted}, and {{publish.repo_id}} is"
            f" {target.repo_id}",
            f"set {RESOURCE} to {target.repo_id}, or change {{publish.repo_id}}",
            options=["publish.repo_id"],
        )


def _token_refusal(who: Mapping[str, Any], target: Target) -> str | None:
    """Why the token itself can't write; None: nothing says so.

    Args:
        who: the Hub's answer about the token.
        target: where on the Hub.
    """
    token = _mapping(_mapping(who.get("auth")).get("accessToken"))
    if token.get("role") == "read":
        return "it may only read"
    fine = token.get("fineGrained")
    if token.get("role") != "fineGrained" or not isinstance(fine, dict):
        return None
    if target.create_pr and "discussion.write" in _list(fine.get("global")):
        return None
    namespace = target.repo_id.partition("/")[0]
    for scope in _list(fine.get("scoped")):
        entity = _mapping(_mapping(scope).get("entity"))
        is_meant = entity.get("name") in (namespace, target.repo_id)
        if is_meant and WRITE in _list(_mapping(scope).get("permissions")):
            return None
    return f"it is fine-grained, and lacks {WRITE} there"


def _namespace_refusal(who: Mapping[str, Any], target: Target) -> str | None:
    """Why the token's owner can't write to the namespace; None: nothing says so.

    Args:
        who: the Hub's answer about the token.
        target: where on the Hub.
    """
    namespace = target.repo_id.partition("/")[0]
    if namespace == who.get("name"):
        return None
    for organisation in _list(who.get("orgs")):
        facts = _mapping(organisation)
        if facts.get("name") != namespace:
            continue
        # resource groups of an enterprise may give more than the role
        may_read_only = facts.get("roleInOrg") == "read" and not facts.get(
            "isEnterprise"
        )
        return "its owner's role there is read" if may_read_only else None
    return f"its owner is neither {namespace} nor one of its members"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


# The card


def _require_valid_card(hub: Hub, card: LocalFile) -> None:
    """Require that the Hub takes the card.

    Raises:
        PublishError: it doesn't, or can't be asked.
    """
    text = card.path.read_text(encoding="utf-8")
    errors = hub.card_errors(text)
    if errors:
        raise PublishError(
            f"the Hub refuses the card, {CARD}: {'; '.join(errors)}",
            "correct the options of {card}",
            options=["card"],
        )
