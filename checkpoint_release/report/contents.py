"""Everything that a report shows, read from the project's folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from checkpoint_release.card.benchmark import benchmark_of
from checkpoint_release.core.artifacts.benchmark import BENCHMARK, Benchmark
from checkpoint_release.core.artifacts.checkpoint import (
    CHECKPOINT,
    FACTS_FILE,
    WEIGHTS_FILE,
    CheckpointFacts,
)
from checkpoint_release.core.artifacts.error_tables import (
    CASE_ERRORS,
    POSITION_ERRORS,
    TABLES,
    CaseError,
    PositionError,
)
from checkpoint_release.core.artifacts.formats import FORMATS
from checkpoint_release.core.artifacts.manifest import Manifest, read_manifest
from checkpoint_release.core.artifacts.parity import (
    METRICS,
    PARITY_FOLDER,
    REPORT,
    ParityMetrics,
    ParityReport,
    read_report,
)
from checkpoint_release.core.artifacts.receipt import RECEIPT
from checkpoint_release.core.artifacts.release import EXAMPLE_PICTURE, PICTURES
from checkpoint_release.core.artifacts.typed import read_record
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import FileEntry
from checkpoint_release.core.training import training_facts
from checkpoint_release.pictures.picture import Picture
from checkpoint_release.release.contents import CARD_FOLDER
from checkpoint_release.report.comparison import Comparison, compare
from checkpoint_release.report.history import last_release, stated_files
from checkpoint_release.report.locked import LOCK, read_lock
from checkpoint_release.report.nodes import NodeErrors, node_errors
from checkpoint_release.report.stages import StageRow, stage_rows
from checkpoint_release.report.training import (
    Curve,
    curves_of_facts,
    curves_of_table,
    history_beside,
)
from checkpoint_release.report.weights import WeightGroup, weight_groups
from checkpoint_release.tensors.safetensors import open_safetensors

FAILURES = Path("scratch/parity")
"""What a parity check leaves that stops the pipeline."""
Content = TypeVar("Content")


@dataclass(frozen=True)
class Contents:
    """What a report shows; each part is read when it is asked for.

    Attributes:
        root: the project's folder.
        artifacts: the folder of all artifacts, relative to it.
        checkpoint_file: that the pipeline reads, relative to it; None: not known.
    """

    root: Path
    artifacts: str
    checkpoint_file: Path | None

    @property
    def folder(self) -> Path:
        """The folder of all artifacts."""
        return self.root / self.artifacts

    @cached_property
    def stages(self) -> list[StageRow]:
        """The pipeline's stages; nothing outside a pipeline."""
        return stage_rows(self.root)

    @cached_property
    def checkpoint(self) -> CheckpointFacts | None:
        """The checkpoint's facts; None where it wasn't read yet."""
        path = self.folder / CHECKPOINT / FACTS_FILE
        return _present(path, lambda: read_record(path, CheckpointFacts))

    @cached_property
    def training(self) -> dict[str, Any]:
        """The scalars among the checkpoint's training facts, by dotted names."""
        return training_facts(self.checkpoint.training) if self.checkpoint else {}

    @cached_property
    def curves(self) -> Mapping[str, Curve]:
        """Curves of training, by name: the facts' own, or those of the table beside the
        checkpoint.
        """
        found: Mapping[str, Curve] = {}
        if self.checkpoint:
            found = curves_of_facts(self.checkpoint.training)
        if not found and self.checkpoint_file:
            found = curves_of_table(history_beside(self.root / self.checkpoint_file))
        return found

    @cached_property
    def weights(self) -> list[WeightGroup]:
        """The checkpoint's weights by group; nothing where it wasn't read yet."""
        path = self.folder / CHECKPOINT / WEIGHTS_FILE
        groups = _present(path, lambda: weight_groups(open_safetensors(path)))
        return groups or []

    @cached_property
    def parity(self) -> ParityReport | None:
        """The verdict on every format; None where none was given yet."""
        path = self.folder / PARITY_FOLDER / REPORT
        return _present(path, lambda: read_report(path))

    @cached_property
    def case_errors(self) -> list[CaseError]:
        """The errors by case."""
        folder = self.folder / PARITY_FOLDER / TABLES
        path = folder / CASE_ERRORS.name
        return _present(path, lambda: CASE_ERRORS.read(folder)) or []

    @cached_property
    def position_errors(self) -> list[PositionError]:
        """The errors along the longest dimension."""
        folder = self.folder / PARITY_FOLDER / TABLES
        path = folder / POSITION_ERRORS.name
        return _present(path, lambda: POSITION_ERRORS.read(folder)) or []

    @cached_property
    def formats(self) -> dict[str, Manifest]:
        """The manifests of the enabled formats that were exported, by name."""
        found = {}
        for name in FORMATS:
            manifest = _present(self.folder / name, self._manifest_of(name))
            if manifest and manifest.enabled:
                found[name] = manifest
        return found

    @cached_property
    def nodes(self) -> NodeErrors | None:
        """The errors of the ONNX graph's nodes; None: there is no graph to run."""
        return node_errors(self.root, self.folder)

    @cached_property
    def benchmark(self) -> Benchmark | None:
        """Speed and memory of the formats as they are now; None: not measured."""
        path = self.folder / BENCHMARK
        return _present(path, lambda: benchmark_of(self.folder, self.formats))

    @cached_property
    def example(self) -> Picture | None:
        """The picture of the family's example; None: it has none."""
        path = self.folder / CARD_FOLDER / PICTURES / EXAMPLE_PICTURE
        if not path.is_file():
            return None
        alt = "The example of the model's family; the model card says what it shows."
        return Picture(path.read_text(encoding="utf-8"), alt)

    @cached_property
    def released(self) -> dict[str, FileEntry]:
        """The files of the release, by path; nothing where there is none yet."""
        path = self.folder / RECEIPT
        return stated_files(path.read_bytes()) if path.is_file() else {}

    @cached_property
    def comparison(self) -> Comparison | None:
        """What changed since the release before; None: git has none."""
        before = last_release(self.root, self.artifacts)
        if before is None or not self.released:
            return None
        lock, metrics = self.root / LOCK, self.folder / METRICS
        return compare(
            before,
            self.released,
            read_lock(lock.read_bytes()) if lock.is_file() else {},
            _present(metrics, lambda: read_record(metrics, ParityMetrics)),
        )

    @cached_property
    def failures(self) -> dict[str, str]:
        """Format that the last parity check stopped at → the script that shows it."""
        found = {}
        for script in sorted((self.root / FAILURES).glob("*/*.py")):
            found[script.parent.name] = script.relative_to(self.root).as_posix()
        return found

    def _manifest_of(self, name: str) -> Callable[[], Manifest]:
        return lambda: read_manifest(self.folder / name)


def _present(path: Path, read: Callable[[], Content]) -> Content | None:
    """What a file or folder holds; None where it isn't there.

    Args:
        path: of what is read.
        read: reads it.

    Raises:
        ArtifactError: it is there, and isn't as it was written.
    """
    if not path.exists():
        return None
    try:
        return read()
    except ArtifactError:
        if not path.exists():  # DVC took it away meanwhile
            return None
        raise
