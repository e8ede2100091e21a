"""Writing the report of a pipeline."""

from __future__ import annotations

from pathlib import Path

from checkpoint_release.core.files import replace_file
from checkpoint_release.report.contents import Contents
from checkpoint_release.report.page import report_page


def write_report(
    path: Path, root: Path, artifacts: Path, checkpoint: Path | None
) -> int:
    """Write the report, whole or not at all.

    Args:
        path: of the file.
        root: the project's folder, where dvc.yaml lies.
        artifacts: the folder of all artifacts, relative to it.
        checkpoint: the file that the pipeline reads, likewise; None: not known.

    Returns:
        Its size in bytes.

    Raises:
        ArtifactError: an artifact isn't as it was written.
    """
    contents = Contents(root, artifacts.as_posix(), checkpoint)
    page = report_page(contents).encode()
    replace_file(path, page)
    return len(page)
