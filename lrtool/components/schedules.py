"""The schedules that a configuration may name: how the rate moves over training.

Each is a function of the training that it is for (a `Plan`) and of the configuration's arguments,
whose annotations say which values they may have. `SCHEDULES`, at the end, is the table of them: an
entry there is all that a new one needs.

All but `plateau` are closed forms of step and epoch, so a resumed run needs no replay. A length
among the arguments (`period`, `decay`, `timescale`) is, like `warmup`, a fraction of the training
below 1, or a number of updates.
"""

from __future__ import annotations

import math
import warnings
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lrtool.components.import_path import Range, required
from lrtool.config.schema import ScheduleConfig
from lrtool.config.spelling import count
from lrtool.errors import ConfigError, LrtoolWarning, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

Factor = Callable[[int, int], float]

SCHEDULE = ("train", "schedule")


def _is_length(value: float) -> bool:
    return 0 < value < 1 or (value >= 1 and float(value).is_integer())


def _increase(epochs: list[int]) -> bool:
    return bool(epochs) and all(a < b for a, b in zip([0, *epochs], epochs, strict=False))


# What the arguments may be, beyond their types.
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
    """The training that a schedule is for, or a short one that stands for it.

    Attributes:
        name: of the schedule.
        steps: updates of the whole training; None: not known.
        warmup: updates of the warm-up; None: not given.
        epochs: of the whole training; None: not known.
        stands_for: updates of the training that is compressed to `steps`; None: it is no other.
    """

    name: str
    steps: int | None
    warmup: int | None
    epochs: int | None
    stands_for: int | None = None

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
        """Return a fraction of the training, or a number of its updates, as updates here."""
        if value < 1:
            return max(1, round(value * self.total()))
        if self.stands_for is None:
            return int(value)
        return max(1, round(value * self.total() / self.stands_for))

    def pace(self) -> float:
        """Return how many updates of the training each update here stands for."""
        return 1.0 if self.stands_for is None else self.stands_for / self.total()

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
        spec: a sound name with sound arguments (`lrtool.components.check`).
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
    return SCHEDULES[spec.name].build(plan, **spec.args)


def compressed_schedule(
    spec: ScheduleConfig, *, training_steps: int | None, steps_per_epoch: int | None, steps: int
) -> Schedule:
    """Return the schedule of a training, compressed to a few steps: those of a race or a trial.

    Lengths keep their share of the training, and epochs pass faster. What `plateau` waits for
    stays as it is. It does not warn of what so few steps do not reach.

    Args:
        spec: a sound name with sound arguments.
        training_steps: updates of the whole training; None: not known, and nothing is compressed.
        steps_per_epoch: updates of an epoch of the training; None: not known.
        steps: how many updates to compress it to.

    Raises:
        ConfigError: the schedule does not fit the training, or needs its length and that is not
            known.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LrtoolWarning)
        # what the training would refuse is refused in the same words
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


def named_schedule(name: str, steps: int) -> Schedule:
    """Return a schedule with its default arguments; "constant" where it has none for these steps.

    It does not warn of what so few steps do not reach.
    """
    if len(required(SCHEDULES[name].build)) > 1:  # the plan, and an argument
        name = "constant"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LrtoolWarning)
        try:
            return build_schedule(ScheduleConfig(name=name), steps=steps, steps_per_epoch=None)
        except ConfigError:
            return build_schedule(ScheduleConfig(), steps=steps, steps_per_epoch=None)


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
    """Return a schedule of the time t after warm-up: 0 at its end, 1 at that of the training."""
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
    return Schedule(plan.ramped(lambda _step, epoch: gamma**epoch))


def wsd(plan: Plan, *, decay: Length = 0.2, shape: Literal["sqrt", "linear"] = "sqrt") -> Schedule:
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


@dataclass(frozen=True, slots=True)
class ScheduleEntry:
    """A schedule that a configuration may name.

    Attributes:
        build: `build(plan, **args)`; its docstring's first line describes it in `lrtool list`.
        like: the schedule with measured best rates that treats the rate alike: "constant" stays at
            the base rate for long, "cosine" falls, "one_cycle" rises first.
    """

    build: Callable[..., Schedule]
    like: Literal["constant", "cosine", "one_cycle"]


SCHEDULES: dict[str, ScheduleEntry] = {
    "constant": ScheduleEntry(constant, like="constant"),
    "linear": ScheduleEntry(linear, like="cosine"),
    "cosine": ScheduleEntry(cosine, like="cosine"),
    "one_cycle": ScheduleEntry(one_cycle, like="one_cycle"),
    "cosine_restarts": ScheduleEntry(cosine_restarts, like="cosine"),
    "triangular": ScheduleEntry(triangular, like="one_cycle"),
    "triangular2": ScheduleEntry(triangular2, like="one_cycle"),
    "exp_range": ScheduleEntry(exp_range, like="one_cycle"),
    "step": ScheduleEntry(step, like="constant"),
    "multi_step": ScheduleEntry(multi_step, like="constant"),
    "exponential": ScheduleEntry(exponential, like="cosine"),
    "polynomial": ScheduleEntry(polynomial, like="cosine"),
    "wsd": ScheduleEntry(wsd, like="cosine"),
    "inverse_sqrt": ScheduleEntry(inverse_sqrt, like="constant"),
    "plateau": ScheduleEntry(plateau, like="constant"),
}
