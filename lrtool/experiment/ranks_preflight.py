"""What only several ranks can get wrong: a model that starts, or goes on, otherwise on each."""

from __future__ import annotations

import warnings
import zlib
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from lrtool.config.document import located
from lrtool.engine.batch_norm import is_batch_norm
from lrtool.engine.sharded_tensors import is_shard
from lrtool.errors import ConfigError, LrtoolWarning, Problem
from lrtool.experiment.experiment import build, step_of
from lrtool.experiment.failures import explain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lrtool.experiment.experiment import Built, Experiment


class _Tensor(NamedTuple):
    """A parameter or a buffer of one rank.

    Attributes:
        name: in the model; of a loss's, with "loss." before it.
        shape: None while it is lazy.
        digest: of its values; None for what cannot be compared.
        kind: parameter, statistic (of a batch norm) or buffer.
    """

    name: str
    shape: tuple[int, ...] | None
    digest: int | None
    kind: str


def refuse_different_models(experiment: Experiment) -> None:
    """Refuse a model that starts otherwise on one rank than on another; all ranks call this.

    Raises:
        ConfigError: its parameters or buffers differ.
    """
    ranks = experiment.runtime.ranks
    if not ranks.several:
        return
    runtime = experiment.runtime
    if runtime.sharded:  # whole, it may fit no device
        runtime = replace(runtime, shard=False, device=torch.device("cpu"))
    built = build(replace(experiment, runtime=runtime), experiment.config.seed)
    found = _first_difference(ranks.gather(list(_tensors(built))))
    if found is None:
        return
    name, rank, how = found
    of_loss = name.startswith("loss.") and built.loss_fn is not None
    problem = (
        f"{how.format(name=name, rank=rank)}: draw what is random from torch's generators, as "
        "torch.nn.init does, which lrtool seeds alike on all ranks; nothing may depend on the time,"
        " the process or the rank"
    )
    with located(experiment.document):
        raise ConfigError(Problem(("loss",) if of_loss else ("model",), problem))


def try_update(experiment: Experiment, share: Any) -> Experiment:
    """Make an update with a throwaway model, by all ranks, as the run will.

    Args:
        experiment: with the plain ways that the model needs.
        share: this rank's, of a batch.

    Returns:
        The experiment, where parameters take no part in the loss with a look for them in each step.

    Raises:
        UserError: the update fails, or leaves the ranks with other parameters.

    Warns:
        LrtoolWarning: each rank keeps buffers of its own, or the look is needed.
    """
    config, ranks = experiment.config, experiment.runtime.ranks
    if not ranks.several:
        return experiment
    built = build(experiment, config.seed)
    try:
        step = step_of(experiment, built, experiment.runtime.scaler(), ranks)
        step([share], config.find.start)
    except (Exception, SystemExit) as error:
        failed = f"an update of the model {config.model.name} on {ranks.world_size} ranks failed"
        raise explain(experiment, error, failed) from error
    of_ranks = ranks.gather(list(_tensors(built)))
    parameters = [[each for each in own if each.kind == "parameter"] for own in of_ranks]
    found = _first_difference(parameters)
    if found is not None:
        problem = (
            f"after an update the parameter {found[0]} has other values on rank {found[1]} than on "
            "rank 0: something changes it by what that rank alone has drawn or seen, such as the "
            f"optimizer {config.optimizer.name}, or a forward pass that sets parameters from its "
            "batch"
        )
        with located(experiment.document):
            raise ConfigError(Problem(("model",), problem))
    buffers = [[each for each in own if each.kind == "buffer"] for own in of_ranks]
    found = _first_difference(buffers)
    if found is not None:
        warnings.warn(
            f"the buffer {found[0]} of {config.model.name} changes with what a rank sees of a "
            f"batch; it follows rank 0, whose share is 1/{ranks.world_size} of each batch, so "
            "losses may differ from those of one rank",
            LrtoolWarning,
            stacklevel=3,
        )
    return _with_a_look(experiment, built)


def _with_a_look(experiment: Experiment, built: Built) -> Experiment:
    """Let ranks look for parameters in each step if some took no part in this one.

    They may take part in a later one, which a static graph would not bear.
    """
    runtime = experiment.runtime
    if runtime.sharded or "static_graph" in experiment.config.runtime.model_fields_set:
        return experiment
    unused = [name for name, p in _parameters(built) if p.requires_grad and p.grad is None]
    if not unused:
        return experiment
    others = f" and {len(unused) - 1} others take" if len(unused) > 1 else " takes"
    warnings.warn(
        f"the parameter {unused[0]}{others} no part in the loss of the first batch; each step looks"
        " whether they do then (runtime.static_graph: false); true saves that time, if they never "
        "do",
        LrtoolWarning,
        stacklevel=4,
    )
    config = experiment.config
    changed = config.runtime.model_copy(update={"static_graph": False})
    return replace(
        experiment,
        config=config.model_copy(update={"runtime": changed}),
        runtime=replace(runtime, static_graph=False),
    )


def _parts(built: Built) -> Iterator[tuple[str, nn.Module]]:
    yield "", built.model
    if isinstance(built.loss_fn, nn.Module):
        yield "loss.", built.loss_fn


def _parameters(built: Built) -> Iterator[tuple[str, nn.Parameter]]:
    for prefix, part in _parts(built):
        for name, parameter in part.named_parameters():
            yield prefix + name, parameter


def _tensors(built: Built) -> Iterator[_Tensor]:
    for name, parameter in _parameters(built):
        yield _described(name, parameter, "parameter")
    for prefix, part in _parts(built):
        for path, module in part.named_modules():
            kind = "statistic" if is_batch_norm(module) else "buffer"
            for name, buffer in module.named_buffers(path, recurse=False):
                yield _described(prefix + name, buffer, kind)


def _described(name: str, tensor: torch.Tensor, kind: str) -> _Tensor:
    if nn.parameter.is_lazy(tensor):
        return _Tensor(name, None, None, kind)
    return _Tensor(name, tuple(tensor.shape), _digest(tensor), kind)


def _digest(tensor: torch.Tensor) -> int | None:
    """Return a digest of the bits; None of a tensor whose bits are not to be had."""
    if is_shard(tensor):  # each rank has a part of its own
        return None
    with suppress(Exception):
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return zlib.crc32(content.numpy().data)
    return None


def _first_difference(of_ranks: Sequence[Sequence[_Tensor]]) -> tuple[str, int, str] | None:
    """Return the first tensor that is not on all ranks what it is on rank 0.

    Returns:
        Its name, the first rank where it differs, and how, with both as {name} and {rank}.
    """
    first = of_ranks[0]
    for rank, own in enumerate(of_ranks):
        names, expected = [each.name for each in own], [each.name for each in first]
        for name in (*expected, *names):
            if (name in names) != (name in expected):
                where = "rank {rank} lacks" if name in expected else "rank {rank} alone has"
                return name, rank, f"{where} the parameter or buffer {{name}}, unlike rank 0"
        for one, other in zip(first, own, strict=True):
            if one.shape != other.shape:
                shapes = f"{one.shape} on rank 0 and {other.shape}"
                return other.name, rank, f"{{name}} has shape {shapes} on rank {{rank}}"
            if one.digest != other.digest:
                how = f"the {one.kind} {{name}} starts with other values on rank {{rank}} than on "
                return other.name, rank, f"{how}rank 0"
    return None
