"""The tables beside the parity report: CSV, which `dvc plots` and the report draw.

plots/outputs.csv   the largest error by output and format
plots/cases.csv     the error by case, output and format, and the element that is worst
plots/along.csv     the error along the longest dynamic dimension
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import REMAKE

TABLES = "plots"
"""The folder of the tables, in that of the parity check."""
FLOOR = "noise floor"
"""What eager float32 is called among the formats."""


class OutputError(msgspec.Struct, frozen=True, kw_only=True):
    """The largest error of one output of one format.

    Attributes:
        output, format: their names.
        relative_error: as a share of the output's magnitude in the same case.
        share_of_limit: by the rule that applied; 1 is the limit.
    """

    output: str
    format: str
    relative_error: float
    share_of_limit: float


class CaseError(msgspec.Struct, frozen=True, kw_only=True):
    """The error of one output of one format in one case.

    Attributes:
        case, output, format: their names.
        share_of_limit: by the rule that applied; 1 is the limit.
        times_floor: in multiples of the noise floor; None for whole numbers.
        max_abs_error: in the output's own unit.
        index: of the element with that error, as "3,0,17"; empty for a scalar.
        expected, got: that element in float64, and as the format computes it.
    """

    case: str
    output: str
    format: str
    share_of_limit: float
    times_floor: float | None = None
    max_abs_error: float
    index: str = ""
    expected: float
    got: float


class PositionError(msgspec.Struct, frozen=True, kw_only=True):
    """The root mean square error at one position of the longest dimension.

    Attributes:
        position: counted from 0.
        dimension: its name.
        output, format: their names; FLOOR stands for eager float32.
        relative_error: as a share of the output's magnitude.
    """

    position: int
    dimension: str
    output: str
    format: str
    relative_error: float


Row = TypeVar("Row", bound=msgspec.Struct)


@dataclass(frozen=True)
class Table(Generic[Row]):
    """A table among those of the parity check.

    Attributes:
        name: of its file.
        kind: of its rows; a column for each field.
    """

    name: str
    kind: type[Row]

    def write(self, folder: Path, rows: Iterable[Row]) -> None:
        """Write the table, with "\\n" at the end of lines on every system.

        Args:
            folder: of the tables; it is there.
            rows: in the order of the file.
        """
        with (folder / self.name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.kind.__struct_fields__)
            writer.writerows(map(msgspec.structs.astuple, rows))

    def read(self, folder: Path) -> list[Row]:
        """Read the table that `write` wrote.

        Args:
            folder: of the tables.

        Raises:
            ArtifactError: it is missing, or isn't as it was written.
        """
        path = folder / self.name
        try:
            with path.open(newline="", encoding="utf-8") as file:
                cells = [_filled(row) for row in csv.DictReader(file)]
            rows = [msgspec.convert(row, self.kind, strict=False) for row in cells]
        except FileNotFoundError:
            raise ArtifactError(f"{path} is missing", REMAKE) from None
        except (ValueError, csv.Error, msgspec.ValidationError) as error:
            problem = f"{path} is not as it was written: {error}"
            raise ArtifactError(problem, REMAKE) from None
        return rows


def _filled(row: Mapping[str, Any]) -> dict[str, str]:
    """The cells of a row that hold something; the others have their defaults."""
    return {name: cell for name, cell in row.items() if cell}


OUTPUT_ERRORS = Table("outputs.csv", OutputError)
CASE_ERRORS = Table("cases.csv", CaseError)
POSITION_ERRORS = Table("along.csv", PositionError)
