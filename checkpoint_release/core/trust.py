"""Whose model code may be called."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from checkpoint_release.core.errors import ParamsError, UntrustedCodeError


def is_trusted(factory: str, named: Iterable[str] = ()) -> bool:
    """Whether a factory may be called for a model that comes from elsewhere.

    A config.json can name any callable, such as subprocess:run. So the only factories
    that are called are this project's own, the one that model.factory names here, and
    those that the user names.

    Args:
        factory: what the config.json names.
        named: the factories that the user trusts.
    """
    if factory in named or factory.startswith("checkpoint_release.models."):
        return True
    try:
        # The reader of YAML isn't there where a release is only used.
        from checkpoint_release.core.params import load_params

        return factory == load_params().model.factory
    except (ImportError, ParamsError):  # no options here, or another project's
        return False


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
        """Whether code of that name may run."""
        if self.everything or name in self.names:
            return True
        return name.startswith("checkpoint_release.models.")

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
