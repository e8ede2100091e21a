"""The command line, `checkpoint-release` or `python -m checkpoint_release`.

An expected failure is one message on standard error and exit code 1; options are named
in it as the flags that set them.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # `python -m` looks for modules in the working folder first, where a release from
    # elsewhere could hold a numpy.py.
    del sys.path[0]

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from checkpoint_release.commands import (
    convert,
    diff,
    fleet,
    inspect,
    new,
    page,
    parity,
    rebuild,
    report,
    run,
    signature,
    verify,
)
from checkpoint_release.core.errors import CheckpointReleaseError
from checkpoint_release.core.extras import extras_named
from checkpoint_release.core.terminal import print_any_text
from checkpoint_release.core.text import for_terminal

INTERRUPTED = 130  # as shells report a process that SIGINT ended


class Command(Protocol):
    """A module of checkpoint_release.commands."""

    SUMMARY: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""

    def run(self, asked: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
        """Do what was asked for, and return the exit code."""


COMMANDS: Mapping[str, Command] = {
    "convert": convert,
    "diff": diff,
    "fleet": fleet,
    "inspect": inspect,
    "new": new,
    "page": page,
    "run": run,
    "parity": parity,
    "rebuild": rebuild,
    "report": report,
    "signature": signature,
    "verify": verify,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command's name and its arguments; None: those of the process.

    Returns:
        The exit code.
    """
    print_any_text()
    parser = argparse.ArgumentParser(
        prog="checkpoint-release",
        description="Run, inspect and verify models and their releases.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        own = commands.add_parser(
            name, help=command.SUMMARY, description=command.SUMMARY
        )
        command.add_arguments(own)
        own.set_defaults(command=command, parser=own)
    asked = parser.parse_args(arguments)
    if any(_lies_only_here(name) for name in getattr(asked, "trust", ())):
        # It comes last, and replaces nothing that is installed.
        sys.path.append(str(Path.cwd()))
    try:
        with extras_named():
            code: int = asked.command.run(asked, asked.parser)
        sys.stdout.flush()
    except CheckpointReleaseError as error:
        print(f"error: {error.message(_spelling(asked))}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # what reads the output, such as head, needs no more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"error: {for_terminal(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _lies_only_here(trusted: str) -> bool:
    """Whether a trusted factory's module is in the working folder and not installed.

    Only then is the folder itself trusted: beside the factory's module, Python would
    find there whatever an installed library imports on the chance that it is there.

    Args:
        trusted: what the user named in --trust.
    """
    module, colon, _ = trusted.partition(":")
    package = module.partition(".")[0]
    if not (colon and package.isidentifier()):
        return False
    if package in sys.modules or find_spec(package) is not None:
        return False
    return PathFinder.find_spec(package, [str(Path.cwd())]) is not None


def _spelling(asked: argparse.Namespace) -> Callable[[str], str]:
    """How to spell an option in a message: as a flag, where the command has one."""

    def spell(option: str) -> str:
        is_flag = option in vars(asked)
        return f"--{option.replace('_', '-')}" if is_flag else option

    return spell


if __name__ == "__main__":
    sys.exit(main())
