"""`comparison.json`: which runs were compared, so that their page can be written anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from lrtool.errors import UserError
from lrtool.report import report as reports
from lrtool.report.files import reading, write_text
from lrtool.report.marker import COMPARED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lrtool.report.report import AnyReport


class ComparedRuns(BaseModel):
    """The content of `comparison.json`.

    Attributes:
        version: of this format.
        runs: the report of each run, by the run's name in the comparison.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    version: int = 1
    runs: dict[str, str]


def write(paths: Mapping[str, Path], directory: Path) -> None:
    """Write where the reports of runs are, whole, by the runs' names.

    Raises:
        OSError: the directory cannot be written, or the disk is full.
    """
    runs = ComparedRuns(runs={name: str(path.resolve()) for name, path in paths.items()})
    text = json.dumps(runs.model_dump(), indent=1, ensure_ascii=False)
    write_text(directory / COMPARED, f"{text}\n")


def read(directory: Path) -> dict[str, AnyReport]:
    """Read the reports of the runs that were compared, by their names.

    Raises:
        UserError: the list is missing or damaged, or a run is no longer there.
    """
    path = directory / COMPARED
    if not path.is_file():
        raise UserError(
            f"{directory}: a comparison of an older lrtool, which has no {COMPARED}; compare the "
            "runs again"
        )
    with reading(path, "a list of compared runs"):
        compared = ComparedRuns.model_validate_json(path.read_bytes())
    return {name: reports.read(Path(file)) for name, file in compared.runs.items()}
