"""The schedule of a training, compressed to the few steps of a race or a trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrtool.components import schedules
from lrtool.experiment.experiment import steps_per_epoch, training_steps
from lrtool.experiment.reading import located

if TYPE_CHECKING:
    from lrtool.components.schedules import Schedule
    from lrtool.experiment.experiment import Task


def compressed_schedule(task: Task, steps: int) -> Schedule:
    """Build the configuration's schedule, compressed to so many steps.

    Raises:
        ConfigError: it does not fit the training, or needs its length and that is not known.
    """
    with located(task.document):
        return schedules.compressed_schedule(
            task.config.train.schedule,
            training_steps=training_steps(task),
            steps_per_epoch=steps_per_epoch(task),
            steps=steps,
        )
