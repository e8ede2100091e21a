"""Trusted Publishers: a CI's identity exchanged for a token that ends soon.

The Hub's side is `/oauth/token`. The CI's side, which gives a job its ID token, is here
as well, so that a test needs one server.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from tests.support.hub_server.storage import Account, Hub, HubError

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
REQUEST_TOKEN = "a-secret-of-the-runner"
MINT = "/ci/id-token"


def environment(address: str, repository: str) -> dict[str, str]:
    """What a job of GitHub's finds that may have an ID token.

    Args:
        address: the server's.
        repository: the one on the Hub that it publishes to.
    """
    return {
        "HF_OIDC_RESOURCE": repository,
        "GITHUB_ACTIONS": "true",
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{address}{MINT}",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": REQUEST_TOKEN,
    }


@dataclass
class TrustedPublishers:
    """Whom the Hub trusts, and what it gave them.

    Attributes:
        trusted: repository → the claims that a job must make.
        job: the claims that the CI makes of the job that runs.
        lifetime: seconds that a token is announced to last. huggingface_hub exchanges
            anew 300 s before that, so at 300 for each request.
        uses: requests after which a token has ended in truth; None: it doesn't end.
        minted: ID token → its claims.
        given: the tokens so far, and how often each was used.
    """

    trusted: dict[str, dict[str, str]] = field(default_factory=dict)
    job: dict[str, str] = field(default_factory=dict)
    lifetime: int = 3600
    uses: int | None = None
    minted: dict[str, dict[str, str]] = field(default_factory=dict)
    given: dict[str, int] = field(default_factory=dict)

    def mint(self, authorization: str, audience: str) -> dict[str, str]:
        """What the CI answers a job that asks for its ID token."""
        if authorization != f"Bearer {REQUEST_TOKEN}":
            raise HubError(401, "this job may not have an ID token")
        claims = {**self.job, "aud": audience, "jti": str(len(self.minted))}
        token = ".".join(_part(value) for value in ({"alg": "none"}, claims, {}))
        self.minted[token] = claims
        return {"value": token}

    def exchange(self, asked: dict[str, Any], hub: Hub, address: str) -> dict[str, Any]:
        """What the Hub gives for an ID token; it doesn't say what is wrong with it."""
        if (asked.get("grant_type"), asked.get("subject_token_type")) != (
            GRANT,
            ID_TOKEN,
        ):
            raise _refusal("invalid_request", "unsupported grant")
        resource = asked.get("resource", "")
        claims = self.minted.get(asked.get("subject_token", ""), {})
        wanted = self.trusted.get(resource)
        there = resource in hub.repos and wanted is not None
        if not there or claims.get("aud") != address:
            raise _refusal("invalid_grant", "Invalid subject token")
        if any(claims.get(name) != value for name, value in (wanted or {}).items()):
            raise _refusal("invalid_grant", "Invalid subject token")
        token = f"hf_jwt_{_part({'n': len(self.given)})}.{_part(claims)}.c2lnbmVk"
        self.given[token] = 0
        account = Account(f"[OIDC] {claims.get('repository')}", repository=resource)
        hub.tokens[token] = account
        return {
            "access_token": token,
            "token_type": "bearer",
            "expires_in": self.lifetime,
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        }

    def use(self, token: str) -> None:
        """Count a request of a token, which may have ended."""
        if token not in self.given:
            return
        self.given[token] += 1
        if self.uses is not None and self.given[token] > self.uses:
            raise HubError(401, "Invalid credentials in Authorization header")


def _part(value: dict[str, Any]) -> str:
    text = json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def _refusal(error: str, description: str) -> HubError:
    return HubError(400, description, error=error, error_description=description)
