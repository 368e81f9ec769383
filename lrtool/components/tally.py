"""What predictions add up to: counts of classes, or predicted and actual values.

A `Tally` observes an evaluation. It must never be the reason that a training fails: what it cannot
read it leaves out, and says why.
"""

from __future__ import annotations

from itertools import zip_longest
from math import floor, inf, log10
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lrtool.components.import_path import is_import_path
from lrtool.components.losses import LOSSES, canonical
from lrtool.components.metric_inputs import Compares, Reading, prepare, read, why_not
from lrtool.errors import UserError, said
from lrtool.report.records import ClassFacts, PredictionFacts, ValueFacts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from lrtool.components.metric_inputs import Units
    from lrtool.ranks import Ranks

MOST_CLASSES = 200  # with figures of their own
MOST_IN_MATRIX = 50
MOST_VALUES = 4  # numbers of a sample that are shown
MOST_KEPT = 1_000_000  # samples of a regression
POINTS = 300
BINS = 30
UNKNOWN = (
    "what outputs mean is not known with a loss of your own; a built-in metric, such as accuracy "
    "or mae, says so"
)
MOST_HELD = 1_000_000  # numbers in outputs that have not been read


class Tally:
    """Counts of right and wrong classes, or values beside what was predicted for them.

    Built-in losses and metrics tell what outputs and targets are. Of the user's own loss it is not
    known, unless a built-in metric is asked for, which says so.

    Args:
        loss: torch's or Keras's name, or an import path.
        loss_args: as in `metric_inputs.read`.
        metrics: of the configuration.
        names: of classes, in the order of the outputs, as far as they are known.
        target: the name of the target's column; None without one.
        units: of values that were standardised.
        seed: draws the samples that are kept one by one.
    """

    merges = True

    def __init__(
        self,
        loss: str,
        loss_args: Mapping[str, Any],
        *,
        metrics: Sequence[str] = (),
        names: Sequence[str] = (),
        target: str | None = None,
        units: Units | None = None,
        seed: int = 0,
    ) -> None:
        self._loss, self._loss_args = loss, loss_args
        self._known = canonical(loss) in LOSSES or not all(map(is_import_path, metrics))
        self._names, self._target, self._units, self._seed = names, target, units, seed
        self._reading: Reading | None = None  # of the first batch
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._problem: str | None = None if self._known else UNKNOWN
        self._counts: NDArray[np.int64] | None = None
        self._samples = 0
        self._batches: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
        self._held: list[tuple[Tensor, Tensor]] = []
        self._size = 0

    def update(self, outputs: Any, targets: Any) -> None:
        """Add a batch."""
        if self._problem is not None:
            return
        try:
            self._problem = self._hold(outputs, targets)
            if self._size > MOST_HELD:
                self._read_held()
        except Exception as error:  # noqa: BLE001  (it must not end a training)
            self._problem = _words(error)

    def _hold(self, outputs: Any, targets: Any) -> str | None:
        """Keep a copy of a batch, to be read if its epoch is the best; return why not, or None."""
        if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
            return "outputs or targets are not a tensor"
        if self._reading is None:
            reading = read(self._loss, self._loss_args, outputs, targets)
            if (problem := _why_not(reading, outputs)) is not None:
                return problem
            self._reading = reading
        self._held.append((outputs.detach().clone(), targets.clone()))
        self._size += outputs.numel()
        return None

    def _read_held(self) -> None:
        """Add the batches that are held to the counts, or to the values."""
        held, self._held, self._size = self._held, [], 0
        reading = self._reading
        if reading is None or not held:
            return
        sizes = [len(targets) for _, targets in held]
        outputs, targets = (torch.cat(each) for each in zip(*held, strict=True))
        with torch.no_grad():
            predicted, true, nan = prepare(_compares(reading), reading, outputs, targets)
        if reading.kind == "values":
            each = (both[:, :MOST_VALUES].cpu().numpy() for both in (predicted, true))
            parts = (np.split(both, np.cumsum(sizes)[:-1]) for both in each)
            self._batches += zip(*parts, strict=True)
            self._samples += sum(sizes)
            if self._samples > MOST_KEPT:
                self._problem = f"there are more than {MOST_KEPT:,} validation samples"
                self._batches.clear()
            return
        shares = targets.is_floating_point() and reading.targets != "signs"
        if bool(nan):
            self._problem = "some outputs or targets are NaN"
        elif shares and bool(((targets != 0) & (targets != 1)).any()):
            self._problem = "some targets lie between 0 and 1"
        self._count(reading, predicted.cpu().numpy(), true.cpu().numpy())

    def _count(self, reading: Reading, predicted: NDArray[Any], true: NDArray[Any]) -> None:
        """Add to the counts: a matrix of classes, or three numbers for each label."""
        if reading.kind == "labels":
            each = (true & predicted, predicted, true)
            counts = np.stack([labels.reshape(-1, reading.width).sum(0) for labels in each])
        else:
            width = max(reading.width, 2)
            places = true.reshape(-1) * width + predicted.reshape(-1)
            counts = np.bincount(places, minlength=width * width).reshape(width, width)
        self._samples += len(true)
        self._counts = counts if self._counts is None else self._counts + counts

    def facts(self, ranks: Ranks) -> PredictionFacts:
        """Return what the batches of all ranks add up to. Called on all of them."""
        own = self._own()
        problems, kinds, samples, counts, batches = zip(*ranks.gather(own), strict=True)
        problem = next(filter(None, problems), None)
        if problem is not None:
            return PredictionFacts(0, reason=problem)
        known = [each for each in counts if each is not None]
        try:
            if known:
                return self._of_classes(sum(samples), sum(known), labels="labels" in kinds)
            turns = [batch for turn in zip_longest(*batches) for batch in turn if batch is not None]
            if not turns:
                return PredictionFacts(0, reason="there was nothing to count")
            predicted, true = (np.concatenate(each) for each in zip(*turns, strict=True))
            return self._of_values(predicted, true)
        except Exception as error:  # noqa: BLE001  (it must not end a training)
            return PredictionFacts(0, reason=_words(error))

    def _own(self) -> tuple[str | None, str | None, int, NDArray[np.int64] | None, list[Any]]:
        """Return what this rank has seen: problem, kind, samples, counts, batches of values."""
        try:
            if self._problem is None:
                self._read_held()
        except Exception as error:  # noqa: BLE001  (it must not end a training)
            self._problem = _words(error)
        if self._problem is not None:
            return self._problem, None, 0, None, []
        kind = self._reading.kind if self._reading else None
        return None, kind, self._samples, self._counts, self._batches

    def _of_classes(
        self, samples: int, counts: NDArray[np.int64], *, labels: bool
    ) -> PredictionFacts:
        if labels:
            right, predicted, support = counts
        else:
            right, predicted, support = counts.diagonal(), counts.sum(0), counts.sum(1)
        names = [*map(str, self._names), *map(str, range(len(self._names), len(right)))]
        classes = tuple(
            ClassFacts(name, s, p, r, _share(r, p), _share(r, s), _share(2 * r, p + s))
            for name, r, p, s in zip(
                names, right.tolist(), predicted.tolist(), support.tolist(), strict=False
            )
        )
        if labels:
            return PredictionFacts(samples, classes)
        if len(right) > MOST_IN_MATRIX:
            return PredictionFacts(
                samples,
                classes,
                reason=f"with {len(right)} classes there is no confusion matrix, which is kept up "
                f"to {MOST_IN_MATRIX}",
            )
        return PredictionFacts(samples, classes, tuple(map(tuple, counts.tolist())))

    def _of_values(
        self, predicted: NDArray[np.float64], true: NDArray[np.float64]
    ) -> PredictionFacts:
        if self._units is not None:
            predicted, true = (
                each * self._units.deviation + self._units.mean for each in (predicted, true)
            )
        bad = int((~(np.isfinite(predicted) & np.isfinite(true))).any(1).sum())
        if bad:
            return PredictionFacts(
                0, reason=f"predictions or targets of {bad} of {len(true)} samples are not finite"
            )
        drawn = np.random.default_rng(self._seed).permutation(len(true))[:POINTS]
        shown = np.sort(drawn)
        width = self._reading.width if self._reading else true.shape[1]
        reason = None
        if width > true.shape[1]:
            reason = f"the first {true.shape[1]} of {width} outputs are shown"
        values = tuple(
            _of_one(self._target if width == 1 else None, predicted[:, k], true[:, k], shown)
            for k in range(true.shape[1])
        )
        return PredictionFacts(len(true), values=values, reason=reason)


def _why_not(reading: Reading, outputs: Tensor) -> str | None:
    """Return why nothing can be said of such batches; None if something can."""
    if outputs.ndim > 2 and outputs[0].numel() > 1:
        what = "classes" if reading.kind == "classes" else "outputs"
        return f"a sample has many {what}: outputs of shape {tuple(outputs.shape)}"
    if reading.kind != "values" and reading.width > MOST_CLASSES:
        return f"{reading.width:,} classes are more than {MOST_CLASSES}"
    return why_not(_compares(reading), reading)


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else said(error)


def _compares(reading: Reading) -> Compares:
    return "values" if reading.kind == "values" else "classes"


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _of_one(
    name: str | None,
    predicted: NDArray[np.float64],
    true: NDArray[np.float64],
    shown: NDArray[np.int64],
) -> ValueFacts:
    residuals = predicted - true
    decimals = _decimals(float(true.std()))
    counts, edges = _histogram(residuals)
    scale = float(np.abs(residuals).max()) or 1.0  # squares must not overflow
    return ValueFacts(
        name=name,
        actual=tuple(true[shown].round(decimals).tolist()),
        predicted=tuple(predicted[shown].round(decimals).tolist()),
        mean_residual=float(residuals.mean()),
        rmse=scale * float(np.sqrt(np.square(residuals / scale).mean())),
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
    )


def _decimals(deviation: float) -> int:
    """Return the decimals of values that float32 can tell apart: 138.0 rather than 137.99999997."""
    return 5 - floor(log10(deviation)) if 1e-200 < deviation < inf else 15


def _histogram(residuals: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return counts and edges of equal bins; of one bin where the residuals hardly differ."""
    bins = int(np.clip(np.sqrt(len(residuals)), 5, BINS))
    try:
        if np.ptp(residuals) > 0:
            return np.histogram(residuals, bins)
    except ValueError:  # too close to each other for so many bins
        pass
    return np.array([len(residuals)]), np.array([residuals.min(), residuals.max()])
