"""checkpoint-release verify: check a release as a stranger would.

checkpoint-release verify artifacts/release
checkpoint-release verify organisation/name --revision v1.0.0 --public-key publisher.pub
checkpoint-release verify release --require rebuilt=1,signed-by=publisher.pub \\
    --rebuilder colleague.pub

Its hashes and its signature are checked, and, if they are right, that every format
still computes the sample. A release from elsewhere can name any code as its model's
(subprocess:run is a callable too): only models of this library run, and what --trust
names.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from checkpoint_release.commands.arguments import add_release, add_trust

SUMMARY = "check a release's files and signature, and that every format computes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_release(parser)
    parser.add_argument(
        "--require",
        metavar="POLICY",
        help="rebuilt=N: N people made it again; signed-by=FILE: a public key in PEM",
    )
    parser.add_argument(
        "--rebuilder",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="public key in PEM of somebody whose rebuild counts, once for each",
    )
    parser.add_argument(
        "--attestations",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="file or folder of further attestations of rebuilds",
    )
    parser.add_argument(
        "--fresh-env",
        action="store_true",
        help="run the card's examples, the publisher's code, in a new environment",
    )
    add_trust(parser)


def run(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Check the release and print the report; 1 if any check fails.

    Raises:
        ArtifactError: it is no release, or can't be read.
        PublishError: the Hub doesn't give it.
    """
    from checkpoint_release.release.policy import parse_policy, require_unused
    from checkpoint_release.release.verify import passed, report, verify_release

    policy = None
    if asked.require is None:
        require_unused(asked.rebuilder, asked.attestations)
    else:
        policy = parse_policy(asked.require, asked.rebuilder, asked.attestations)
    checks = verify_release(
        asked.release,
        revision=asked.revision,
        public_key=asked.public_key,
        trust=asked.trust,
        policy=policy,
        run_examples=asked.fresh_env,
    )
    print(report(checks))
    return 0 if passed(checks) else 1
