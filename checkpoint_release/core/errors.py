"""Every error that a user can cause or meet, and how a library's is told in one of them.

PipelineError                 what is wrong and where, and what to do about it
├── ParamsError               params.yaml: unknown key, wrong type, impossible value
├── CheckpointError           the .pth can't be read, or isn't what it should be
│   ├── UnsafeCheckpointError it names code that could do harm
│   └── ArchitectureError     its tensors don't fit the model
├── ModelError                the model can't be built from model.factory, or doesn't keep its signature
├── ExportError               a format can't be written as asked
│   └── OpsetError            the asked opset or IR version can't be had
├── ArtifactError             an artifact is missing, incomplete or changed since it was written
├── ParityError               a format doesn't compute what the checkpoint computes
├── CardError                 the model card can't be written truthfully
├── PublishError              the release can't be assembled, compared, uploaded, tagged or verified
└── InferenceError            the loader was given a file or inputs that it can't use
"""

from __future__ import annotations


class PipelineError(Exception):
    """An expected failure, told in one message and without a traceback.

    Args:
        problem: what is wrong and where, with the values that clash.
        remedy: what the reader should do, as an imperative sentence; may be empty.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}\n  what to do: {self.remedy}" if self.remedy else self.problem


class ParamsError(PipelineError):
    """params.yaml: unknown key, wrong type, impossible value."""


class CheckpointError(PipelineError):
    """The .pth can't be read, or isn't what it should be."""


class UnsafeCheckpointError(CheckpointError):
    """The .pth names code that could do harm if it were run."""


class ArchitectureError(CheckpointError):
    """The checkpoint's tensors don't fit the model."""


class ModelError(PipelineError):
    """The model can't be built, or doesn't keep its signature."""


class ExportError(PipelineError):
    """A format can't be written as asked."""


class OpsetError(ExportError):
    """The asked ONNX opset or IR version can't be had."""


class ArtifactError(PipelineError):
    """An artifact is missing, incomplete or changed since it was written."""


class ParityError(PipelineError):
    """A format doesn't compute what the checkpoint computes."""


class CardError(PipelineError):
    """The model card can't be written truthfully."""


class PublishError(PipelineError):
    """The release can't be assembled, compared, uploaded, tagged or verified."""


class InferenceError(PipelineError):
    """The loader was given a file or inputs that it can't use."""


def one_line(error: BaseException, longest: int = 500) -> str:
    """What a library's error says, for a message of ours: on one line, and no longer than that many characters."""
    return " ".join(str(error).split())[:longest]
