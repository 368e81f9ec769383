"""The rate that a training uses, and where it comes from."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from lrtool.components import import_path
from lrtool.components.optimizers import OPTIMIZERS, default_rate
from lrtool.config.differences import differences
from lrtool.config.document import located
from lrtool.config.spelling import spell
from lrtool.errors import ConfigError, LrtoolWarning, Problem, UserError
from lrtool.experiment.reading import directories_of
from lrtool.report import report as reports
from lrtool.report.records import LearningRate
from lrtool.report.report import FindReport, TrainReport
from lrtool.report.run_directory import FIND

if TYPE_CHECKING:
    from pathlib import Path

    from lrtool.config.document import Document
    from lrtool.config.schema import Config
    from lrtool.experiment.experiment import Experiment
    from lrtool.report.report import AnyReport

# What a rate depends on: another value in the run that it came from deserves a warning.
DEPENDS_ON = (
    ("optimizer", "name"),
    ("optimizer", "args"),
    ("optimizer", "groups"),
    ("data", "source"),
    ("data", "args"),
    ("data", "batch_size"),
    ("train", "accumulate"),
    ("train", "schedule"),
    ("runtime", "precision"),
    ("model", "name"),
    ("model", "args"),
    ("loss", "name"),
    ("loss", "args"),
)


def of_run(run: Path) -> tuple[float, AnyReport]:
    """Return the rate that an earlier run found or trained with, and its report.

    Raises:
        UserError: there is no report, or it names no rate.
    """
    path = run / reports.FILE_NAME if run.is_dir() else run
    if not path.is_file():
        raise UserError(f"--lr-from {run}: holds no {reports.FILE_NAME}; give a run directory")
    report = reports.read(path)
    if isinstance(report, TrainReport):
        rate = report.learning_rate.value if report.learning_rate else None
    else:
        rate = report.suggestion.lr if report.suggestion else None
    if rate is None:
        reason = f": {report.reason}" if report.reason else ""
        raise UserError(f"--lr-from {run}: its report names no rate{reason}")
    return rate, report


def warn_of_differences(run: Path, report: AnyReport, config: Config) -> None:
    """Warn where a rate was found for something else than is trained now.

    Warns:
        LrtoolWarning: naming each key with both values.
    """
    now = config.model_dump(mode="json")
    found: list[str] = []
    for section, key in DEPENDS_ON:
        theirs = report.config.get(section)
        if not isinstance(theirs, dict) or key not in theirs:
            continue  # a report of find_lr knows little of what it was given
        found += map(str, differences(theirs[key], now[section][key], (section, key)))
    if found:
        warnings.warn(
            f"--lr-from {run}: its rate was found for another setting: {'; '.join(found)}",
            LrtoolWarning,
            stacklevel=2,
        )


def given(
    config: Config, document: Document, *, by_flag: bool, run: Path | None
) -> LearningRate | None:
    """Return the rate that flag, configuration or optimizer give; None: it must be found first.

    Args:
        config: whose `learning_rate` the flags have overridden.
        document: where its values stand.
        by_flag: `--lr` was given.
        run: of `--lr-from`.

    Raises:
        ConfigError: nothing gives one.

    Warns:
        LrtoolWarning: the optimizer's own `lr` is ignored.
    """
    own = config.optimizer.args.get("lr")
    if config.learning_rate is not None and own is not None:
        warnings.warn(
            f"optimizer.args.lr ({spell(own)}) is ignored: learning_rate is "
            f"{spell(config.learning_rate)}",
            LrtoolWarning,
            stacklevel=2,
        )
    if config.learning_rate == "auto":
        return None
    if config.learning_rate is not None:
        origin: Any = "run" if run else "flag" if by_flag else "config"
        value = float(config.learning_rate)
        return LearningRate(value=value, origin=origin, run=str(run) if run else None)
    problem = Problem(("optimizer", "args", "lr"), f"must be a number above 0, not {spell(own)}")
    if own is None:
        name, directories = config.optimizer.name, directories_of(config, document)
        cls = (
            import_path.resolve(name, directories)
            if import_path.is_import_path(name)
            else OPTIMIZERS[name]
        )
        own = default_rate(cls)
        words = f"{name} has no default rate; give learning_rate, or --lr auto"
        problem = Problem(("optimizer",), words)
    if not isinstance(own, int | float) or isinstance(own, bool) or own <= 0:
        with located(document):
            raise ConfigError(problem)
    return LearningRate(value=float(own), origin="optimizer", run=None)


def search_inside(directory: Path) -> FindReport | None:
    """Return the report of the search inside a training's run, if one came to its end there."""
    path = directory / FIND / reports.FILE_NAME
    if not path.exists():
        return None
    report = reports.read(path)
    if not isinstance(report, FindReport) or report.status != "completed":
        return None
    return report


def is_for(found: FindReport, experiment: Experiment) -> bool:
    """Tell whether a search was made with this configuration and these data."""
    same = found.config_hash == experiment.config.digest()
    return same and found.data is not None and found.data.hash == experiment.data.digest


def of_search(found: FindReport, run: Path) -> LearningRate | None:
    """Return the rate that a search has found; None if it found none, or was interrupted."""
    said = found.suggestion
    if found.status != "completed" or said is None or said.lr is None:
        return None
    return LearningRate(value=said.lr, origin="find", run=str(run))
