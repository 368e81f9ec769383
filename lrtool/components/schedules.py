"""The schedules that a configuration may name: how the rate moves over training.

All but `plateau` are closed forms of step and epoch, so a resumed run needs no replay. A length
among the arguments (`period`, `decay`, `timescale`) is, like `warmup`, a fraction of the training
below 1, or a number of updates.
"""

from __future__ import annotations

import math
import warnings
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lrtool.config.spelling import count
from lrtool.errors import ConfigError, LrtoolWarning, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lrtool.config.schema import ScheduleConfig

    Factor = Callable[[int, int], float]

SCHEDULE = ("train", "schedule")
LONG = 10_000  # updates: the time scale of inverse_sqrt without warm-up, as in T5

# What changes in torch's ReduceLROnPlateau while it watches.
_WATCHED = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")


def _left_alone(_step: int) -> None:
    """Say nothing about the momentum."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the rate moves, and for `one_cycle` the momentum.

    Attributes:
        factor: `factor(step, epoch)` of the base rate for the update `step` of `epoch`, both
            counted from 0. Cheap; the same whenever it is asked, but for `plateau`.
        momentum: `momentum(step)`: the optimizer's momentum, or beta 1, for that update; None to
            leave it alone.
        plateau: what watches the losses, if anything does.
    """

    factor: Factor
    momentum: Callable[[int], float | None] = _left_alone
    plateau: ReduceLROnPlateau | None = None

    def observe(self, loss: float) -> None:
        """Take note of the loss of an epoch that has ended: of validation, else of training."""
        if self.plateau is not None:
            self.plateau.step(loss)

    def state_dict(self) -> dict[str, Any]:
        """Return what `observe` has changed, as plain numbers; empty but for `plateau`."""
        if self.plateau is None:
            return {}
        state = {key: getattr(self.plateau, key) for key in _WATCHED}
        return {**state, "factor": self.plateau.optimizer.param_groups[0]["lr"]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        assert bool(state) == (self.plateau is not None), "the state of another schedule"
        if self.plateau is not None:
            self.plateau.load_state_dict({key: state[key] for key in _WATCHED})
            self.plateau.optimizer.param_groups[0]["lr"] = state["factor"]


@dataclass(frozen=True, slots=True)
class Plan:
    """The training that a schedule is for.

    Attributes:
        name: of the schedule.
        steps: updates of the whole training; None: not known.
        warmup: updates of the warm-up; None: not given.
        epochs: of the whole training; None: not known.
    """

    name: str
    steps: int | None
    warmup: int | None
    epochs: int | None

    def total(self) -> int:
        """Return the updates of the whole training, for what cannot do without."""
        if self.steps is None:
            problem = (
                f"{self.name} needs the length of the training, which this data does not tell; "
                "give train.max_steps"
            )
            raise ConfigError(Problem(SCHEDULE, problem))
        return self.steps

    def after(self) -> int:
        """Return the updates after warm-up, at least 1."""
        return self.total() - (self.warmup or 0)

    def length(self, value: float) -> int:
        """Return a fraction of the training, or a number of updates, as updates."""
        return int(value) if value >= 1 else max(1, round(value * self.total()))

    def period(self, value: float) -> int:
        """Return the updates of a cycle, at least 2."""
        period = max(2, self.length(value))
        if self.steps is not None and period > max(2, self.after()):
            _warn("period", f"the training ends within the first cycle of {period:,} steps")
        return period

    def ramped(self, body: Factor) -> Factor:
        """Return `body`, whose time begins after warm-up, with a linear ramp before it.

        The ramp is torch's LinearLR from 1 / (W + 1) over W updates: neither is the first update
        wasted at a rate of 0, nor is the rate below that of `body` once the ramp is over.
        """
        if not self.warmup:
            return body
        warmup = self.warmup

        def factor(step: int, epoch: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1) * body(0, epoch)
            return body(step - warmup, epoch)

        return factor


def build_schedule(
    spec: ScheduleConfig, *, steps: int | None, steps_per_epoch: int | None
) -> Schedule:
    """Return the schedule of a training.

    Args:
        spec: a sound name with sound arguments (`lrtool.build.components.check`).
        steps: updates of the whole training; None: not known.
        steps_per_epoch: updates of an epoch; None: not known.

    Raises:
        ConfigError: the schedule needs the length of the training and it is not known, or
            warm-up leaves no room for the rest.

    Warns:
        LrtoolWarning: the schedule cannot do what its arguments say in so short a training.
    """
    epochs = (
        None if steps is None or steps_per_epoch is None else math.ceil(steps / steps_per_epoch)
    )
    plan = Plan(spec.name, steps, _warmup(spec.warmup, steps), epochs)
    return SCHEDULES[spec.name](plan, **spec.args)


def _warmup(given: float | None, steps: int | None) -> int | None:
    if not given:
        return None if given is None else 0
    path = (*SCHEDULE, "warmup")
    if given < 1:
        if steps is None:
            problem = (
                f"{given:g} of a training whose length this data does not tell; give a number of "
                "steps here, or train.max_steps"
            )
            raise ConfigError(Problem(path, problem))
        return min(max(1, round(given * steps)), steps - 1)
    if steps is not None and given >= steps:
        problem = f"a warm-up of {given:,g} steps must be shorter than the training of {steps:,}"
        raise ConfigError(Problem(path, problem))
    return int(given)


def _warn(argument: str, words: str) -> None:
    warnings.warn(f"train.schedule.args.{argument}: {words}", LrtoolWarning, stacklevel=4)


def constant(plan: Plan) -> Schedule:
    """The base rate throughout."""
    return Schedule(plan.ramped(lambda _step, _epoch: 1.0))


def linear(plan: Plan, *, end_factor: float = 0.0) -> Schedule:
    """A straight line down to end_factor × the base rate."""
    return _over_training(plan, lambda t: end_factor + (1 - end_factor) * (1 - t))


def cosine(plan: Plan, *, end_factor: float = 0.0) -> Schedule:
    """Half a cosine down to end_factor × the base rate (Loshchilov 2016, arXiv:1608.03983)."""
    return _over_training(plan, lambda t: _half_cosine(1.0, end_factor, t))


def polynomial(plan: Plan, *, power: float = 0.9) -> Schedule:
    """(1 − t)^power, t from 0 to 1; 0.9 as in segmentation (Chen 2016, arXiv:1606.00915)."""
    return _over_training(plan, lambda t: (1 - t) ** power)


def _over_training(plan: Plan, body: Callable[[float], float]) -> Schedule:
    """Return a schedule of the time t after warm-up: 0 at its end, 1 at that of the training."""
    after = plan.after()
    return Schedule(plan.ramped(lambda step, _epoch: body(min(1.0, step / after))))


def one_cycle(
    plan: Plan,
    *,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    cycle_momentum: bool = True,
    base_momentum: float = 0.85,
    max_momentum: float = 0.95,
) -> Schedule:
    """Up by a cosine, then to almost 0; momentum down and up (Smith 2018, arXiv:1803.09820).

    torch's OneCycleLR with these arguments. Warm-up is the way up, 0.3 of the training by default.
    """
    total = plan.total()
    rise = 0.3 * total if plan.warmup is None else plan.warmup
    peak = rise - 1  # the update with the base rate; as in torch it may lie between two updates
    anneal = _half_cosine if anneal_strategy == "cos" else _line
    start = 1 / div_factor
    end = start / final_div_factor

    def between(step: int, first: float, middle: float, last: float) -> float:
        if step < peak:
            return anneal(first, middle, step / peak)
        return anneal(middle, last, min(1.0, (step - peak) / (total - 1 - peak)))

    def factor(step: int, _epoch: int) -> float:
        return between(step, start, 1.0, end)

    def momentum(step: int) -> float:
        return between(step, max_momentum, base_momentum, max_momentum)

    return Schedule(factor, momentum if cycle_momentum else _left_alone)


def cosine_restarts(
    plan: Plan, *, period: float = 0.25, period_factor: int = 1, low: float = 0.0
) -> Schedule:
    """Cosines down to low, each period_factor × as long as the last (SGDR, arXiv:1608.03983)."""
    first = plan.period(period)

    def body(step: int, _epoch: int) -> float:
        cycle, position = first, step
        if period_factor == 1:
            position %= cycle
        while position >= cycle:
            position -= cycle
            cycle *= period_factor
        return _half_cosine(1.0, low, position / cycle)

    return Schedule(plan.ramped(body))


def triangular(plan: Plan, *, period: float = 0.25, low: float = 0.25) -> Schedule:
    """From low up to the base rate and back, in lines (Smith 2015, arXiv:1506.01186)."""
    return _triangles(plan, period, low, lambda _step, _cycle: 1.0)


def triangular2(plan: Plan, *, period: float = 0.25, low: float = 0.25) -> Schedule:
    """Triangular, its height above low halved after each cycle (Smith 2015, arXiv:1506.01186)."""
    return _triangles(plan, period, low, lambda _step, cycle: 0.5**cycle)


def exp_range(
    plan: Plan, *, period: float = 0.25, low: float = 0.25, gamma: float = 0.99994
) -> Schedule:
    """Triangular, its height above low times gamma each step (Smith 2015, arXiv:1506.01186)."""
    return _triangles(plan, period, low, lambda step, _cycle: gamma**step)


def _triangles(
    plan: Plan, period: float, low: float, height: Callable[[int, int], float]
) -> Schedule:
    whole = plan.period(period)

    def body(step: int, _epoch: int) -> float:
        cycle, position = divmod(step, whole)
        rise = 1 - abs(2 * position / whole - 1)
        return low + (1 - low) * rise * height(step, cycle)

    return Schedule(plan.ramped(body))


def step(plan: Plan, *, step_size: int, gamma: float = 0.1) -> Schedule:
    """The base rate times gamma every step_size epochs."""
    if plan.epochs is not None and step_size >= plan.epochs:
        _warn("step_size", f"the rate never falls: the training has {count(plan.epochs, 'epoch')}")
    return Schedule(plan.ramped(lambda _step, epoch: gamma ** (epoch // step_size)))


def multi_step(plan: Plan, *, milestones: list[int], gamma: float = 0.1) -> Schedule:
    """The base rate times gamma after each number of epochs in milestones."""
    if plan.epochs is not None and (late := [m for m in milestones if m >= plan.epochs]):
        length = count(plan.epochs, "epoch")
        _warn("milestones", f"{late[0]} is not reached: the training has {length}")
    return Schedule(plan.ramped(lambda _step, epoch: gamma ** bisect_right(milestones, epoch)))


def exponential(plan: Plan, *, gamma: float) -> Schedule:
    """The base rate times gamma each epoch."""
    return Schedule(plan.ramped(lambda _step, epoch: gamma**epoch))


def wsd(plan: Plan, *, decay: float = 0.2, shape: Literal["sqrt", "linear"] = "sqrt") -> Schedule:
    """The base rate, then a decay at the end by 1 − √t or 1 − t (Hägele 2024, arXiv:2405.18392)."""
    after, steps = plan.after(), plan.length(decay)
    if steps > after + 1:  # two fractions that make 1 may make one more when rounded
        problem = f"a decay of {steps:,} steps is longer than the {after:,} that follow warm-up"
        raise ConfigError(Problem((*SCHEDULE, "args", "decay"), problem))
    steps = min(steps, after)

    def body(step: int, _epoch: int) -> float:
        t = min(1.0, max(0.0, (step - (after - steps)) / steps))
        return 1 - (t if shape == "linear" else math.sqrt(t))

    return Schedule(plan.ramped(body))


def inverse_sqrt(plan: Plan, *, timescale: float | None = None) -> Schedule:
    """1 / √(1 + step / timescale), by default the warm-up's (Vaswani 2017, arXiv:1706.03762)."""
    scale = plan.warmup or LONG if timescale is None else plan.length(timescale)
    return Schedule(plan.ramped(lambda step, _epoch: 1 / math.sqrt(1 + step / scale)))


def plateau(
    plan: Plan,
    *,
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: Literal["rel", "abs"] = "rel",
    cooldown: int = 0,
    min_factor: float = 0.0,
) -> Schedule:
    """The base rate times factor when the loss falls no more for over patience epochs.

    torch's ReduceLROnPlateau with these arguments, of a rate of 1 that min_factor bounds.
    """
    # The first epoch is the measure, patience + 1 more must be no better, and one must be left.
    if plan.epochs is not None and plan.epochs < patience + 3:
        _warn("patience", f"the rate never falls: the training has {count(plan.epochs, 'epoch')}")
    rate = torch.optim.SGD([torch.zeros(())], lr=1.0)
    watch = ReduceLROnPlateau(
        rate,
        factor=factor,
        patience=patience,
        threshold=threshold,
        threshold_mode=threshold_mode,
        cooldown=cooldown,
        min_lr=min_factor,
    )
    group = rate.param_groups[0]
    return Schedule(plan.ramped(lambda _step, _epoch: group["lr"]), plateau=watch)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _line(start: float, end: float, share: float) -> float:
    return start + (end - start) * share


# Each is called with the plan and the configuration's arguments.
SCHEDULES: dict[str, Callable[..., Schedule]] = {
    function.__name__: function
    for function in (
        constant,
        linear,
        cosine,
        one_cycle,
        cosine_restarts,
        triangular,
        triangular2,
        exp_range,
        step,
        multi_step,
        exponential,
        polynomial,
        wsd,
        inverse_sqrt,
        plateau,
    )
}
