"""Every error that a user can cause or meet; a library's own errors become one of them.

CheckpointReleaseError        what is wrong and where, and what to do about it
├── ParamsError               an option: unknown key, wrong type, impossible value
├── CheckpointError           the checkpoint can't be read, or isn't what it should be
│   ├── UnsafeCheckpointError it names code that could do harm
│   └── ArchitectureError     its tensors don't fit the model
├── ModelError                the model can't be built, or doesn't keep its signature
├── ExportError               a format can't be written as asked
│   └── OpsetError            the asked opset or IR version can't be had
├── ArtifactError             an artifact is missing, incomplete or changed
├── ParityError               a format doesn't compute what the checkpoint computes
├── CardError                 the model card can't be written truthfully
├── MissingLibraryError       a library that an extra brings is not installed
├── PublishError              the release can't be assembled, uploaded or verified
├── FleetError                a cluster or one of its machines is at fault, not a model
└── InferenceError            the loader was given a file or inputs that it can't use
    └── UntrustedCodeError    code from elsewhere would run, and nobody trusts it
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Self


class CheckpointReleaseError(Exception):
    """An expected failure: one message, and no traceback.

    A library function doesn't know where its caller's options are set: a stage reads
    them from params.yaml, a command line from flags. So a message holds an option's
    name in braces, such as {checkpoint.state_dict}, `options` lists these names, and
    the outermost caller spells them (see `message`).

    Args:
        problem: what is wrong and where, with the values that clash.
        remedy: what the reader should do, as an imperative sentence; may be empty.
        options: the options that problem and remedy name in braces.
    """

    def __init__(
        self, problem: str, remedy: str = "", *, options: Iterable[str] = ()
    ) -> None:
        super().__init__(problem, remedy)
        self._problem = problem
        self._remedy = remedy
        self.options = tuple(options)

    @property
    def problem(self) -> str:
        """What is wrong and where, options by their names."""
        return self._spelled(self._problem, str)

    @property
    def remedy(self) -> str:
        """What the reader should do, options by their names; may be empty."""
        return self._spelled(self._remedy, str)

    def message(self, spell: Callable[[str], str] = str) -> str:
        """The whole message, fit for a terminal (`text.for_terminal`).

        Args:
            spell: an option's name, such as "checkpoint.state_dict" → how the reader
                sets it, such as "--state-dict".
        """
        problem = self._spelled(self._problem, spell)
        remedy = self._spelled(self._remedy, spell)
        whole = f"{problem}\n  what to do: {remedy}" if remedy else problem
        from checkpoint_release.core.text import for_terminal

        return for_terminal(whole)

    def renamed(self, name: Callable[[str], str]) -> Self:
        """The same error, its options under the names that another caller has.

        Args:
            name: an option's name → the caller's name of it.
        """

        def braced(option: str) -> str:
            return f"{{{name(option)}}}"

        return type(self)(
            self._spelled(self._problem, braced),
            self._spelled(self._remedy, braced),
            options=[name(option) for option in self.options],
        )

    def within(self, place: str) -> CheckpointReleaseError:
        """The same error, its problem led by where it is.

        Args:
            place: such as a path or a key.
        """
        return type(self)(
            f"{place}: {self._problem}", self._remedy, options=self.options
        )

    def advising(self, remedy: str, options: Iterable[str]) -> Self:
        """The same problem with another remedy.

        Args:
            remedy: an imperative sentence.
            options: those that it names in braces.
        """
        return type(self)(self._problem, remedy, options={*self.options, *options})

    @classmethod
    def combined(cls, errors: Sequence[CheckpointReleaseError]) -> Self:
        """One error with the problems of all, each once, and the remedy of the last.

        Args:
            errors: at least one.
        """
        problems: list[str] = []
        options: set[str] = set()
        for error in errors:
            if error._problem not in problems:
                problems.append(error._problem)
            options.update(error.options)
        remedy = errors[-1]._remedy
        return cls("; ".join(problems), remedy, options=sorted(options))

    def __str__(self) -> str:
        return self.message()

    def _spelled(self, text: str, spell: Callable[[str], str]) -> str:
        """A text with its options as their reader sets them.

        Args:
            text: problem or remedy, which has options' names in braces.
            spell: as of message.
        """
        for option in self.options:
            text = text.replace(f"{{{option}}}", spell(option))
        return text


class ParamsError(CheckpointReleaseError):
    """An option: unknown key, wrong type, impossible value."""


class CheckpointError(CheckpointReleaseError):
    """The checkpoint can't be read, or isn't what it should be."""


class UnsafeCheckpointError(CheckpointError):
    """The checkpoint names code that could do harm if it were run."""


class ArchitectureError(CheckpointError):
    """The checkpoint's tensors don't fit the model."""


class ModelError(CheckpointReleaseError):
    """The model can't be built, or doesn't keep its signature."""


class ExportError(CheckpointReleaseError):
    """A format can't be written as asked."""


class OpsetError(ExportError):
    """The asked ONNX opset or IR version can't be had."""


class ArtifactError(CheckpointReleaseError):
    """An artifact is missing, incomplete or changed since it was written."""


class ParityError(CheckpointReleaseError):
    """A format doesn't compute what the checkpoint computes."""


class CardError(CheckpointReleaseError):
    """The model card can't be written truthfully."""


class MissingLibraryError(CheckpointReleaseError):
    """A library that an extra of this package brings is not installed."""


class PublishError(CheckpointReleaseError):
    """The release can't be assembled, compared, uploaded, tagged or verified."""


class FleetError(CheckpointReleaseError):
    """A cluster, or one of its machines, can't do what was asked."""


class InferenceError(CheckpointReleaseError):
    """The loader was given a file or inputs that it can't use."""


class UntrustedCodeError(InferenceError):
    """Code from elsewhere would run, and the user didn't say that it may."""


def first_few(names: Sequence[str], most: int) -> str:
    """Names for a message: the first ones, separated by commas, and … for the rest.

    Args:
        names: in the order in which they are shown; as files have them.
        most: how many are shown.
    """
    from checkpoint_release.core.text import printable

    shown = ", ".join(printable(name) for name in names[:most])
    return f"{shown}, …" if len(names) > most else shown


def one_line(error: BaseException, longest: int = 500) -> str:
    """A library's message on one line.

    Args:
        error: whose message.
        longest: how many characters of it are kept.
    """
    from checkpoint_release.core.text import printable

    return printable(" ".join(str(error).split()), longest)
