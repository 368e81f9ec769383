"""What a training asks of an optimizer that is not torch's, tried before the run."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lrtool.components import import_path, optimizers
from lrtool.config.document import located
from lrtool.engine import rate_effect, weights
from lrtool.engine.checkpoint import load_optimizer, unkeepable
from lrtool.engine.copies import copied
from lrtool.engine.randomness import seed_everything
from lrtool.engine.sharded_tensors import own_part
from lrtool.errors import ConfigError, LrtoolError, LrtoolWarning, Problem
from lrtool.experiment.experiment import build, step_of

if TYPE_CHECKING:
    from lrtool.engine.step import Step
    from lrtool.experiment.experiment import Built, Experiment

UPDATES = 3  # twice as many span the five of a Lookahead
RATE = 1e-3


def try_optimizer(experiment: Experiment, batch: Any) -> None:
    """Try whether the rate matters, and whether a checkpoint can hold all that is trained.

    Raises:
        ConfigError: it cannot hold the state of the optimizer, the model or the loss.

    Warns:
        LrtoolWarning: the optimizer's updates do not depend on the rate, or it has a state besides
            the one that it gives.
    """
    built = build(experiment, experiment.config.seed)
    if not optimizers.is_known(built.optimizer):
        _warn_of_ignored_rate(experiment, batch)
        step = step_of(experiment, built, experiment.runtime.scaler())
        step([batch], experiment.config.find.start)  # now it has a state
    with located(experiment.document):
        if not optimizers.is_known(built.optimizer):
            _refuse_a_state_of_its_own(experiment.config.optimizer.name, built.optimizer)
            _warn_of_a_part_of_the_state(experiment, batch)
        for key, part in (("model", weights.plain(built.model)), ("loss", built.loss_fn)):
            problem = unkeepable(part.state_dict()) if isinstance(part, nn.Module) else None
            if problem is not None:
                words = f"no checkpoint could be written: its state holds {problem}"
                raise ConfigError(Problem((key,), words))


def refuse_unmoved_shards(experiment: Experiment, built: Built, batch: Any) -> None:
    """Refuse an optimizer whose updates do not reach a sharded model, as those by `p.data = …`.

    Args:
        experiment: sharded; all ranks call this.
        built: not used any more afterwards.
        batch: this rank's share of one.

    Raises:
        ConfigError: no parameter changes.
    """
    if not experiment.runtime.sharded or optimizers.is_known(built.optimizer):
        return
    before = _weights(built)
    step_of(experiment, built, None)([batch], 1.0)
    moved = not all(map(torch.equal, before, _weights(built)))
    if not experiment.runtime.ranks.any(flag=moved):
        problem = (
            f"{experiment.config.optimizer.name} does not change the parameters of a sharded model "
            "(runtime.shard): it must do so in place, as by p.data.add_, not by p.data = …"
        )
        with located(experiment.document):
            raise ConfigError(Problem(("optimizer", "name"), problem))


def _warn_of_ignored_rate(experiment: Experiment, batch: Any) -> None:
    def fresh() -> tuple[torch.optim.Optimizer, Step]:
        built = build(experiment, experiment.config.seed)
        return built.optimizer, step_of(experiment, built, experiment.runtime.scaler())

    if rate_effect.ignores_rate(fresh, [batch]):
        warnings.warn(rate_effect.words(fresh()[0]), LrtoolWarning, stacklevel=3)


def _refuse_a_state_of_its_own(name: str, optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimizer whose state cannot be saved and put back."""
    try:
        state = optimizer.state_dict()
        problem = unkeepable(state)
        if problem is None:
            load_optimizer(optimizer, state)
            return
        words = f"no checkpoint could be written: the state of {name} holds {problem}"
    except LrtoolError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  (the user's class may raise anything)
        words = f"the state of {name} cannot be saved and put back: {import_path.words(error)}"
    raise ConfigError(Problem(("optimizer",), words))


def _warn_of_a_part_of_the_state(experiment: Experiment, batch: Any) -> None:
    """Warn if an optimizer that gets the state of another one goes on otherwise.

    A counter that is an attribute, or the momentum of an optimizer inside, may be missing in it.
    """
    whole = build(experiment, experiment.config.seed)
    _make_updates(experiment, whole, batch)
    state = copy.deepcopy(whole.optimizer.state_dict())
    start = _weights(whole)
    _make_updates(experiment, whole, batch)
    expected = _weights(whole)

    resumed = build(experiment, experiment.config.seed)
    with torch.no_grad():
        for own, value in zip(_trained(resumed), start, strict=True):
            own_part(own).copy_(value)
    load_optimizer(resumed.optimizer, state)
    _make_updates(experiment, resumed, batch)
    moved = [(a - b).norm() for a, b in zip(expected, start, strict=True)]
    apart = [(a - b).norm() for a, b in zip(expected, _weights(resumed), strict=True)]
    if float(torch.stack(apart).norm()) > 1e-3 * float(torch.stack(moved).norm()):
        warnings.warn(
            f"state_dict() of {experiment.config.optimizer.name} does not hold all of its state: a "
            "training that is resumed goes on otherwise than one that was not interrupted",
            LrtoolWarning,
            stacklevel=3,
        )


def _make_updates(experiment: Experiment, built: Built, batch: Any) -> None:
    """Make a few updates, always with the same random numbers."""
    seed_everything(experiment.config.seed)
    step = step_of(experiment, built, experiment.runtime.scaler())
    for _ in range(UPDATES):
        step([copied(batch)], RATE)


def _trained(built: Built) -> list[torch.Tensor]:
    return [p for group in built.optimizer.param_groups for p in group["params"]]


def _weights(built: Built) -> list[torch.Tensor]:
    """Return copies of what is trained; of a sharded model, of this rank's part."""
    return [own_part(p.detach()).cpu().clone() for p in _trained(built)]
