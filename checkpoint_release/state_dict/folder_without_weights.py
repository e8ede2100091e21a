"""What is reported of a folder in which no weights were found."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from checkpoint_release.core.errors import CheckpointError, first_few
from checkpoint_release.pth.file_kind import identify
from checkpoint_release.pth.kinds import Kind
from checkpoint_release.tensors.tensor import MappedFile

_MAX_LISTED = 5  # names in a message
_TENSORFLOW = "saved_model.pb"


def no_weights(folder: Path, files: Collection[Path]) -> CheckpointError:
    """The error, with the likely cause.

    Args:
        folder: was searched.
        files: in it, links that lead nowhere not among them.
    """
    options = ["checkpoint.path"]
    broken = [each for each in sorted(folder.iterdir()) if _leads_nowhere(each)]
    if broken:
        link = broken[0]
        return CheckpointError(
            f"{folder} holds no weights that can be read: {link.name} is a link to"
            f" {link.readlink()}, which leads to no file",
            "fetch the file that it leads to, or download the folder again",
        )
    if any(file.name == _TENSORFLOW for file in files):
        return CheckpointError(
            f"{folder} is a model of TensorFlow (SavedModel)",
            "give a PyTorch checkpoint in {checkpoint.path}",
            options=options,
        )
    listed = first_few([file.name for file in files], _MAX_LISTED) or "nothing"
    problem = f"{folder} holds no weights that can be read: it holds {listed}"
    remedy = "give the folder or the file that holds the weights in {checkpoint.path}"
    largest = max(files, key=lambda file: file.stat().st_size, default=None)
    if largest is None:
        return CheckpointError(problem, remedy, options=options)
    try:
        kind = identify(MappedFile.of_file(largest))
    except (OSError, CheckpointError):
        return CheckpointError(problem, remedy, options=options)
    if kind.kind is Kind.PTH:
        remedy = f"give {largest}, if that is it, in {{checkpoint.path}}"
        return CheckpointError(problem, remedy, options=options)
    problem += f", and {largest.name} is {kind.description}"
    return CheckpointError(problem, remedy, options=options)


def _leads_nowhere(path: Path) -> bool:
    """Whether it is a link to what isn't there, or a loop of links."""
    return path.is_symlink() and not path.exists()
