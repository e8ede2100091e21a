"""checkpoint-release rebuild: make a release again, and compare it byte for byte.

checkpoint-release rebuild release/ runs/best.pth --unsigned
checkpoint-release rebuild organisation/name runs/best.pth --public-key publisher.pub
checkpoint-release rebuild release/ runs/best.pth --sign mine.pem

Of a release that isn't signed the record is taken as it is only with --unsigned.

The parameters and versions are those that the release records. A record of a stranger
can name any code as the model's: only models of this library run, and what --trust
names.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from checkpoint_release.commands.arguments import add_release

_UNVOUCHED = (
    "no signature of the record was checked: this shows that the release comes out of"
    " this checkpoint by what it records, and not who published it"
)
SUMMARY = "make a release again from its own record, and compare it byte for byte"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_release(parser)
    parser.add_argument("checkpoint", help="the checkpoint that it was made from")
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="PATH",
        help="file or folder of the model's code, once for each",
    )
    parser.add_argument(
        "--config", metavar="PATH", help="config.json of a model of transformers"
    )
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="PATH",
        help="LoRA adapter that was merged, once for each",
    )
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="CODE",
        help="the factory that may run: package.module:callable",
    )
    parser.add_argument(
        "--python",
        default=sys.executable,
        metavar="PATH",
        help="interpreter of the environment to make it in; this one by default",
    )
    parser.add_argument(
        "--requirements",
        type=Path,
        metavar="FILE",
        help="write the versions that it was made with, for pip, and stop there",
    )
    parser.add_argument(
        "--unsigned",
        action="store_true",
        help="take the record of a release that isn't signed as it is",
    )
    parser.add_argument(
        "--sign",
        metavar="KEY",
        help="private key (PEM, or pkcs11: URI), to attest that it is the same",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="file of the attestation"
    )


def run(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Make the release again, and report what differs.

    Returns:
        The exit code; 1 where something that was built isn't the same.

    Raises:
        CheckpointReleaseError: there is no record, or it can't be followed.
    """
    from checkpoint_release.release.fetched import local_release

    with local_release(asked.release, asked.revision) as found:
        if found.note:
            print(found.note)
        return _rebuild(asked, found.folder)


def _rebuild(asked: argparse.Namespace, folder: Path) -> int:
    """Follow the record of a release in a folder; see run."""
    from checkpoint_release.core.signing_keys import load_signing_key
    from checkpoint_release.project.rebuild import attest, rebuild
    from checkpoint_release.project.rebuild_options import Given
    from checkpoint_release.project.recorded import read_recorded, requirements

    record = read_recorded(folder, asked.public_key, unsigned=asked.unsigned)
    if asked.requirements:
        asked.requirements.write_text(requirements(record.making), encoding="utf-8")
        print(f"{asked.requirements}: {len(record.making.packages)} packages")
        return 0
    if asked.sign:
        # before the work: a token may lack its PIN
        load_signing_key(asked.sign, "sign").sign(b"checkpoint-release rebuild")
    given = Given(
        checkpoint=asked.checkpoint,
        source=tuple(asked.source),
        config=asked.config,
        adapters=tuple(asked.adapter),
        trust=tuple(asked.trust),
        python=asked.python,
    )
    found = rebuild(record, given)
    built = record.release.built
    if not found.same:
        for line in found.differences:
            print(f"differs: {line}")
        for line in found.hints:
            print(f"version: {line}")
        print(f"not the same: {len(found.differences)} files differ")
        return 1
    print(f"the same: {len(built.files)} built files, sha256 {built.sha256}")
    if not record.vouched:
        print(_UNVOUCHED)
    if asked.sign:
        print(f"attested in {attest(found, asked.sign, asked.output)}")
    return 0
