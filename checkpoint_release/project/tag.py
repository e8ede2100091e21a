"""Whether a tag of git may publish what params.yaml asks for.

    python -m checkpoint_release.project.tag v1.0.0

It prints the repository on the Hub as the variable that Trusted Publishers take, for
GITHUB_ENV. A tag that isn't the version of params.yaml publishes nothing: the receipt
and the card name the version, and they are made from params.yaml.
"""

from __future__ import annotations

import sys

from checkpoint_release.core.errors import CheckpointReleaseError, ParamsError
from checkpoint_release.core.params import PublishParams, load_params

RESOURCE = "HF_OIDC_RESOURCE"


def main(arguments: list[str]) -> int:
    """Print the variable; 1 and one message where the tag publishes nothing."""
    try:
        repository = repository_of(arguments[0], load_params().publish)
    except CheckpointReleaseError as error:
        print(f"error: {error.message()}", file=sys.stderr)
        return 1
    print(f"{RESOURCE}={repository}")
    return 0


def repository_of(tag: str, params: PublishParams) -> str:
    """The repository on the Hub that a tag publishes to.

    Args:
        tag: of git.
        params: the section publish.

    Raises:
        ParamsError: it publishes nothing.
    """
    if params.version != tag:
        raise ParamsError(
            f"the tag is {tag}, and {{publish.version}} is {params.version}",
            "tag the commit in which {publish.version} is the tag's name",
            options=["publish.version"],
        )
    if params.repo_id is None:
        raise ParamsError(
            "{publish.repo_id} is not set, so that nothing would be published",
            "set it to organisation/name",
            options=["publish.repo_id"],
        )
    if params.dry_run:
        raise ParamsError(
            "{publish.dry_run} is true, so that nothing would be published",
            "set it to false in the commit that is tagged",
            options=["publish.dry_run"],
        )
    return params.repo_id


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
