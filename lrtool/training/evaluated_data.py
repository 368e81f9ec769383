"""Which samples `evaluate` judges: a run's own validation set, or the whole of another data set."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrtool.components.import_path import is_import_path
from lrtool.config.differences import differences
from lrtool.config.spelling import spell
from lrtool.data import encoding as encodings
from lrtool.errors import ConfigError, DataError, LrtoolWarning, Problem, UserError
from lrtool.experiment.experiment import open_experiment
from lrtool.ranks import ALONE
from lrtool.report import report as reports
from lrtool.report.run_directory import ENCODING

if TYPE_CHECKING:
    from pathlib import Path

    from lrtool.config.differences import Difference
    from lrtool.config.document import Document
    from lrtool.config.schema import Config
    from lrtool.data.encoding import Encoding, StoredSplit
    from lrtool.data.part import Part
    from lrtool.errors import KeyPath
    from lrtool.experiment.experiment import Experiment
    from lrtool.ranks import Ranks

LOADING = {"batch_size", "workers", "timeout"}  # may change, as they do not change the samples
# Arguments of a source that tell how a file is written, rather than what a run learns of it.
OF_A_FILE = {
    "path",
    "delimiter",
    "decimal",
    "thousands",
    "na_values",
    "header",
    "inputs",
    "targets",
}


@dataclass(frozen=True, slots=True)
class EvaluatedData:
    """An experiment whose data are read as a run read its own.

    Attributes:
        experiment: the run's configuration with these data.
        part: the samples to judge.
        other: the path or factory of another data set than the run's own; None: the run's own.
    """

    experiment: Experiment
    part: Part
    other: str | None = None


def open_evaluated_data(
    run: Path, own: Config, config: Config, document: Document, ranks: Ranks = ALONE
) -> EvaluatedData:
    """Read the data to evaluate on, with what a run has learned.

    Args:
        run: its directory.
        own: its configuration.
        config: the same with changes.
        document: of `config`.
        ranks: that share the work.

    Raises:
        UserError: the run's own data have changed, another data set does not fit the run, a change
            contradicts what the run has learned, or there are no samples to judge.

    Warns:
        LrtoolWarning: it cannot be told whether the data are the same.
    """
    encoding = encodings.read(run)
    model = config.model.model_copy(update={"checkpoint": None, "partial": False})
    config = config.model_copy(update={"model": model})  # the run's own weights follow
    changes = [
        change
        for change in differences(own.data.model_dump(), config.data.model_dump())
        if change.path[0] not in LOADING
    ]
    if is_import_path(own.data.source):
        return _of_a_factory(run, config, document, encoding, changes, ranks=ranks)
    other = _other_path(own, document, changes)
    if other is None:
        experiment = open_experiment(config, document, encoding, ranks=ranks)
        return _own_validation(run, experiment, encoding)
    if encoding is None:
        raise UserError(
            f"{run}: has no {ENCODING}, which tells how to read other data; runs of older versions"
            " can be evaluated on their own validation set alone"
        )
    experiment = _open_other(config, document, encoding, other, 0, ranks=ranks)
    return _if_its_own(experiment, encoding, other) or EvaluatedData(
        experiment, experiment.data.train, other
    )


def _open_other(
    config: Config,
    document: Document,
    encoding: Encoding,
    path: str,
    validation: float,
    *,
    ranks: Ranks,
) -> Experiment:
    """Open an experiment with other data, of which `validation` are split off."""
    update = {"validation": validation, "args": {**config.data.args, "path": path}}
    data = config.data.model_copy(update=update)
    changed = config.model_copy(update={"data": data})
    return open_experiment(changed, document, encoding, ranks=ranks)


def _if_its_own(experiment: Experiment, encoding: Encoding, path: str) -> EvaluatedData | None:
    """Return a run's own validation set if the path leads to the run's own data; else None.

    They may have been moved, copied, or named in another way.

    Warns:
        LrtoolWarning: it does, or to the training samples alone.
    """
    split, config = encoding.split, experiment.config
    if experiment.data.digest == split.train_digest:
        message = f"{path} holds the samples that the run was trained on"
        warnings.warn(message, LrtoolWarning, stacklevel=3)
        return None
    size = sum(count or 0 for count in split.samples.values())
    if not isinstance(split.validation, int | float) or size != experiment.data.train.size:
        return None
    document, ranks = experiment.document, experiment.runtime.ranks
    again = _open_other(config, document, encoding, path, split.validation, ranks=ranks)
    if again.data.digest != split.digest or again.data.validation is None:
        return None
    message = f"{path} holds the run's own data: evaluated on their validation set"
    warnings.warn(message, LrtoolWarning, stacklevel=3)
    return EvaluatedData(again, again.data.validation)


def _other_path(own: Config, document: Document, changes: list[Difference]) -> str | None:
    """Return the path of another data set than the run's own; None: there is none.

    Raises:
        ConfigError: a change contradicts what the run has learned.
    """
    source = own.data.source
    paths: dict[KeyPath, str] = {
        change.path: change.now
        for change in changes
        if change.path in {("args", "path"), ("validation",)} and isinstance(change.now, str)
    }
    if "path" not in own.data.args:  # it has no files
        paths = {}
    problems: list[tuple[KeyPath, str]] = []
    if len(paths) > 1:
        problems.append((("validation",), "give data.args.path or data.validation, not both"))
    for change in changes:
        path = change.path
        if path == ("source",):
            problems = [(path, f"the run was trained on {source}, and can read nothing else")]
            break
        if path in paths or (paths and path[0] == "args" and path[1] in OF_A_FILE):
            continue
        if path == ("validation",):
            what = "which samples are for validation was chosen for the training; leave it out"
            if "path" in own.data.args:
                what += ", or give the path of another data set"
        elif path[1] in OF_A_FILE:
            what = "is for the files of another data set; name it with data.args.path"
        else:
            before = "not given" if change.before is None else spell(change.before)
            what = f"was {before} in the training, and the model was made for that; leave it out"
        problems.append((path, what))
    if problems:
        found = [Problem(("data", *path), what) for path, what in problems]
        raise ConfigError(*map(document.locate, found))
    return next(iter(paths.values()), None)


def _own_validation(run: Path, experiment: Experiment, encoding: Encoding | None) -> EvaluatedData:
    """Return the validation set of a run, which must be the one of its training."""
    part = experiment.data.validation
    if part is None:
        raise UserError("nothing to evaluate on: the data have no validation set")
    now = experiment.data.encoding.split
    changed = _change(run, now, encoding)
    if changed is not None:
        words = (
            f"{run}: {changed}: its validation samples are not those of the training, and may hold"
            " some that it was trained on"
        )
        if now.validation is not None:
            raise DataError(f"{words}; --set data.args.path=… names another data set")
        warnings.warn(words, LrtoolWarning, stacklevel=2)
    return EvaluatedData(experiment, part)


def _change(run: Path, now: StoredSplit, encoding: Encoding | None) -> str | None:
    """Return how the data differ from those of the training; None if they do not."""
    if encoding is not None:
        before, digest = dict(encoding.split.samples), encoding.split.digest
    else:
        report = run / reports.FILE_NAME
        facts = reports.read(report).data if report.exists() else None
        if facts is None or facts.hash is None:
            warnings.warn(
                f"{run}: has no {ENCODING}, as runs of older versions: that the data are still"
                " those of the training is not checked",
                LrtoolWarning,
                stacklevel=3,
            )
            return None
        before, digest = dict(facts.samples), facts.hash
    for name, count in now.samples.items():
        if before.get(name, count) != count:
            counts = f"{name}: {count} samples, not {before[name]}"
            return f"the data have changed since the training ({counts})"
    return "the data have changed since the training" if now.digest != digest else None


def _of_a_factory(
    run: Path,
    config: Config,
    document: Document,
    encoding: Encoding | None,
    changes: list[Difference],
    *,
    ranks: Ranks,
) -> EvaluatedData:
    """Return what a user's own factory gives.

    With other arguments it gives other data: their validation set, or all of them without one.
    """
    for change in changes:
        what = "which samples are for validation was chosen for the training; leave it out"
        if change.path == ("source",) and not is_import_path(config.data.source):
            what = "the run was trained on data of a factory, and can read nothing else"
        elif change.path != ("validation",):
            continue
        raise ConfigError(document.locate(Problem(("data", *change.path), what)))
    if not changes:
        experiment = open_experiment(config, document, encoding, ranks=ranks)
        return _own_validation(run, experiment, encoding)
    data = config.data.model_copy(update={"validation": 0})
    config = config.model_copy(update={"data": data})
    experiment = open_experiment(config, document, encoding, ranks=ranks)
    part = experiment.data.validation
    if part is None:
        warnings.warn(
            f"{config.data.source} returns no validation set: all its samples are evaluated on",
            LrtoolWarning,
            stacklevel=2,
        )
    return EvaluatedData(experiment, part or experiment.data.train, config.data.source)
