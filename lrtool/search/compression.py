"""The schedule of a training, compressed to the few steps of a race or a trial."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lrtool.components.schedules import LONG, build_schedule
from lrtool.config.document import located
from lrtool.errors import LrtoolWarning
from lrtool.experiment.experiment import steps_per_epoch, training_steps

if TYPE_CHECKING:
    from lrtool.components.schedules import Schedule
    from lrtool.config.schema import ScheduleConfig
    from lrtool.experiment.experiment import Task


def compressed_schedule(task: Task, steps: int) -> Schedule:
    """Build the configuration's schedule, compressed to so many steps.

    Raises:
        ConfigError: it does not fit the training, or needs its length and that is not known.
    """
    training, per_epoch = training_steps(task), steps_per_epoch(task)
    spec = task.config.train.schedule
    with warnings.catch_warnings(), located(task.document):
        warnings.simplefilter("ignore", LrtoolWarning)  # a training says what it does not reach
        schedule = build_schedule(spec, steps=training, steps_per_epoch=per_epoch)
        if training is None:
            return schedule
        spec = compressed(spec, training, steps)
        schedule = build_schedule(spec, steps=steps, steps_per_epoch=None)
    if per_epoch is None or schedule.plateau is not None:
        return schedule
    faster = training / steps / per_epoch  # epochs of the training for each step of the race
    return replace(schedule, factor=lambda step, _: schedule.factor(step, int(step * faster)))


def compressed(spec: ScheduleConfig, training: int, steps: int) -> ScheduleConfig:
    """Return the schedule of a training for a race of so many steps.

    Lengths that are fractions stay as they are, and so does what `plateau` waits for.
    """
    args: dict[str, Any] = dict(spec.args)
    if spec.name == "inverse_sqrt" and not spec.warmup and args.get("timescale") is None:
        args["timescale"] = LONG
    for name in ("period", "decay", "timescale"):
        if (args.get(name) or 0) >= 1:
            args[name] = max(1, round(args[name] * steps / training))
    if spec.name == "exp_range":
        args["gamma"] = args.get("gamma", 0.99994) ** (training / steps)
    warmup = spec.warmup
    if warmup is not None and warmup >= 1:
        warmup /= training
    return spec.model_copy(update={"args": args, "warmup": warmup})
