"""What a model's outputs say: classes with probabilities, or values in the target's units."""

from __future__ import annotations

import csv
import io
import json
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lrtool.components.losses import LOSSES, canonical
from lrtool.data.encoding import CharacterInputs, Encoding, Values, class_names
from lrtool.errors import LrtoolWarning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lrtool.components.losses import Outputs
    from lrtool.config.schema import LossConfig


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Predictions for N samples; what they are not is None.

    Attributes:
        classes: the predicted class of each sample, (N,), or of each token, (N, T); None where an
            output is not finite.
        names: the names of all classes, in the order of the model's outputs.
        probabilities: of each class, (N, C) or (N, T, C); of each label, (N, k); of the predicted
            character alone, (N,). None if the loss does not make probabilities of the outputs.
        values: in the units of the target, (N,), or (N, k) for several.
    """

    classes: NDArray[Any] | None = None
    names: tuple[str, ...] | None = None
    probabilities: NDArray[np.float64] | None = None
    values: NDArray[np.float64] | None = None

    def rows(self) -> list[dict[str, Any]]:
        """Return a mapping for each sample; None stands for what is not finite."""
        columns: dict[str, list[Any]] = {}
        if self.classes is not None:
            columns["prediction"] = self.classes.tolist()
        if self.values is not None:
            columns["prediction"] = _finite(self.values)
        if self.probabilities is not None and self.probabilities.ndim == 1:
            columns["probability"] = _finite(self.probabilities)
        elif self.probabilities is not None:
            names = self.names or tuple(map(str, range(self.probabilities.shape[-1])))
            columns["probabilities"] = [
                dict(zip(names, row, strict=True)) if self.probabilities.ndim == 2 else row
                for row in _finite(self.probabilities)
            ]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def to_json(self) -> str:
        """Return a list of objects, one for each sample, each on a line."""
        lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in self.rows()]
        return "[\n" + ",\n".join(lines) + "\n]\n"

    def to_csv(self) -> str:
        """Return a table: a line for each sample, and a column for each class's probability."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        rows = self.rows()
        for number, row in enumerate(rows):
            cells: dict[str, Any] = {}
            for name, value in row.items():
                if isinstance(value, dict):
                    cells |= {f"probability_{label}": each for label, each in value.items()}
                elif name == "probabilities":
                    continue  # of tokens: too many for a line
                elif isinstance(value, list):
                    cells |= {f"{name}_{place}": each for place, each in enumerate(value)}
                else:
                    cells[name] = value
            if not number:
                writer.writerow(cells)
            writer.writerow([f"{v:.9g}" if isinstance(v, float) else v for v in cells.values()])
        return text.getvalue()


def predictions_of(outputs: Tensor, encoding: Encoding, loss: LossConfig) -> Predictions:
    """Return what outputs (N, …) say, judging by the loss and by what the run has learned.

    Of the user's own loss it is not known whether it makes probabilities of the outputs.

    Warns:
        LrtoolWarning: outputs are not finite.
    """
    wide = outputs.detach().cpu().double()
    bad = int((~wide.isfinite()).reshape(len(wide), -1).any(1).sum())
    if bad:
        warnings.warn(
            f"the model's outputs for {bad} of {len(wide)} samples are not finite: they have no"
            " prediction",
            LrtoolWarning,
            stacklevel=2,
        )
    entry = LOSSES.get(canonical(loss.name))
    gives = entry.outputs if entry else None
    if gives == "log rates" and not loss.args.get("log_input", True):
        gives = "values"
    probable = gives in {"logits", "probabilities"}
    if entry is not None and entry.one_output and wide.numel() == len(wide):
        if isinstance(encoding.targets, Values) and encoding.targets.name:  # a column of them
            share = wide.reshape(-1)
            return Predictions(values=(share.sigmoid() if gives == "logits" else share).numpy())
        return _yes_or_no(wide.reshape(-1), gives, _names(encoding))
    if entry is not None and entry.takes == "signs" and probable and wide.numel() == len(wide):
        return _yes_or_no(wide.reshape(-1), gives, [-1, 1])
    has_classes = encoding.classes is not None if entry is None else entry.takes == "classes"
    axis = _class_axis(wide, encoding) if entry is None else 1
    several = axis is not None and wide.ndim > 1 and wide.shape[axis] > 1
    if axis is not None and several and (has_classes or gives == "log-probabilities"):
        return _most_likely(wide.movedim(axis, -1), gives, encoding)
    if entry is not None and entry.takes in {"probabilities", "signs"} and probable:
        labels = wide.sigmoid() if gives == "logits" else wide
        return Predictions(probabilities=labels.reshape(len(labels), -1).numpy())
    values = wide.exp() if gives == "log rates" else wide
    if isinstance(encoding.targets, Values) and gives in {"values", "log rates", None}:
        values = values * encoding.targets.deviation + encoding.targets.mean
    one = values.ndim == 2 and values.shape[1] == 1
    return Predictions(values=(values[:, 0] if one else values).numpy())


def _class_axis(outputs: Tensor, encoding: Encoding) -> int | None:
    """Return the dimension of the classes where a loss of the user's may have moved it.

    That is the second one, or the last one if only that has as many numbers as there are classes;
    None if neither has, as of an embedding.
    """
    count = encoding.classes or encoding.num_outputs
    if outputs.ndim < 2 or count is None or outputs.shape[1] == count:
        return 1
    return -1 if outputs.shape[-1] == count else None


def _yes_or_no(yes: Tensor, gives: Outputs | None, names: Sequence[Any]) -> Predictions:
    """Return which of two classes one output (N,) means."""
    share, threshold = (yes.sigmoid(), 0.0) if gives == "logits" else (yes, 0.5)
    return _of_classes(torch.stack([1 - share, share], 1), (yes > threshold).long(), names)


def _most_likely(scores: Tensor, gives: Outputs | None, encoding: Encoding) -> Predictions:
    """Return the classes of the highest scores (…, C); of windows of text, those at the end."""
    text = isinstance(encoding.inputs, CharacterInputs)
    if text:
        scores = scores[:, -1]
    predicted = scores.argmax(-1)
    if gives == "logits":
        scores = scores.softmax(-1)
    elif gives == "log-probabilities":
        scores = scores.exp()
    found = _of_classes(scores, predicted, _names(encoding))
    if gives not in {"logits", "log-probabilities"}:
        return replace(found, probabilities=None)
    return replace(found, probabilities=scores.amax(-1).numpy()) if text else found


def _names(encoding: Encoding) -> Sequence[Any]:
    """Return the names of the first classes; those of the others are their numbers."""
    if names := class_names(encoding.targets):
        return names
    if isinstance(encoding.inputs, CharacterInputs):
        return [*encoding.inputs.characters, ""]  # the last one is any other
    return []


def _of_classes(probabilities: Tensor, predicted: Tensor, names: Sequence[Any]) -> Predictions:
    """Name the classes of probabilities (…, C) and predictions (…)."""
    values: list[Any] = [*names, *range(len(names), probabilities.shape[-1])]
    classes = np.array(values, dtype=object)[predicted.numpy()]
    classes[~probabilities.isfinite().all(-1).numpy()] = None
    return Predictions(classes, tuple(map(str, values)), probabilities.numpy())


def _finite(values: NDArray[np.float64]) -> list[Any]:
    """Return nested lists with None for what is not finite."""
    objects = values.astype(object)
    objects[~np.isfinite(values)] = None
    finite: list[Any] = objects.tolist()
    return finite
