"""The rate that a training uses, and where it comes from."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from lrtool.components import import_path
from lrtool.components.optimizers import OPTIMIZERS, default_rate, family
from lrtool.config.differences import differences
from lrtool.config.document import located
from lrtool.config.spelling import number, spell
from lrtool.engine import freeze
from lrtool.errors import ConfigError, LrtoolWarning, Problem, UserError, key_path
from lrtool.experiment.experiment import build, samples_per_update, training_steps
from lrtool.experiment.reading import directories_of
from lrtool.report import report as reports
from lrtool.report.records import LearningRate
from lrtool.report.report import FindReport, TrainReport
from lrtool.report.run_directory import FIND, settle

if TYPE_CHECKING:
    from pathlib import Path

    from lrtool.config.document import Document
    from lrtool.config.schema import Config
    from lrtool.experiment.experiment import Experiment
    from lrtool.report.report import AnyReport

# A good rate depends on these keys: `--lr-from` a run with other values gives a warning.
DEPENDS_ON = (
    ("optimizer", "name"),
    ("optimizer", "args"),
    ("optimizer", "inner"),
    ("optimizer", "groups"),
    ("optimizer", "layer_decay"),
    ("optimizer", "decay_norm_and_bias"),
    ("data", "source"),
    ("data", "args"),
    ("data", "batch_size"),
    ("train", "accumulate"),
    ("train", "schedule"),
    ("train", "gradient_clip_norm"),
    ("runtime", "precision"),
    ("model", "name"),
    ("model", "args"),
    ("model", "peft"),
    ("loss", "name"),
    ("loss", "args"),
)
# These make up the batch of an update; the same batch in other parts has the same rate.
BATCH_KEYS = {("data", "batch_size"), ("train", "accumulate")}
# A training more than so many times longer or shorter is another setting too.
ANOTHER_LENGTH = 5
# How the rate goes with that batch: the rule, and the power.
BATCH_RULES = {
    "adaptive": (
        "square-root rule for adaptive optimizers (Malladi et al. 2022, arXiv:2205.10287)",
        0.5,
    ),
    "proportional": ("linear rule for SGD (Goyal et al. 2017, arXiv:1706.02677)", 1.0),
}


def of_run(run: Path) -> tuple[float, AnyReport]:
    """Return the rate that an earlier run found or trained with, and its report.

    Raises:
        UserError: there is no report, or no rate in it.
    """
    settle(run)
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


def warn_of_differences(run: Path, rate: float, report: AnyReport, experiment: Experiment) -> None:
    """Warn if a rate was found with other settings than those of this training.

    Args:
        run: of `--lr-from`.
        rate: what it found or trained with.
        report: its report.
        experiment: that the rate is to be used for.

    Warns:
        LrtoolWarning: names each key with both values; for another batch of an update, also the
            rule by which rates are scaled, and for another length how rates go with it.
    """
    now = experiment.config.model_dump(mode="json")
    before = report.data.samples_per_update if report.data else None
    batch = samples_per_update(experiment)
    changes = _other_start(report, experiment)
    for section, key in DEPENDS_ON:
        if (section, key) in BATCH_KEYS and before == batch:
            continue
        found_with = report.config.get(section)
        if isinstance(found_with, dict) and key in found_with:  # a report of find_lr has few keys
            changes += map(str, differences(found_with[key], now[section][key], (section, key)))
    if before is not None and before != batch:
        same_optimizer = not any(change.startswith("optimizer.") for change in changes)
        scaled = rate if same_optimizer else None
        changes.append(_another_batch(before, batch, scaled, experiment))
    changes += _another_length(report, experiment)
    if changes:
        warnings.warn(
            f"--lr-from {run}: its rate was found for another setting: {'; '.join(changes)}",
            LrtoolWarning,
            stacklevel=2,
        )


def _other_start(report: AnyReport, experiment: Experiment) -> list[str]:
    """Say where pretrained weights, by their values, and the frozen part are other than then."""
    before, now, changes = report.model, experiment.pretrained, list[str]()
    if before is None or not before.trained:  # an older version's report does not tell
        return changes
    was = before.checkpoint
    if was and now and was.path == str(now.path.resolve()) and was.hash != now.digest:
        changes.append(f"the pretrained weights in {was.path} have changed since")
    elif (was and was.hash) != (now and now.digest):
        then, there = was.path if was else "random", now.path if now else "random"
        changes.append(f"the weights at the start were {then}, are {there}")
    frozen = freeze.parts(build(experiment, experiment.config.seed).model)[1]
    if frozen != before.frozen:
        then, there = (", ".join(part) or "nothing" for part in (before.frozen, frozen))
        changes.append(f"the frozen part was {then}, is {there}")
    return changes


def _another_batch(before: int, now: int, rate: float | None, experiment: Experiment) -> str:
    """Say that the batch of an update is another, and how rates are scaled then.

    Args:
        before: samples of an update, where the rate was found.
        now: samples of an update.
        rate: that was found; None: with another optimizer, so that no rule tells the new one.
        experiment: with the optimizer.
    """
    words = f"the batch of an update over all ranks was {before:,}, is {now:,}"
    rule = BATCH_RULES.get(family(build(experiment, experiment.config.seed).optimizer) or "")
    if rule is None:
        return words
    name, power = rule
    factor = (now / before) ** power
    words += f": the {name} scales rates by {number(factor, 3)}"
    if rate is None:
        return words
    return f"{words}, from {number(rate, 3)} to {number(rate * factor, 3)}"


def _another_length(report: AnyReport, experiment: Experiment) -> list[str]:
    """Say that the training is far longer or shorter than the one that the rate was found for."""
    suggestion = report.suggestion if isinstance(report, FindReport) else None
    before, now = suggestion and suggestion.for_steps, training_steps(experiment)
    if not before or not now or max(before, now) <= ANOTHER_LENGTH * min(before, now):
        return []
    words = "best rates fall by about half for ten times as many"
    source = "Bjorck et al. 2024, arXiv:2409.19913"
    return [f"the training had {before:,} steps, has {now:,}: {words} ({source})"]


def given_rate(
    config: Config, document: Document, *, by_flag: bool, run: Path | None
) -> LearningRate | None:
    """Return the rate that flag, configuration or optimizer give; None for `auto`.

    Args:
        config: with the flags' values.
        document: its file, for the places of problems.
        by_flag: `--lr` was given.
        run: of `--lr-from`.

    Raises:
        ConfigError: there is no rate.

    Warns:
        LrtoolWarning: the optimizer's own `lr` is ignored.
    """
    rated = config.optimizer.inner or config.optimizer
    path = ("optimizer", "inner") if config.optimizer.inner else ("optimizer",)
    own = rated.args.get("lr")
    if config.learning_rate is not None and own is not None:
        warnings.warn(
            f"{key_path((*path, 'args', 'lr'))} ({spell(own)}) is ignored: learning_rate is "
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
    problem = Problem((*path, "args", "lr"), f"must be a number above 0, not {spell(own)}")
    if own is None:
        name, directories = rated.name, directories_of(config, document)
        own_class = import_path.is_import_path(name)
        own = default_rate(
            import_path.resolve(name, directories) if own_class else OPTIMIZERS[name]
        )
        words = f"{name} has no default rate; give learning_rate, or --lr auto"
        problem = Problem(path, words)
    if not isinstance(own, int | float) or isinstance(own, bool) or own <= 0:
        with located(document):
            raise ConfigError(problem)
    return LearningRate(value=float(own), origin="optimizer", run=None)


def search_inside(directory: Path) -> FindReport | None:
    """Return the report of the search inside a training's run, if it was completed.

    Warns:
        LrtoolWarning: it is damaged.
    """
    path = directory / FIND / reports.FILE_NAME
    if not path.exists():
        return None
    try:
        report = reports.read(path)
    except UserError as error:
        warnings.warn(f"{error}; the search is left out", LrtoolWarning, stacklevel=2)
        return None
    if not isinstance(report, FindReport) or report.status != "completed":
        return None
    return report


def is_for(report: FindReport, experiment: Experiment) -> bool:
    """Tell whether a search had this configuration, these data and these pretrained weights."""
    same = report.config_hash == experiment.config.digest()
    checkpoint, pretrained = report.model and report.model.checkpoint, experiment.pretrained
    same = same and (checkpoint and checkpoint.hash) == (pretrained and pretrained.digest)
    if not same or report.data is None or report.data.hash != experiment.data.digest:
        return False
    # of data that are not in memory only their number is known
    return report.data.samples == experiment.data.taken


def of_search(report: FindReport, run: Path) -> LearningRate | None:
    """Return the rate that a search found; None if it found none, or was interrupted."""
    suggestion = report.suggestion
    if report.status != "completed" or suggestion is None or suggestion.lr is None:
        return None
    return LearningRate(value=suggestion.lr, origin="find", run=str(run))
