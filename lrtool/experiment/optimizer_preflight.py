"""What a training asks of an optimizer that is not torch's, tried before the run."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from torch import nn

from lrtool.components import import_path, optimizers
from lrtool.config.document import located
from lrtool.engine import rate_effect, weights
from lrtool.engine.checkpoint import unkeepable
from lrtool.errors import ConfigError, LrtoolError, LrtoolWarning, Problem
from lrtool.experiment.experiment import build, step_of

if TYPE_CHECKING:
    import torch

    from lrtool.engine.step import Step
    from lrtool.experiment.experiment import Experiment


def try_optimizer(experiment: Experiment, batch: Any) -> None:
    """Try whether the rate matters, and whether a checkpoint can hold all that is trained.

    Raises:
        ConfigError: it cannot hold the state of the optimizer, the model or the loss.

    Warns:
        LrtoolWarning: the optimizer's updates do not depend on the rate.
    """
    built = build(experiment, experiment.config.seed)
    if not optimizers.is_known(built.optimizer):
        _warn_of_ignored_rate(experiment, batch)
        step = step_of(experiment, built, experiment.runtime.scaler())
        step([batch], experiment.config.find.start)  # now it has a state
    with located(experiment.document):
        if not optimizers.is_known(built.optimizer):
            _refuse_a_state_of_its_own(experiment.config.optimizer.name, built.optimizer)
        for key, part in (("model", weights.plain(built.model)), ("loss", built.loss_fn)):
            problem = unkeepable(part.state_dict()) if isinstance(part, nn.Module) else None
            if problem is not None:
                words = f"no checkpoint could be written: its state holds {problem}"
                raise ConfigError(Problem((key,), words))


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
            optimizer.load_state_dict(state)
            return
        words = f"no checkpoint could be written: the state of {name} holds {problem}"
    except LrtoolError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  (the user's class may raise anything)
        words = f"the state of {name} cannot be saved and put back: {import_path.words(error)}"
    raise ConfigError(Problem(("optimizer",), words))
