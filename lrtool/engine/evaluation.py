"""Loss and metrics of a model on a part of the data."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from math import ceil
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from lrtool.batch import samples_in, targets_of
from lrtool.engine.copies import copied, detached, mapped
from lrtool.engine.denominator import LossTotal, reduction_of, to_numbers
from lrtool.engine.lightning import numbered, transferred
from lrtool.engine.lockstep import leaving_lockstep
from lrtool.engine.own_loss import loss_in, method_of, outputs_in, own_loss
from lrtool.engine.step import all_skipped, forward, given_loss, scalar
from lrtool.errors import UserError, said

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from lrtool.engine.denominator import Denominator
    from lrtool.engine.device import Runtime
    from lrtool.engine.step import LossFunction
    from lrtool.ranks import Ranks

READ_AFTER_BATCHES = 256


class Observer(Protocol):
    """What sees the outputs of each batch.

    Attributes:
        merges: whether those of several ranks, each over batches of its own, can be merged. One
            that cannot sees the batches of all ranks, in their order.
    """

    merges: bool

    def update(self, outputs: Any, targets: Any) -> None:
        """Take a batch into account."""

    def reset(self) -> None:
        """Forget all batches."""


class Metric(Observer, Protocol):
    """A metric over many batches."""

    def merge(self, ranks: Ranks) -> None:
        """Add what the other ranks have seen. Called on all ranks, once, before `compute`."""

    def compute(self) -> float:
        """Return the value over all batches since the last reset; NaN where it has none."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        loss: of all batches as of one, by `Reduction`; NaN if every target is ignored.
        samples: how many there were.
        denominator: what the loss is a mean over; None: it is a sum.
        metrics: each one's value by its name.
    """

    loss: float
    samples: int
    denominator: float | None
    metrics: dict[str, float]


def evaluate(
    model: nn.Module,
    loss_fn: LossFunction | None,
    batches: Iterable[Any],
    runtime: Runtime,
    metrics: Mapping[str, Metric],
    *,
    observers: Sequence[Observer] = (),
) -> Generator[int, None, Evaluation]:
    """Yield the number of samples seen after each batch; return the evaluation.

    Several ranks evaluate a batch each at a time, None where there is none left for a rank, and all
    return the evaluation of all batches. Each yields its own number of samples.

    Dropout is off and batch norm uses its running statistics. Without `loss_fn`, the loss is the
    model's `validation_loss(batch)` if it has that, else its training loss. Observers see what the
    metrics see.
    """
    reduction = reduction_of(loss_fn, model)
    pending: list[Tensor] = []
    denominators: list[Denominator] = []
    total, samples = LossTotal(), 0
    stand_in = None
    observers = (*metrics.values(), *observers)
    for observer in observers:
        observer.reset()
    with evaluating(model, loss_fn):
        for batch in numbered(model, batches):
            if runtime.sharded and stand_in is None:
                stand_in = _stand_in(batch, runtime)
            if batch is None and runtime.ranks.several:
                _take_part(model, loss_fn, stand_in, observers, runtime)
                yield samples
                continue
            count, denominator = samples_in(batch), reduction.denominator(batch)
            with runtime.no_grad(), runtime.autocast():
                loss = _loss(model, loss_fn, batch, observers, runtime)
            if loss is not None:
                pending.append(loss.detach())
                denominators.append(denominator)
                samples += count
            if len(pending) >= READ_AFTER_BATCHES:
                _read(pending, denominators, total)
            yield samples
        _read(pending, denominators, total)
        total, samples = total.over(runtime.ranks), int(runtime.ranks.sums([samples])[0])
        if runtime.ranks.several:
            for metric in metrics.values():
                metric.merge(runtime.ranks)
        values = {name: metric.compute() for name, metric in metrics.items()}
    return Evaluation(total.mean(), samples, total.denominator, values)


def _stand_in(batch: Any, runtime: Runtime) -> Any:
    """Return the batch of this rank's first turn, or that of rank 0 if it has none."""
    if runtime.ranks.any(flag=batch is None):
        first = of_all_ranks(batch, runtime)[0]
        return first if batch is None else batch
    return batch


def _take_part(
    model: nn.Module,
    loss_fn: LossFunction | None,
    stand_in: Any,
    observers: Iterable[Observer],
    runtime: Runtime,
) -> None:
    """Do what the other ranks need of one that has no batch: its outputs of others, its shards.

    Args:
        model: as in `evaluate`; likewise the others.
        loss_fn: likewise.
        stand_in: a batch for a sharded model, whose pass all ranks make; None for another one.
        observers: that see no batch of this rank.
        runtime: likewise.
    """
    if stand_in is None:
        show(observers, None, runtime)
        return
    with runtime.no_grad(), runtime.autocast():
        _loss(model, loss_fn, stand_in, observers, runtime, counts=False)


def failure_without_gradients(
    model: nn.Module, loss_fn: LossFunction | None, batch: Any, runtime: Runtime
) -> Exception | None:
    """Return why a batch can be evaluated with gradients switched on only; None if it cannot, too.

    A model may differentiate by its inputs, as for forces and differential equations.
    """
    try:
        losses(model, loss_fn, [batch], runtime)
    except Exception as error:  # noqa: BLE001  (the user's model may raise anything)
        with suppress(Exception):
            losses(model, loss_fn, [batch], replace(runtime, gradients=True))
            return error
    return None


def losses(
    model: nn.Module, loss_fn: LossFunction | None, batches: Iterable[Any], runtime: Runtime
) -> list[float | None]:
    """Return the mean loss of each batch, as `evaluate` sees it; the batches can be used again.

    It is None for a batch that the model skips. Several ranks evaluate a part of the batches each.

    Raises:
        UserError: the model skips all of them.
        RankFailedError: another rank has failed.
    """
    ranks, every = runtime.ranks, list(batches)
    own = every[ranks.rank :: ranks.world_size]
    if runtime.sharded:
        work = partial(_sharded_losses, model, loss_fn, own, every, runtime)
    else:
        work = partial(_losses, model, loss_fn, own, runtime)
    parts = ranks.by_each(work)
    each = [loss for turn in zip_longest(*parts) for loss in turn][: len(every)]
    if each and all(loss is None for loss in each):
        raise all_skipped()
    return each


def _losses(
    model: nn.Module, loss_fn: LossFunction | None, batches: Iterable[Any], runtime: Runtime
) -> list[float | None]:
    each = []
    with evaluating(model, loss_fn), runtime.no_grad(), runtime.autocast():
        for batch in numbered(model, batches):
            loss = _loss(model, loss_fn, copied(batch), (), runtime)
            each.append(None if loss is None else loss.detach())
    made = [loss for loss in each if loss is not None]
    values = iter(torch.stack(made).tolist() if made else [])
    return [None if loss is None else next(values) for loss in each]


def _sharded_losses(
    model: nn.Module,
    loss_fn: LossFunction | None,
    own: list[Any],
    every: list[Any],
    runtime: Runtime,
) -> list[float | None]:
    """Return what `_losses` does of a rank's own batches; all ranks make as many passes."""
    turns = ceil(len(every) / runtime.ranks.world_size)
    stand_ins = every[: turns - len(own)]
    with leaving_lockstep():
        return _losses(model, loss_fn, [*own, *stand_ins], runtime)[: len(own)]


def _loss(
    model: nn.Module,
    loss_fn: LossFunction | None,
    batch: Any,
    observers: Iterable[Observer],
    runtime: Runtime,
    *,
    counts: bool = True,
) -> Tensor | None:
    """Return the loss of a batch, None if the model skips it; show its outputs to the observers.

    One that does not count is not shown.
    """
    batch = transferred(model, batch)
    observers = list(observers)
    outputs = targets = loss = None
    if loss_fn is not None or observers:
        outputs, targets, loss = outputs_of(model, loss_fn, batch)
    if observers:
        show(observers, (detached(outputs), targets) if counts else None, runtime)
    if loss_fn is not None:
        return scalar(given_loss(model, loss_fn, batch, outputs, targets))
    if hasattr(model, "validation_loss"):
        return scalar(model.validation_loss(batch))  # type: ignore[operator]
    if loss is None:
        loss = own_loss(model, batch)
    return None if loss is None else scalar(loss)


def show(observers: Iterable[Observer], batch: tuple[Any, Any] | None, runtime: Runtime) -> None:
    """Show a batch's outputs and targets to the observers; None: this rank has none this time.

    Of several ranks, all call this equally often.
    """
    apart, together = list(observers), list[Observer]()
    if runtime.ranks.several:
        together = [observer for observer in apart if not observer.merges]
        apart = [observer for observer in apart if observer.merges]
    if batch is not None:
        for observer in apart:
            observer.update(*batch)
    if together:
        for each in of_all_ranks(batch, runtime):
            for observer in together:
                if each is not None:
                    observer.update(*each)


def of_all_ranks(batch: Any, runtime: Runtime) -> list[Any]:
    """Return the batches of all ranks, on this one's device.

    Raises:
        UserError: a batch cannot be sent.
    """
    # A copy, for a slice would take its whole tensor with it.
    sent = mapped(batch, lambda tensor: tensor.detach().cpu().clone())
    try:
        pickle.dumps(sent)
    except Exception as error:
        raise UserError(
            f"outputs or targets cannot be sent to the other ranks: {said(error)}; a metric with "
            "update, compute and reset needs those of all ranks, so return tensors, or make it a "
            "function, whose mean is taken"
        ) from error
    batches = runtime.ranks.gather(sent)
    return [mapped(each, lambda tensor: tensor.to(runtime.device)) for each in batches]


def outputs_of(
    model: nn.Module, loss_fn: LossFunction | None, batch: Any
) -> tuple[Any, Any, Tensor | None]:
    """Return the outputs and targets that metrics compare, and the loss if the outputs have one.

    A model whose `forward` returns its own loss, as Hugging Face's, gets its targets too.
    """
    if loss_fn is None and method_of(model) is None and isinstance(batch, Mapping):
        returned = model(**batch)
        targets = targets_of(batch)
        return outputs_in(returned, targets), targets, loss_in(returned)
    outputs, targets = forward(model, batch)
    return (outputs if loss_fn is not None else outputs_in(outputs, targets)), targets, None


def _read(losses: list[Tensor], denominators: list[Denominator], total: LossTotal) -> None:
    """Read losses in bulk, add them to the total, and forget them."""
    values = torch.stack(losses).tolist() if losses else []
    for loss, denominator in zip(values, to_numbers(denominators), strict=True):
        total.add(loss, denominator)
    losses.clear()
    denominators.clear()


def set_training(model: nn.Module) -> None:
    """Put a new model into training mode, but for what its author has frozen.

    That is what was left in evaluation mode inside a model in training mode, and is either a batch
    norm or has nothing to train. A pretrained part comes in evaluation mode by itself, and is
    trained, but for the batch norms in it that have frozen parameters.
    """
    frozen = list(_frozen(model)) if model.training else []
    modes = [(module, module.training) for part in frozen for module in part.modules()]
    model.train()
    for module, training in modes:
        module.training = training


def _frozen(model: nn.Module) -> Iterator[nn.Module]:
    for child in model.children():
        if child.training:
            yield from _frozen(child)
        elif is_norm(child) or not any(p.requires_grad for p in child.parameters()):
            yield child
        else:
            yield from (m for m in child.modules() if is_norm(m) and is_frozen(m))


def is_frozen(module: nn.Module) -> bool:
    """Tell whether a module has parameters, and none of them is trained."""
    trained = [parameter.requires_grad for parameter in module.parameters()]
    return bool(trained) and not any(trained)


def is_norm(module: nn.Module) -> bool:
    """Tell whether a module is a batch norm, or another norm that may keep statistics."""
    return isinstance(module, nn.modules.batchnorm._NormBase)  # noqa: SLF001  (torch's public base of these has no public name)


@contextmanager
def evaluating(*parts: object) -> Iterator[None]:
    """Put every module into evaluation mode inside the block, then back into its own mode."""
    roots = [part for part in parts if isinstance(part, nn.Module)]
    modes = [(module, module.training) for root in roots for module in root.modules()]
    for root in roots:
        root.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
