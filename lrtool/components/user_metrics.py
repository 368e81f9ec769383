"""The user's own metrics: objects with update, compute and reset, or plain functions."""

from __future__ import annotations

import inspect
import math
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lrtool.batch import samples_of
from lrtool.components import import_path
from lrtool.components.losses import shapes
from lrtool.components.metric_inputs import sum_type
from lrtool.errors import LrtoolError, LrtoolWarning, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lrtool.components.metric_inputs import Units
    from lrtool.ranks import Ranks


def user_metric(
    name: str, device: torch.device, directories: Sequence[Path], units: Units | None = None
) -> UserMetric:
    """Return the metric that an import path leads to.

    It gets outputs and targets in `units` where outputs are floats of the targets' shape.

    Raises:
        UserError: it leads nowhere, or not to a metric.
    """
    metric = import_path.resolve(name, directories)
    with worded(name), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics warns of the memory it takes
        if inspect.isclass(metric):
            metric = metric()
        if isinstance(metric, nn.Module):
            metric = metric.to(device)
    _keep_apart(metric)
    if has_totals(metric):
        return UserMetric(name, metric, units)
    if not callable(metric):
        raise UserError(f"{name} is a {type(metric).__name__}; it cannot be called")
    return UserMetric(name, _Mean(name, metric), units)


def has_totals(metric: Any) -> bool:
    """Tell whether a metric adds up batches, as those of torchmetrics; it need not be callable."""
    return all(callable(getattr(metric, part, None)) for part in ("update", "compute", "reset"))


class UserMetric:
    """A user's metric, with its errors put into words and its value as a float.

    Attributes:
        merges: a function's mean can be merged over ranks, and what torchmetrics knows how to.
    """

    def __init__(self, name: str, metric: Any, units: Units | None = None) -> None:
        self.merges = isinstance(metric, _Mean) or _adds_up(metric)
        self._name = name
        self._metric = metric
        self._units = units
        self._warned = False
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._updates = 0
        with worded(self._name):
            self._metric.reset()

    def probe(self, outputs: Any, targets: Any) -> None:
        """Try one batch."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.update(outputs, targets)
                self.compute()
        except UserError as error:
            raise UserError(f"{error}{shapes(outputs, targets)}") from error
        self.reset()
        self._warned = False

    def update(self, outputs: Any, targets: Any) -> None:
        """Add a batch."""
        if isinstance(outputs, Tensor):
            half = outputs.dtype in {torch.bfloat16, torch.float16}
            outputs = outputs.detach().float() if half else outputs.detach()
            outputs = outputs.contiguous()  # channels_last is lrtool's own doing
        with worded(self._name), torch.no_grad():
            if self._units is not None and _alike(outputs, targets):
                outputs, targets = self._units.restore(outputs), self._units.restore(targets)
            self._metric.update(outputs, targets)
        self._updates += 1

    def merge(self, ranks: Ranks) -> None:
        """Add the batches of the other ranks, if the metric can; else it has seen them."""
        if not self.merges or not ranks.several:
            return
        if isinstance(self._metric, _Mean):
            self._metric.merge(ranks)
        else:
            with worded(self._name):
                merge_states(self._metric, ranks)
        [self._updates] = map(int, ranks.sums([self._updates]))

    def compute(self) -> float:
        """Return the value over all batches, or NaN with a warning if there were none."""
        if not self._updates:
            self._warn("has no value: there was nothing to compare")
            return math.nan
        with worded(self._name), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # torchmetrics says so of a rank that has only what others have seen
            warnings.filterwarnings("ignore", ".*was called before the ``update`` method")
            value = self._metric.compute()
        if caught:
            self._warn(f"says: {caught[0].message}")
        return _scalar(self._name, value)

    def _warn(self, words: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"the metric {self._name} {words}", LrtoolWarning, stacklevel=3)


class _Mean:
    """The mean of a function's values over batches, weighted by samples."""

    def __init__(self, name: str, function: Any) -> None:
        self._name = name
        self._function = function

    def reset(self) -> None:
        self._sum: Tensor | float = 0.0
        self._samples: float = 0

    def update(self, outputs: Any, targets: Any) -> None:
        samples = next((n for t in (targets, outputs) if (n := samples_of(t))), 0)
        if not samples:
            raise UserError(
                f"{self._name} is a function, and its mean is weighted by samples, but neither "
                "targets nor outputs hold a tensor with samples; make it a class with update, "
                "compute and reset"
            )
        value = self._function(outputs, targets)
        if isinstance(value, Tensor) and value.numel() == 1:  # stays on the device, unread
            value = value.detach().reshape(()).to(sum_type(value.device))
        else:
            value = _scalar(self._name, value)
        self._sum = self._sum + value * samples
        self._samples += samples

    def merge(self, ranks: Ranks) -> None:
        self._sum, self._samples = ranks.sums([float(self._sum), self._samples])

    def compute(self) -> Tensor | float:
        return self._sum / self._samples


def _keep_apart(metric: Any) -> None:
    """Let no metric of torchmetrics add up the ranks by itself: that is done here, once."""
    parts: list[Any] = [metric, *getattr(metric, "__dict__", {}).values()]
    for part in parts:
        modules: list[Any] = list(part.modules()) if isinstance(part, nn.Module) else []
        for module in modules:
            if hasattr(module, "distributed_available_fn"):
                module.distributed_available_fn = _never


def _never() -> bool:
    return False


def merge_states(metric: Any, ranks: Ranks) -> None:
    """Merge the states of a metric of torchmetrics; they are the same on all ranks then."""
    updated = metric.metric_state if metric.update_count else None
    states = [state for state in ranks.gather(_moved(updated, "cpu")) if state is not None]
    for number, state in enumerate(_moved(state, metric.device) for state in states):
        if number:
            metric.merge_state(state)
        else:
            for name, value in state.items():
                setattr(metric, name, value)


def _moved(state: Any, device: torch.device | str) -> Any:
    """Return states, which are tensors or lists of them, on a device."""
    if isinstance(state, dict):
        return {name: _moved(value, device) for name, value in state.items()}
    if isinstance(state, list):
        return [_moved(value, device) for value in state]
    return state if state is None else state.to(device)


def _adds_up(metric: Any) -> bool:
    """Tell whether states of torchmetrics can be merged to what one metric would have.

    Means of means, and states with a rule of their own, cannot; nor metrics inside a metric.
    """
    reductions = getattr(metric, "_reductions", None)
    if not reductions or not hasattr(metric, "merge_state") or list(metric.children()):
        return False
    # A metric may need its whole state at each update, or may not say.
    if metric.full_state_update is not False or metric.dist_sync_on_step:
        return False
    return all(
        getattr(rule, "__name__", "")
        in {f"dim_zero_{name}" for name in ("sum", "max", "min", "cat")}
        for rule in reductions.values()
    )


def _alike(outputs: Any, targets: Any) -> bool:
    return (
        isinstance(outputs, Tensor)
        and isinstance(targets, Tensor)
        and outputs.is_floating_point()
        and targets.is_floating_point()
        and outputs.numel() == targets.numel()
    )


def _scalar(name: str, value: Any) -> float:
    if isinstance(value, Tensor) and value.numel() != 1:
        raise UserError(f"{name} gives shape {tuple(value.shape)}, not a scalar")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"{name} gives a {type(value).__name__}, not a number") from None


@contextmanager
def worded(name: str) -> Iterator[None]:
    """Turn what torchmetrics or the user's code raises into a UserError."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, LrtoolError):
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{name} failed: {import_path.words(error)}") from error
