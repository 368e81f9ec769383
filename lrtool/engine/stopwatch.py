"""How long the loop itself takes, apart from set-up, plots and writing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from lrtool.batch import samples_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lrtool.engine.step import Step, StepOut

Row = TypeVar("Row")


@dataclass
class Stopwatch:
    """Counts steps, samples, and the seconds spent in loops.

    Attributes:
        started: `perf_counter()` when the set-up began.
        setup_s: seconds from then to the first step; None before it.
        loop_s: seconds in the loops.
        steps: updates made, including those after the step at which a loop stopped.
        samples: samples in these steps.
        earlier_s: seconds of the sessions before this one, of a training that was resumed.
    """

    started: float = field(default_factory=perf_counter)
    setup_s: float | None = None
    loop_s: float = 0.0
    steps: int = 0
    samples: int = 0
    earlier_s: float = 0.0

    def counted(self, step: Step) -> Step:
        """Return a `step` that is counted."""

        def count(micro_batches: Sequence[Any], lr: float) -> StepOut | None:
            self.steps += 1
            self.samples += sum(samples_in(batch) for batch in micro_batches)
            return step(micro_batches, lr)

        return count

    def timed(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Yield `rows`; count the seconds of making them, but not of what is done with them."""
        started = perf_counter()
        if self.setup_s is None:
            self.setup_s = started - self.started
        for row in rows:
            self.loop_s += perf_counter() - started
            yield row
            started = perf_counter()
        self.loop_s += perf_counter() - started

    def lap(self) -> Stopwatch:
        """Return what was counted since the last lap, and count from 0 again."""
        counted = replace(self)
        self.steps, self.samples, self.loop_s = 0, 0, 0.0
        return counted

    def add(self, laps: Sequence[Stopwatch]) -> None:
        """Add what was counted at the same time: all steps and samples, the longest seconds."""
        self.steps += sum(lap.steps for lap in laps)
        self.samples += sum(lap.samples for lap in laps)
        self.loop_s += max((lap.loop_s for lap in laps), default=0.0)

    def state_dict(self) -> dict[str, float]:
        """Return what was counted so far, for a checkpoint."""
        total = self.earlier_s + perf_counter() - self.started
        return {
            "total_s": total,
            "loop_s": self.loop_s,
            "steps": self.steps,
            "samples": self.samples,
        }

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on counting from where a checkpoint was saved."""
        self.earlier_s, self.loop_s = float(state["total_s"]), float(state["loop_s"])
        self.steps, self.samples = int(state["steps"]), int(state["samples"])

    def timing(self) -> dict[str, Any]:
        """Return the report's `timing`."""
        per_s = 1 / self.loop_s if self.steps and self.loop_s else None
        return {
            "total_s": self.earlier_s + perf_counter() - self.started,
            "setup_s": self.setup_s,
            "steps": self.steps,
            "steps_per_s": per_s and self.steps * per_s,
            "samples_per_s": per_s and self.samples * per_s,
        }
