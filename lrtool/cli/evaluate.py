"""`lrtool evaluate`: a training's weights on the validation set."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lrtool.cli import flags
from lrtool.cli.launch import joined
from lrtool.cli.streams import stdout_for_the_result
from lrtool.engine.dynamo import without_dynamo
from lrtool.errors import LrtoolWarning, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lrtool.data.part import Part
    from lrtool.engine.evaluation import Metric
    from lrtool.experiment.experiment import Built, Experiment

MAY_CHANGE = {"data", "metrics", "runtime"}  # of a run's configuration


def evaluate(
    run: flags.Training,
    checkpoint: Annotated[
        Literal["best", "last"] | None,
        typer.Option(help="Which weights; the best ones, if there are any."),
    ] = None,
    sets: flags.Sets = None,
    device: flags.Device = None,
) -> None:
    """Evaluate a training's weights on its validation set, or on other data: metrics as JSON."""
    with stdout_for_the_result(), without_dynamo(), joined() as ranks:
        from lrtool.report.runs import resolve

        run = ranks.by_first(partial(resolve, run))
        config = run / "config.yaml"
        if not config.is_file():
            raise UserError(f"{run}: holds no run; there is no {config}")
        for key in (text.partition("=")[0] for text in sets or ()):
            if key.split(".")[0] not in MAY_CHANGE:
                raise UserError(f"--set {key}: evaluate may change only data, metrics and runtime")
        from lrtool.data.encoding import target_scale
        from lrtool.experiment.experiment import build
        from lrtool.experiment.preflight import metrics_of, run_evaluation_preflight
        from lrtool.report import marker, run_directory
        from lrtool.training.evaluated_data import open_evaluated_data
        from lrtool.training.stored_weights import load_stored_weights

        ranks.by_first(partial(run_directory.settle, run))
        # Early stopping names a metric of the training, which an evaluation may lack.
        changes = [*(sets or ()), "train.early_stopping=null"]
        settings, document = flags.read(config, changes, {"--device": ("runtime.device", device)})
        if marker.command_of(run) == "find":
            raise UserError(f"{run}: is the run of a find, which has no weights")
        own, _ = flags.read(config, None, {})
        data = open_evaluated_data(run, own, settings, document, ranks)
        experiment = run_evaluation_preflight(data.experiment, data.part)
        metrics = metrics_of(experiment)
        built = build(experiment, experiment.config.seed)
        stored = load_stored_weights(built.model, run, checkpoint, built.loss_fn)
        other = {} if data.other is None else {"data": data.other}
        values = _evaluate(experiment, built, data.part, metrics)
        if scale := target_scale(experiment.data.encoding):
            values["target"] = asdict(scale)
        facts = {"run": str(run), **asdict(stored), **other, **values}
    if ranks.first:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))


def _evaluate(
    experiment: Experiment, built: Built, part: Part, metrics: Mapping[str, Metric]
) -> dict[str, Any]:
    """Evaluate a model on a part of the data.

    Raises:
        UserError, OutOfMemoryError: model, loss, metrics and data do not fit each other.
    """
    from lrtool.cli.pump import pump
    from lrtool.cli.signals import Stop
    from lrtool.data import batches
    from lrtool.engine import evaluation
    from lrtool.engine.denominator import reduction_of
    from lrtool.experiment.failures import explain
    from lrtool.experiment.preflight import empty_validation
    from lrtool.report.records import finite_or_none

    samples = batches.ordered(
        part,
        batch_size=experiment.data.batch_size,
        device=experiment.runtime.device,
        ranks=experiment.runtime.ranks,
    )
    counts = evaluation.evaluate(built.model, built.loss_fn, samples, experiment.runtime, metrics)
    try:
        result = pump(counts, Stop(), ranks=experiment.runtime.ranks)
    except (Exception, SystemExit) as error:
        raise explain(experiment, error) from error
    if not result.samples:
        raise empty_validation()
    if result.denominator == 0:
        raise reduction_of(built.loss_fn).no_targets("the validation data")
    if not isfinite(result.loss):
        warnings.warn(f"the loss is {result.loss}", LrtoolWarning, stacklevel=2)
    values = {name: finite_or_none(value) for name, value in result.metrics.items()}
    return {"samples": result.samples, "validation_loss": finite_or_none(result.loss), **values}
