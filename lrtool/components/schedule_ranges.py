"""The values that the arguments of a schedule may have, beyond their types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lrtool.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from lrtool.config.schema import ScheduleConfig


def _is_length(value: float) -> bool:
    return 0 < value < 1 or (value >= 1 and float(value).is_integer())


def _increase(epochs: list[int]) -> bool:
    return bool(epochs) and all(a < b for a, b in zip([0, *epochs], epochs, strict=False))


LENGTH = "must be a fraction of the training below 1, or a whole number of steps"

# In words, what it means, and the arguments: those of one name mean the same in all schedules.
_RANGES: tuple[tuple[str, Callable[[Any], bool], set[str]], ...] = (
    (LENGTH, _is_length, {"decay"}),
    (LENGTH, lambda v: v is None or _is_length(v), {"timescale"}),
    (f"{LENGTH} from 2", lambda v: v != 1 and _is_length(v), {"period"}),
    ("must be between 0 and 1", lambda v: 0 <= v <= 1, {"end_factor", "low", "min_factor"}),
    ("must be above 0 and at most 1", lambda v: 0 < v <= 1, {"gamma"}),
    ("must be above 0 and below 1", lambda v: 0 < v < 1, {"factor"}),
    ("must be at least 0 and below 1", lambda v: 0 <= v < 1, {"base_momentum", "max_momentum"}),
    ("must be above 0", lambda v: v > 0, {"power"}),
    ("must be at least 0", lambda v: v >= 0, {"patience", "threshold", "cooldown"}),
    (
        "must be at least 1",
        lambda v: v >= 1,
        {"div_factor", "final_div_factor", "period_factor", "step_size"},
    ),
    ("must be epochs from 1, each later than the one before", _increase, {"milestones"}),
)


def out_of_range(spec: ScheduleConfig) -> list[Problem]:
    """Return what no training could use among warm-up and arguments, whose types are right."""
    problems = []
    if spec.warmup and not _is_length(spec.warmup):
        words = f"{LENGTH}, not {spec.warmup:g}"
        problems.append(Problem(("train", "schedule", "warmup"), words))
    for name, value in spec.args.items():
        for words, allows, names in _RANGES:
            if name in names and not allows(value):
                problem = Problem(("train", "schedule", "args", name), f"{words}, not {value}")
                problems.append(problem)
    return problems
