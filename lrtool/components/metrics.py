"""The metrics that a configuration may name: torchmetrics' by short names, or an import path.

torchmetrics takes seconds to import, so only a built-in metric that is used imports it. What
outputs and targets mean, the loss tells: scores of classes, logits or probabilities of labels, or
values.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from lrtool.components import import_path as lookup
from lrtool.components.built_in_metrics import METRICS, BuiltIn, built_in
from lrtool.components.own_metrics import Imported, imported
from lrtool.errors import ComponentError, Problem, UserError
from lrtool.report.records import EpochRow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch

__all__ = ["METRICS", "build_metrics", "higher_is_better", "key"]

_LOWER_IS_BETTER = {"mae", "mse", "rmse", "perplexity"}


def key(name: str) -> str:
    """Return a metric's key in an epoch's row: its name, or the last part of an import path."""
    return name.rpartition(":")[2].rpartition(".")[2]


def higher_is_better(name: str, directories: Sequence[Path] = ()) -> bool | None:
    """Tell whether more is better; None where nobody says so.

    An import path leads to a function or class whose attribute `higher_is_better` may say so, as
    torchmetrics' have it.

    Raises:
        UserError: an import path leads nowhere.
    """
    if not lookup.is_import_path(name):
        return name not in _LOWER_IS_BETTER
    found = lookup.resolve(name, directories)
    says = inspect.getattr_static(found, "higher_is_better", None)  # runs no code of the user's
    return says if isinstance(says, bool) else None


def build_metrics(
    names: Sequence[str],
    *,
    loss: str,
    outputs: Any,
    targets: Any,
    device: torch.device,
    directories: Sequence[Path],
    loss_args: Mapping[str, Any] | None = None,
) -> dict[str, BuiltIn | Imported]:
    """Build metrics, try each on one batch, and return them empty, by their keys.

    The loss tells what a batch holds. Those of classes, and an import path with whole numbers as
    targets: scores (B, C, …) and class indices (B, …), or a probability for each class, of which
    the largest counts. Targets that equal `ignore_index` (−100) do not count. Those of
    probabilities or signs: (B, 1) for two classes, else (B, k, …) for k labels. All others: values
    (B, k).

    Built-in metrics:
        accuracy: over all tokens, pixels or labels alike.
        precision, recall, f1: of class 1 where there is one output; else the mean over the classes
            that targets or predictions hold, with 0 for a class of which nothing is found.
        auroc, average_precision: each class against all others, by softmax for scores of classes;
            the mean over those classes that some samples have and some have not. They keep all
            scores on the device.
        mae, mse, rmse: over all outputs.
        r2: the mean over outputs, 1 − Σ (y − ŷ)² / Σ (y − mean(y))², without those outputs whose
            targets are all the same.
        perplexity: exp of the mean of −ln softmax(scores)[class] over tokens, whatever label
            smoothing or class weights the loss has.

    An import path leads to a class, which is called without arguments, or to an object; either has
    `update(outputs, targets)`, `compute()` and `reset()`, as torchmetrics' have. Or it leads to a
    function `metric(outputs, targets)`, whose value is its mean over batches, weighted by samples:
    for a metric that is no mean over samples that is another number than its value over the part.
    Outputs in half precision come as float32.

    Args:
        names: of `METRICS`, or import paths.
        loss: torch's or Keras's name, or an import path.
        outputs: what the model returned for a real batch.
        targets: what the data hold for it.
        device: where the outputs and targets lie.
        directories: where modules of import paths are looked for.
        loss_args: the loss's arguments; `ignore_index` and `log_input` change what it reads.

    Raises:
        ComponentError: some metrics cannot be built or do not fit the batch; all of them at once.
    """
    built: dict[str, BuiltIn | Imported] = {}
    problems: list[Problem] = []
    taken = {*EpochRow.model_fields, "metrics", "kind", "not_finite"}  # of a row, and of its line
    for index, name in enumerate(names):
        try:
            if key(name) in built:
                raise UserError(f"another metric has the name '{key(name)}' already")  # noqa: TRY301  (one place words them all)
            if key(name) in taken:
                raise UserError(f"'{key(name)}' is a column of its own; rename the metric")  # noqa: TRY301  (likewise)
            metric: BuiltIn | Imported
            if lookup.is_import_path(name):
                metric = imported(name, device, directories)
            else:
                metric = built_in(
                    name, outputs, targets, loss=loss, loss_args=loss_args or {}, device=device
                )
            metric.probe(outputs, targets)
        except UserError as error:
            problems.append(Problem(("metrics", index), str(error)))
        else:
            built[key(name)] = metric
    if problems:
        raise ComponentError(problems)
    return built
