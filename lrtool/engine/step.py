"""The step: one update of the parameters, the same for sweeps, candidates and trainings.

They differ only in the rate, so a sweep at a constant rate gives a training's losses to the last
bit. The only `backward()` of the package is here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from lrtool.batch import TARGET_KEYS, own, target_key, targets_of
from lrtool.engine.data_parallel import DataParallel
from lrtool.engine.denominator import in_all, reduction_of, shares
from lrtool.engine.lightning import transferred
from lrtool.engine.lockstep import exchange, fetch, lockstep
from lrtool.engine.own_loss import own_loss
from lrtool.engine.sample_weight import unweighted, weighted_loss
from lrtool.engine.sharded_tensors import whole
from lrtool.errors import LockstepError, UserError
from lrtool.ranks import ALONE

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch.nn.parallel import DistributedDataParallel

    from lrtool.engine.denominator import Denominator, Reduction
    from lrtool.engine.device import Runtime
    from lrtool.ranks import Ranks
LossFunction = Callable[[Any, Any], Tensor]


class StepOut(NamedTuple):
    """The result of a step: scalar tensors on the device, so that nothing waits for them.

    Attributes:
        loss: of all micro-batches as of one, before the update.
        grad_norm: 2-norm of all gradients before clipping; None without clipping.
        skipped: whether the gradient scaler found an overflow and made no update; None without
            a scaler.
        denominator: what the loss is a mean over, by `Reduction`; 0: all targets are ignored, so
            there is no loss, and the gradients are 0.
    """

    loss: Tensor
    grad_norm: Tensor | None
    skipped: Tensor | None
    denominator: Denominator = 1.0


# None: the model's own training_step has skipped every batch, and nothing was updated.
Step = Callable[[Sequence[Any], float], StepOut | None]

SKIPPED_AT_MOST = 1_000  # updates in a row


def make_step(
    model: nn.Module,
    loss_fn: LossFunction | None,
    optimizer: torch.optim.Optimizer,
    runtime: Runtime,
    *,
    ratios: Sequence[float] | None = None,
    clip_norm: float | None = None,
    scaler: torch.amp.GradScaler | None = None,
    reduction: Reduction | None = None,
    random: AbstractContextManager[object] | None = None,
    parallel: DataParallel | None = None,
) -> Step:
    """Return `step(micro_batches, lr) → StepOut`, or None where the model skips all batches.

    Args:
        model: on the runtime's device.
        loss_fn: `loss(outputs, targets)`; None: the model's own loss.
        optimizer: over the model's parameters.
        runtime: device and precision.
        ratios: the rate of each parameter group over `lr`; by default the ratios that the
            groups' rates have to the first one's.
        clip_norm: gradients are scaled down to this 2-norm.
        scaler: for fp16; its overflowing steps are marked as skipped.
        reduction: how the loss makes one number of a batch; by default what the loss tells.
        random: in it a model draws from random states of this rank's own; None: the process's.
        parallel: the losses of several ranks, of a model that has had other steps; None: new ones.

    With several ranks (`runtime.ranks`) each has a share of every batch. They make the same update,
    with the loss of the whole batch.

    Raises:
        UserError: the optimizer needs more than one evaluation of the loss, or maximizes it; from
            the step, when the loss is not a scalar or depends on no trainable parameter.
    """
    _refuse_unusable(optimizer)
    ratios = rate_ratios(optimizer) if ratios is None else ratios
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    counted = reduction_of(loss_fn, model) if reduction is None else reduction
    if parallel is None and runtime.ranks.several:
        loss_of = partial(batch_loss, model, loss_fn)
        parallel = DataParallel(loss_of, (model, loss_fn), runtime)

    with_modes = _with_modes(optimizer)

    def step(micro_batches: Sequence[Any], lr: float) -> StepOut | None:
        for each in with_modes:
            each.train()
        set_rates(optimizer, ratios, lr)
        optimizer.zero_grad(set_to_none=True)

        if parallel is None:
            made = _backward(
                model, loss_fn, micro_batches, reduction=counted, runtime=runtime, scaler=scaler
            )
        else:
            with random or nullcontext():
                made = _backward_of_shares(
                    parallel, micro_batches, reduction=counted, runtime=runtime, scaler=scaler
                )
        if made is None:
            return None

        skipped = None
        if scaler is not None:
            scaler.unscale_(optimizer)
            skipped = _any_overflow(parameters)
        norm = None
        if clip_norm is not None:
            norm = whole(nn.utils.clip_grad_norm_(parameters, clip_norm))

        _update_weights(optimizer, scaler)
        return StepOut(made[0], norm, skipped, made[1])

    return step if parallel is None else lockstep(step, parallel, runtime)


def _refuse_unusable(optimizer: torch.optim.Optimizer) -> None:
    step = inspect.signature(optimizer.step).parameters.get("closure")
    required = step is not None and step.default is step.empty
    is_sam = hasattr(optimizer, "first_step") and hasattr(optimizer, "second_step")
    if required or is_sam or isinstance(optimizer, torch.optim.LBFGS):
        raise _needs_closure(optimizer)
    if any(group.get("maximize") for group in optimizer.param_groups):
        raise UserError(
            f"{type(optimizer).__name__} has maximize=True, so it raises the loss; give the loss "
            "with the other sign, and the optimizer without it"
        )


def _update_weights(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None) -> None:
    try:
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)  # waits for the device, but for fused optimizers
            scaler.update()
    except Exception as error:
        if "closure" in str(error).lower():  # "SAM requires a closure"
            raise _needs_closure(optimizer) from error
        raise


def _needs_closure(optimizer: torch.optim.Optimizer) -> UserError:
    name = type(optimizer).__name__
    return UserError(
        f"{name} evaluates the loss several times within a step; lrtool's step does it once;"
        " use one that needs no closure, such as adamw"
    )


def _backward(
    model: nn.Module,
    loss_fn: LossFunction | None,
    micro_batches: Sequence[Any],
    *,
    reduction: Reduction,
    runtime: Runtime,
    scaler: torch.amp.GradScaler | None,
) -> tuple[Tensor, Denominator] | None:
    """Add up the gradients of all micro-batches; return their loss and denominator as of one.

    None if the model's own training_step has skipped every batch.
    """
    denominators = [reduction.denominator(batch) for batch in micro_batches]
    kept: list[Denominator] = []
    loss: Tensor | None = None
    for batch, count, share in zip(micro_batches, denominators, shares(denominators), strict=True):
        if loss_fn is not None:
            batch = reduction.countable(batch, count)  # noqa: PLW2901
        with runtime.autocast():
            part = _with_graph(batch_loss(model, loss_fn, batch))
        if part is None:
            continue
        part = _differentiate(part, count, share, scaler)
        loss = part if loss is None else loss + part
        kept.append(count)
    if loss is None:
        return None
    total, made = in_all(denominators), in_all(kept)
    if len(kept) < len(denominators) and total is not None and made is not None:
        loss = loss * (total / made)  # batches that were skipped have no loss
    return loss, made


def _differentiate(
    loss: Tensor, count: Denominator, share: Tensor | float, scaler: torch.amp.GradScaler | None
) -> Tensor:
    """Add the gradients of a batch's loss, times its share, to the others; return that loss."""
    if isinstance(count, Tensor) or count == 0:
        loss = loss.masked_fill(torch.as_tensor(count == 0, device=loss.device), 0.0)
    if isinstance(share, Tensor) or share != 1.0:
        loss = loss * share
    (loss if scaler is None else scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def forget_used(wrapper: DistributedDataParallel | None) -> None:
    """Let a caller's DDP forget which parameters took part in updates that it did not make.

    One that looks for unused parameters notes them in every backward pass, and would take them for
    used in its next own one. A pass of all parameters ends this; it leaves gradients. All ranks
    call this.
    """
    if wrapper is None or wrapper.static_graph or not wrapper.find_unused_parameters:
        return
    trained = [p for p in wrapper.module.parameters() if p.requires_grad]
    nothing = torch.stack([p.sum().float() for p in trained]).sum() * 0.0
    wrapper.reducer.prepare_for_backward([nothing])
    _differentiate(nothing, 1.0, 1.0, None)


def _backward_of_shares(
    parallel: DataParallel,
    micro_batches: Sequence[Any],
    *,
    reduction: Reduction,
    runtime: Runtime,
    scaler: torch.amp.GradScaler | None,
) -> tuple[Tensor, Denominator] | None:
    """Do what `_backward` does where each rank has a share of each micro-batch.

    All ranks learn of a failure before they exchange gradients, which would wait for the failed one
    for ever.
    """
    ranks = runtime.ranks
    counts = [reduction.denominator(batch) for batch in micro_batches]
    total: Denominator = None
    kept: list[Denominator] = []
    loss = torch.zeros((), device=runtime.device)
    for number, (batch, count) in enumerate(zip(micro_batches, counts, strict=True), start=1):
        last = number == len(micro_batches)
        part, failure = None, None
        with parallel.reduced(batch, last=last):
            try:
                with runtime.autocast():
                    part, is_made = parallel.loss(reduction.countable(batch, count))
                part = _with_graph(part)
            except Exception as error:
                # others may be waiting in that pass
                if runtime.sharded or isinstance(error, LockstepError):
                    raise
                failure = error
            if number == 1:
                total = exchange(runtime, failure, None if reduction.summed else in_all(counts))
            elif last or failure is not None:
                exchange(runtime, failure, 0.0)
            assert part is not None, "a failure has been raised"
            loss = loss + _differentiate(part, count, shares([count], total)[0], scaler)
        if is_made:
            kept.append(count)
    loss = ranks.add_up(loss)
    return _of_made(loss, total, kept, len(counts), ranks) if parallel.may_skip else (loss, total)


def _of_made(
    loss: Tensor, total: Denominator, kept: list[Denominator], batches: int, ranks: Ranks
) -> tuple[Tensor, Denominator] | None:
    """Return loss and denominator of the batches that no rank has skipped; None without any.

    Only where some were skipped it waits for the device.
    """
    [made] = ranks.sums([len(kept)])
    if made == batches * ranks.world_size:
        return loss, total
    if not made:
        return None
    [count] = ranks.sums([float(in_all(kept) or 0.0)])
    return (loss, total) if total is None or not count else (loss * (total / count), count)


def update(
    step: Step, micro_batches: Iterator[Sequence[Any]], lr: float, ranks: Ranks = ALONE
) -> StepOut:
    """Make an update with the next batches that the model does not skip.

    Raises:
        UserError: it has skipped very many in a row.
    """
    for _ in range(SKIPPED_AT_MOST):
        group = fetch(micro_batches, ranks)
        assert group is not None, "the batches have no end"
        out = step(group, lr)
        if out is not None:
            return out
    raise all_skipped()


def all_skipped() -> UserError:
    """Return the error to raise for a model that skips all batches."""
    return UserError("training_step returned None for every batch, so nothing can be learned")


def rate_ratios(optimizer: torch.optim.Optimizer) -> list[float]:
    """Return each parameter group's rate over that of the first group with a rate above 0.

    A schedule may have changed the rates already, a warm-up even to 0. torch's schedules keep the
    user's choice in the group's `initial_lr`.
    """
    rates = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
    base = next((rate for rate in rates if rate > 0), 0.0)
    return [rate / base if base else 1.0 for rate in rates]


def set_rates(optimizer: torch.optim.Optimizer, ratios: Iterable[float], lr: float) -> None:
    """Set the rate of each parameter group; a rate that is a tensor is filled in place."""
    for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr * ratio)
        else:
            group["lr"] = lr * ratio


def set_mode(optimizer: torch.optim.Optimizer, *, training: bool) -> None:
    """Put an optimizer that has modes into the one for training, or for evaluation.

    Schedule-free optimizers train and evaluate at different weights (Defazio et al. 2024,
    arXiv:2405.15682): `train()` and `eval()` put them into the model. Of a wrapper without modes,
    this is done to the optimizers inside.
    """
    for each in _with_modes(optimizer):
        (each.train if training else each.eval)()


def _with_modes(optimizer: torch.optim.Optimizer) -> list[Any]:
    """Return the outermost optimizers that have modes, each once; wrappers may refer to theirs."""
    found, waiting, seen = [], [optimizer], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if hasattr(each, "train") and hasattr(each, "eval"):
            found.append(each)
        elif not type(each).__module__.startswith("torch.optim."):
            for value in getattr(each, "__dict__", {}).values():
                held = value.values() if isinstance(value, dict) else value
                inside = held if isinstance(value, dict | list | tuple) else (value,)
                waiting += [one for one in inside if hasattr(one, "param_groups")]
    return found


def set_momentum(optimizer: torch.optim.Optimizer, momentum: float) -> None:
    """Set the momentum, or first beta, of each group, if the optimizer was built with one."""
    built = getattr(optimizer, "defaults", {})  # a group's own may be 0 by now
    for group in optimizer.param_groups:
        if built.get("momentum"):
            group["momentum"] = momentum
        elif built.get("betas", (0,))[0]:
            group["betas"] = (momentum, *group["betas"][1:])


def batch_loss(model: nn.Module, loss_fn: LossFunction | None, batch: Any) -> Tensor | None:
    """Return the scalar loss of one batch, with its graph; None if the model skips the batch.

    With `loss_fn`, the batch is `(inputs…, targets)`, or a mapping with one of `TARGET_KEYS`; both
    may have weights of samples. An object with such an attribute, as a graph batch, is passed as
    it is.
    Inputs in a mapping are passed to the model by keyword, others by position. Without `loss_fn`,
    the model computes its own loss: `training_loss(batch)`, or `training_step(batch, index)` as in
    Lightning, where None skips the batch, or `model(**batch).loss` as in Hugging Face's models.

    Raises:
        UserError: the batch or the loss is none of these.
    """
    batch = transferred(model, own(batch))
    if loss_fn is None:
        value = own_loss(model, batch)
        if value is None:
            return None
    else:
        value = given_loss(model, loss_fn, batch, *forward(model, batch))
    return scalar(value)


def given_loss(
    model: nn.Module, loss_fn: LossFunction, batch: Any, outputs: Any, targets: Any
) -> Any:
    """Return the loss of a batch's outputs, with the weights of its samples if it has any."""
    weights = unweighted(model, batch)[1]
    if weights is None:
        return loss_fn(outputs, targets)
    denominator = reduction_of(loss_fn, model).denominator(batch)
    return weighted_loss(loss_fn, outputs, targets, weights, denominator)


def _with_graph(loss: Tensor | None) -> Tensor | None:
    if loss is not None and not loss.requires_grad:
        raise UserError("no trainable parameter takes part in the loss, so nothing can be learned")
    return loss


def scalar(loss: Any) -> Tensor:
    """Return a loss as a tensor without dimensions.

    Raises:
        UserError: it is not a tensor, or has several values.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        what = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise UserError(f"the loss of a batch must be a scalar tensor, not {what}")
    return loss.reshape(())


def forward(model: nn.Module, batch: Any) -> tuple[Any, Any]:
    """Return the model's outputs for a batch, and its targets.

    Raises:
        UserError: the batch has no targets.
    """
    batch, _ = unweighted(model, batch)
    if isinstance(batch, Mapping):
        key = target_key(batch)
        if key is None:
            raise UserError(
                f"a batch with the keys {', '.join(map(str, batch))} has no targets: one of "
                f"{', '.join(TARGET_KEYS)} is expected, or a model with training_loss(batch)"
            )
        keywords = {name: value for name, value in batch.items() if name != key}
        if len(keywords) == 1:
            return model(*keywords.values()), batch[key]
        return model(**keywords), batch[key]
    if not isinstance(batch, Sequence | Tensor) and (targets := targets_of(batch)) is not None:
        return model(batch), targets  # a graph batch, which has its targets beside the inputs
    if not isinstance(batch, Sequence) or len(batch) < 2:
        raise UserError(
            f"a batch must be (inputs, targets) or a mapping, not {type(batch).__name__}; "
            "a model with training_loss(batch) may take anything"
        )
    *inputs, targets = batch
    if len(inputs) == 1 and isinstance(inputs[0], Mapping):
        return model(**inputs[0]), targets
    return model(*inputs), targets


def _any_overflow(parameters: list[Tensor]) -> Tensor:
    """Tell on the device whether any gradient is NaN or infinite.

    By the infinity norm: the squares of large finite gradients could overflow.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    return ~torch.isfinite(nn.utils.get_total_norm(gradients, norm_type=float("inf")))
