"""Data that have no length and never end, where all of them would have to be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrtool.data import batches
from lrtool.data.part import length
from lrtool.errors import ConfigError, Problem
from lrtool.experiment.failures import explain

if TYPE_CHECKING:
    from lrtool.data.part import Part
    from lrtool.errors import KeyPath
    from lrtool.experiment.experiment import Experiment

SEARCH_S = 10.0  # for the end of data without a length


def refuse_endless_training(experiment: Experiment) -> None:
    """Refuse a training that would wait for the end of data without one.

    Data without a length are read for `SEARCH_S` seconds at most to see whether they end.

    Raises:
        ConfigError: no end was found.
        UserError: reading fails.
    """
    config, data = experiment.config, experiment.data
    if config.train.epochs is not None:
        path, what = ("train", "epochs"), "an epoch is all of the training data"
        refuse_endless(experiment, data.train, path, f"{what}; give train.max_steps instead")
    elif config.metrics and data.validation is None:
        what = "without a validation set they are computed on all of the training data"
        advice = "return (train, validation), or remove the metrics"
        refuse_endless(experiment, data.train, ("metrics",), f"{what}; {advice}")
    if data.validation is not None:
        what = "all of the validation set is evaluated after each epoch; let it end"
        refuse_endless(experiment, data.validation, ("data", "source"), what)


def refuse_endless(experiment: Experiment, part: Part, path: KeyPath, why: str) -> None:
    """Refuse a part that has no length and does not end in `SEARCH_S` seconds.

    Args:
        experiment: whose part it is.
        part: training or validation set.
        path: of the key that asks for all of it.
        why: it must end, and what to do.

    Raises:
        ConfigError: no end was found.
        UserError: reading fails.
    """
    size = experiment.data.batch_size
    if length(part, size) is not None:
        return
    try:
        seen = batches.ends_within(part, SEARCH_S, batch_size=size)
    except (Exception, SystemExit) as error:
        failed = f"data.source {experiment.config.data.source} failed"
        raise explain(experiment, error, failed) from error
    seen = experiment.runtime.ranks.from_first(seen)  # whose clock decides for all
    if seen is not None:
        problem = (
            f"{why}. The data have no length, and no end within {SEARCH_S:g} seconds and {seen:,} "
            "samples; if there is one, give the dataset a __len__"
        )
        raise ConfigError(experiment.document.locate(Problem(path, problem)))
