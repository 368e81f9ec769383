"""Learning-rate schedules.

A schedule is a function of the training (a `Plan`) and of arguments, whose annotations say which
values are allowed. A new one is an entry of the table `SCHEDULES` at the end.

All but `plateau` are closed forms of step and epoch, so a resumed run has nothing to restore.
Lengths (`warmup`, `period`, `decay`, `timescale`) are fractions of the training below 1, or numbers
of updates.
"""

from __future__ import annotations

import math
import warnings
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lrtool.components.import_path import Range, required
from lrtool.config.schema import ScheduleConfig
from lrtool.config.spelling import count, number
from lrtool.errors import ConfigError, LrtoolWarning, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

Factor = Callable[[int, int], float]

SCHEDULE = ("train", "schedule")


def _is_length(value: float) -> bool:
    return 0 < value < 1 or (1 <= value <= MOST_STEPS and float(value).is_integer())


def _increase(epochs: list[int]) -> bool:
    return bool(epochs) and all(a < b for a, b in zip([0, *epochs], epochs, strict=False))


# Types of arguments.
MOST_STEPS = 10**12
_LENGTH = "must be a fraction of the training below 1, or a whole number of steps"
Length = Annotated[float, Range(_LENGTH, _is_length)]
Timescale = Annotated[float | None, Range(_LENGTH, lambda v: v is None or _is_length(v))]
Period = Annotated[float, Range(f"{_LENGTH} from 2", lambda v: v != 1 and _is_length(v))]
Share = Annotated[float, Range("must be between 0 and 1", lambda v: 0 <= v <= 1)]
Ratio = Annotated[float, Range("must be above 0 and at most 1", lambda v: 0 < v <= 1)]
Drop = Annotated[float, Range("must be above 0 and below 1", lambda v: 0 < v < 1)]
Momentum = Annotated[float, Range("must be at least 0 and below 1", lambda v: 0 <= v < 1)]
Power = Annotated[float, Range("must be above 0", lambda v: v > 0)]
Threshold = Annotated[float, Range("must be at least 0", lambda v: v >= 0)]
Epochs = Annotated[int, Range("must be at least 0", lambda v: v >= 0)]
Divisor = Annotated[float, Range("must be at least 1", lambda v: v >= 1)]
Times = Annotated[int, Range("must be at least 1", lambda v: v >= 1)]
Milestones = Annotated[
    list[int], Range("must be epochs from 1, each later than the one before", _increase)
]

# The state of torch's ReduceLROnPlateau.
_PLATEAU_STATE = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")


def _unchanged(_step: int) -> None:
    """Leave the momentum as it is."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The rate over the training, and for `one_cycle` the momentum.

    Attributes:
        factor: `factor(step, epoch)`: the rate of an update, divided by the base rate. `step`
            counts from 0 over the whole training. Cheap, and a pure function but for `plateau`.
        momentum: `momentum(step)`: the momentum, or Adam's beta 1, of an update; None: unchanged.
        plateau: torch's scheduler, which follows the losses.
    """

    factor: Factor
    momentum: Callable[[int], float | None] = _unchanged
    plateau: ReduceLROnPlateau | None = None

    def observe(self, loss: float) -> None:
        """Take an epoch's validation loss, or its training loss if there is none."""
        if self.plateau is not None:
            self.plateau.step(loss)

    def state_dict(self) -> dict[str, Any]:
        """Return what `observe` changes, as plain numbers; empty but for `plateau`."""
        if self.plateau is None:
            return {}
        state = {key: getattr(self.plateau, key) for key in _PLATEAU_STATE}
        return {**state, "factor": self.plateau.optimizer.param_groups[0]["lr"]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        assert bool(state) == (self.plateau is not None), "the state of another schedule"
        if self.plateau is not None:
            self.plateau.load_state_dict({key: state[key] for key in _PLATEAU_STATE})
            self.plateau.optimizer.param_groups[0]["lr"] = state["factor"]


@dataclass(frozen=True, slots=True)
class Plan:
    """The training that a schedule is for, or a compressed one.

    Attributes:
        name: of the schedule.
        steps: updates of this training; None: unknown.
        warmup: updates of the warm-up; None: not given.
        epochs: of this training; None: unknown.
        stands_for: updates of the training that is compressed to `steps`; None: not compressed.
    """

    name: str
    steps: int | None
    warmup: int | None
    epochs: int | None
    stands_for: int | None = None

    def total(self) -> int:
        """Return the updates of the training, or raise ConfigError if unknown."""
        if self.steps is None:
            problem = (
                f"{self.name} needs the length of the training, which is unknown for this data; "
                "give train.max_steps"
            )
            raise ConfigError(Problem(SCHEDULE, problem))
        return self.steps

    def after(self) -> int:
        """Return the updates after the warm-up, at least 1."""
        return self.total() - (self.warmup or 0)

    def length(self, value: float) -> int:
        """Return a length among the arguments as updates of this training."""
        if value < 1:
            return max(1, round(value * self.total()))
        if self.stands_for is None:
            return int(value)
        return max(1, round(value * self.total() / self.stands_for))

    def pace(self) -> float:
        """Return how many updates of the whole training an update stands for."""
        return 1.0 if self.stands_for is None else self.stands_for / self.total()

    def period(self, value: float) -> int:
        """Return the updates of a cycle, at least 2."""
        period = max(2, self.length(value))
        if self.steps is not None and period > max(2, self.after()):
            _warn("period", f"the training ends within the first cycle of {period:,} steps")
        return period

    def ramped(self, body: Factor) -> Factor:
        """Return `body` after a linear warm-up.

        The ramp is torch's LinearLR from 1 / (W + 1) over W updates, so no update has a rate of 0,
        and the first one after the ramp has the rate of `body`.
        """
        if not self.warmup:
            return body
        warmup = self.warmup

        def factor(step: int, epoch: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1) * body(0, epoch)
            return body(step - warmup, epoch)

        return factor


def warms_up(spec: ScheduleConfig) -> bool:
    """Tell whether a schedule begins with lower rates, by a warm-up or by its own shape."""
    return bool(spec.warmup) or SCHEDULES[spec.name].rises


def build_schedule(
    spec: ScheduleConfig, *, steps: int | None, steps_per_epoch: int | None
) -> Schedule:
    """Return the schedule of a training.

    Args:
        spec: checked by `lrtool.components.check`.
        steps: updates of the training; None: unknown.
        steps_per_epoch: updates of an epoch; None: unknown.

    Raises:
        ConfigError: the length of the training is needed and unknown, or it is too short for the
            warm-up or the decay.

    Warns:
        LrtoolWarning: the training is too short for the arguments to have an effect.
    """
    epochs = math.ceil(steps / steps_per_epoch) if steps and steps_per_epoch else None
    plan = Plan(spec.name, steps, _warmup(spec.warmup, steps), epochs)
    return SCHEDULES[spec.name].build(plan, **spec.args)


def compressed_schedule(
    spec: ScheduleConfig, *, training_steps: int | None, steps_per_epoch: int | None, steps: int
) -> Schedule:
    """Return the schedule of a training, compressed to the few steps of a candidate or a trial.

    Lengths keep their share of the training, and epochs are shorter. The patience of `plateau`
    stays. There are no warnings about short trainings.

    Args:
        spec: checked by `lrtool.components.check`.
        training_steps: updates of the whole training; None: unknown, then nothing is compressed.
        steps_per_epoch: updates of an epoch of the training; None: unknown.
        steps: updates of the candidate or trial.

    Raises:
        ConfigError: the schedule does not fit the training, or needs its unknown length.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LrtoolWarning)
        # raises what the training itself would raise
        schedule = build_schedule(spec, steps=training_steps, steps_per_epoch=steps_per_epoch)
        if training_steps is None:
            return schedule
        warmup = spec.warmup
        if warmup is not None and warmup >= 1:
            warmup /= training_steps
        plan = Plan(spec.name, steps, _warmup(warmup, steps), None, stands_for=training_steps)
        schedule = SCHEDULES[spec.name].build(plan, **spec.args)
    if steps_per_epoch is None:
        return schedule
    faster = plan.pace() / steps_per_epoch  # epochs of the training for each step
    return replace(schedule, factor=lambda step, _: schedule.factor(step, int(step * faster)))


def named_schedule(name: str, *, training_steps: int, steps: int) -> Schedule:
    """Return a schedule with default arguments; "constant" if it has none that fit.

    It is compressed as by `compressed_schedule`, without warnings about short trainings.
    """
    if len(required(SCHEDULES[name].build)) > 1:  # the plan, and an argument
        name = "constant"
    compressed = partial(
        compressed_schedule, training_steps=training_steps, steps_per_epoch=None, steps=steps
    )
    try:
        return compressed(ScheduleConfig(name=name))
    except ConfigError:
        return compressed(ScheduleConfig())


def _warmup(given: float | None, steps: int | None) -> int | None:
    if not given:
        return None if given is None else 0
    path = (*SCHEDULE, "warmup")
    if given < 1:
        if steps is None:
            problem = (
                f"{given:g} of a training whose length is unknown for this data; give a number of "
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


def linear(plan: Plan, *, end_factor: Share = 0.0) -> Schedule:
    """A straight line down to end_factor × the base rate."""
    return _over_training(plan, lambda t: end_factor + (1 - end_factor) * (1 - t))


def cosine(plan: Plan, *, end_factor: Share = 0.0) -> Schedule:
    """Half a cosine down to end_factor × the base rate (Loshchilov 2016, arXiv:1608.03983)."""
    return _over_training(plan, lambda t: _half_cosine(1.0, end_factor, t))


def polynomial(plan: Plan, *, power: Power = 0.9) -> Schedule:
    """(1 − t)^power, t from 0 to 1; 0.9 as in segmentation (Chen 2016, arXiv:1606.00915)."""
    return _over_training(plan, lambda t: (1 - t) ** power)


def _over_training(plan: Plan, body: Callable[[float], float]) -> Schedule:
    """Return a schedule of the time t, from 0 after the warm-up to 1 at the end."""
    after = plan.after()
    return Schedule(plan.ramped(lambda step, _epoch: body(min(1.0, step / after))))


def one_cycle(
    plan: Plan,
    *,
    div_factor: Divisor = 25.0,
    final_div_factor: Divisor = 1e4,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    cycle_momentum: bool = True,
    base_momentum: Momentum = 0.85,
    max_momentum: Momentum = 0.95,
) -> Schedule:
    """Up by a cosine, then to almost 0; momentum down and up (Smith 2018, arXiv:1803.09820).

    As torch's OneCycleLR. `warmup` is the length of the way up, by default 0.3 of the training.
    """
    if base_momentum > max_momentum:
        words = f"is above max_momentum, {number(max_momentum)}"
        raise ConfigError(Problem((*SCHEDULE, "args", "base_momentum"), words))
    total = plan.total()
    rise = 0.3 * total if plan.warmup is None else plan.warmup
    peak = rise - 1  # as in torch, it may lie between two updates
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

    return Schedule(factor, momentum if cycle_momentum else _unchanged)


def cosine_restarts(
    plan: Plan, *, period: Period = 0.25, period_factor: Times = 1, low: Share = 0.0
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


def triangular(plan: Plan, *, period: Period = 0.25, low: Share = 0.25) -> Schedule:
    """From low up to the base rate and back, in lines (Smith 2015, arXiv:1506.01186)."""
    return _triangles(plan, period, low, lambda _step, _cycle: 1.0)


def triangular2(plan: Plan, *, period: Period = 0.25, low: Share = 0.25) -> Schedule:
    """Triangular, its height above low halved after each cycle (Smith 2015, arXiv:1506.01186)."""
    return _triangles(plan, period, low, lambda _step, cycle: 0.5**cycle)


def exp_range(
    plan: Plan, *, period: Period = 0.25, low: Share = 0.25, gamma: Ratio = 0.99994
) -> Schedule:
    """Triangular, its height above low times gamma each step (Smith 2015, arXiv:1506.01186)."""
    each = gamma ** plan.pace()
    return _triangles(plan, period, low, lambda step, _cycle: each**step)


def _triangles(
    plan: Plan, period: float, low: float, height: Callable[[int, int], float]
) -> Schedule:
    whole = plan.period(period)

    def body(step: int, _epoch: int) -> float:
        cycle, position = divmod(step, whole)
        rise = 1 - abs(2 * position / whole - 1)
        return low + (1 - low) * rise * height(step, cycle)

    return Schedule(plan.ramped(body))


def step(plan: Plan, *, step_size: Times, gamma: Ratio = 0.1) -> Schedule:
    """The base rate times gamma every step_size epochs."""
    if plan.epochs is not None and step_size >= plan.epochs:
        _warn("step_size", f"the rate never falls: the training has {count(plan.epochs, 'epoch')}")
    return Schedule(plan.ramped(lambda _step, epoch: gamma ** (epoch // step_size)))


def multi_step(plan: Plan, *, milestones: Milestones, gamma: Ratio = 0.1) -> Schedule:
    """The base rate times gamma after each number of epochs in milestones."""
    if plan.epochs is not None and (late := [m for m in milestones if m >= plan.epochs]):
        length = count(plan.epochs, "epoch")
        _warn("milestones", f"{late[0]} is not reached: the training has {length}")
    return Schedule(plan.ramped(lambda _step, epoch: gamma ** bisect_right(milestones, epoch)))


def exponential(plan: Plan, *, gamma: Ratio) -> Schedule:
    """The base rate times gamma each epoch."""
    if plan.epochs == 1:
        _warn("gamma", "the rate never falls: the training has 1 epoch")
    return Schedule(plan.ramped(lambda _step, epoch: gamma**epoch))


def wsd(plan: Plan, *, decay: Length = 0.2, shape: Literal["sqrt", "linear"] = "sqrt") -> Schedule:
    """The base rate, then a decay at the end by 1 − √t or 1 − t (Hägele 2024, arXiv:2405.18392)."""
    after, steps = plan.after(), plan.length(decay)
    if steps > after + 1:  # rounding may add one step to two fractions with the sum 1
        problem = f"a decay of {steps:,} steps is longer than the {after:,} after the warm-up"
        raise ConfigError(Problem((*SCHEDULE, "args", "decay"), problem))
    steps = min(steps, after)

    def body(step: int, _epoch: int) -> float:
        t = min(1.0, max(0.0, (step - (after - steps)) / steps))
        return 1 - (t if shape == "linear" else math.sqrt(t))

    return Schedule(plan.ramped(body))


def inverse_sqrt(plan: Plan, *, timescale: Timescale = None) -> Schedule:
    """1 / √(1 + step / timescale), by default the warm-up's (Vaswani 2017, arXiv:1706.03762)."""
    usual = plan.warmup or plan.length(10_000)  # as in T5
    scale = usual if timescale is None else plan.length(timescale)
    return Schedule(plan.ramped(lambda step, _epoch: 1 / math.sqrt(1 + step / scale)))


def plateau(
    plan: Plan,
    *,
    factor: Drop = 0.1,
    patience: Epochs = 10,
    threshold: Threshold = 1e-4,
    threshold_mode: Literal["rel", "abs"] = "rel",
    cooldown: Epochs = 0,
    min_factor: Share = 0.0,
) -> Schedule:
    """The base rate times factor when the loss falls no more for over patience epochs.

    As torch's ReduceLROnPlateau, with min_factor × the base rate as the lowest rate.
    """
    # Epochs: the first, patience + 1 that are no better, and one at the lower rate.
    if plan.epochs is not None and plan.epochs < patience + 3:
        _warn("patience", f"the rate never falls: the training has {count(plan.epochs, 'epoch')}")
    rate = torch.optim.SGD([torch.zeros(())], lr=1.0)
    scheduler = ReduceLROnPlateau(
        rate,
        factor=factor,
        patience=patience,
        threshold=threshold,
        threshold_mode=threshold_mode,
        cooldown=cooldown,
        min_lr=min_factor,
    )
    group = rate.param_groups[0]
    return Schedule(plan.ramped(lambda _step, _epoch: group["lr"]), plateau=scheduler)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _line(start: float, end: float, share: float) -> float:
    return start + (end - start) * share


@dataclass(frozen=True, slots=True)
class ScheduleEntry:
    """A schedule that a configuration may name.

    Attributes:
        build: `build(plan, **args)`; `lrtool list` shows the first line of its docstring.
        rises: it begins below the base rate by its own shape.
    """

    build: Callable[..., Schedule]
    rises: bool = False


SCHEDULES: dict[str, ScheduleEntry] = {
    "constant": ScheduleEntry(constant),
    "linear": ScheduleEntry(linear),
    "cosine": ScheduleEntry(cosine),
    "one_cycle": ScheduleEntry(one_cycle, rises=True),
    "cosine_restarts": ScheduleEntry(cosine_restarts),
    "triangular": ScheduleEntry(triangular, rises=True),
    "triangular2": ScheduleEntry(triangular2, rises=True),
    "exp_range": ScheduleEntry(exp_range, rises=True),
    "step": ScheduleEntry(step),
    "multi_step": ScheduleEntry(multi_step),
    "exponential": ScheduleEntry(exponential),
    "polynomial": ScheduleEntry(polynomial),
    "wsd": ScheduleEntry(wsd),
    "inverse_sqrt": ScheduleEntry(inverse_sqrt),
    "plateau": ScheduleEntry(plateau),
}
