"""Whose code may run.

A model's code is whatever a file names: config.json can name any callable, such as
subprocess:run, and TorchScript and .pt2 files are programs. Nothing that comes from
elsewhere runs unless the user named it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from checkpoint_release.core.errors import UntrustedCodeError

# The families that come with the library, and of each nothing but its factory: what
# else its module holds, such as a module that it imports, is not meant to be called.
_OWN_FACTORY = re.compile(r"checkpoint_release\.models\.[a-z0-9_]+:build")
# These build what a configuration states with another library's code, which may follow
# it further than this project can see.
TRANSFORMERS_FACTORY = "checkpoint_release.models.transformers:build"
DIFFUSERS_FACTORY = "checkpoint_release.models.diffusers:build"
LIBRARIES = {TRANSFORMERS_FACTORY: "transformers", DIFFUSERS_FACTORY: "diffusers"}
"""Factory of another library's models → its name, as it is imported and installed."""


def is_own_factory(name: str) -> bool:
    """Whether a name is the factory of a family that comes with the library, and whose
    code is all its own.
    """
    if name in LIBRARIES:
        return False
    return _OWN_FACTORY.fullmatch(name) is not None


@dataclass(frozen=True)
class Trust:
    """The code from elsewhere that the user lets run.

    Whoever runs such code asks for it with `require`, so that it can't be forgotten for
    one format. A grant is a name: a factory ("package.module:callable"), or the format
    of a file that is a program ("torchscript", "torch_export").

    Attributes:
        names: what the user named.
        everything: whether the artifacts are the user's own, made by the pipeline at
            hand from code that params.yaml names.
    """

    names: frozenset[str] = frozenset()
    everything: bool = False

    @classmethod
    def of(cls, names: Iterable[str]) -> Trust:
        """The trust in what the user named, and in nothing else."""
        return cls(frozenset(names))

    def covers(self, name: str) -> bool:
        """Whether code of that name may run; the library's own factories always may."""
        if self.everything or name in self.names:
            return True
        return is_own_factory(name)

    def require(self, name: str, problem: str) -> None:
        """Make sure that code may run before it does.

        Args:
            name: what the user has to name.
            problem: what would run, and which file names it.

        Raises:
            UntrustedCodeError: the user didn't name it.
        """
        if not self.covers(name):
            raise UntrustedCodeError(
                problem,
                f"if you know that code and trust it, name {name} in {{trust}}; or load"
                " the ONNX file, which runs no code",
                options=["trust"],
            )


NO_TRUST = Trust()
"""Nothing from elsewhere runs."""

OWN_ARTIFACTS = Trust(everything=True)
"""For artifacts of the pipeline at hand."""
