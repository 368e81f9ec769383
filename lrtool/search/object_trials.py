"""The schedule of a short training, from a name alone."""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING

from lrtool.components.schedules import SCHEDULES, build_schedule
from lrtool.config.schema import ScheduleConfig
from lrtool.errors import ConfigError, LrtoolWarning

if TYPE_CHECKING:
    from lrtool.components.schedules import Schedule


def schedule_of(name: str, steps: int) -> Schedule:
    """Build a schedule over so many steps from its name; "constant" where that is not enough."""
    parameters = [*inspect.signature(SCHEDULES[name]).parameters.values()][1:]
    if any(parameter.default is parameter.empty for parameter in parameters):
        name = "constant"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LrtoolWarning)  # of what so short a training is without
            return build_schedule(ScheduleConfig(name=name), steps=steps, steps_per_epoch=None)
    except ConfigError:
        return build_schedule(ScheduleConfig(), steps=steps, steps_per_epoch=None)
