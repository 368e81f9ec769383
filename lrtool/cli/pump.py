"""The one loop of all commands that take long: it shows rows and answers signals."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Protocol, TypeVar

from lrtool.data.workers import is_death_of_a_worker
from lrtool.errors import InterruptedRunError, LostRankError
from lrtool.ranks import ALONE

if TYPE_CHECKING:
    from collections.abc import Generator

    from lrtool.cli.signals import Stop
    from lrtool.ranks import Ranks

Row = TypeVar("Row")
Shown_contra = TypeVar("Shown_contra", contravariant=True)
Result = TypeVar("Result")


class Watcher(Protocol[Shown_contra]):
    """Something that each row is shown to: a progress bar, a tracker."""

    def update(self, row: Shown_contra, /) -> None:
        """Show a row."""


def pump(
    rows: Generator[Row, None, Result], stop: Stop, *watchers: Watcher[Row], ranks: Ranks = ALONE
) -> Result:
    """Run a generator to its end, show each row to the watchers, and return its result.

    Three errors are thrown into the generator, so that it can save and end: `InterruptedRunError`
    after a signal, the death of a process that loads data, which torch may raise anywhere, and the
    loss of another rank. Any other error, such as a watcher's, closes the generator and is raised.

    Args:
        rows: yields equally often on every rank. After each row the ranks agree whether a signal
            asked one of them to stop, so that all are interrupted at the same place.
        stop: of this process; in the end all ranks know of the same signal.
        watchers: each row is shown to them; on the first rank alone.
        ranks: that run the same generator.
    """
    if not ranks.first:
        watchers = ()
    with closing(rows):
        stop.gentle = True
        error: Exception | None = None
        while True:
            try:
                row = next(rows) if error is None else rows.throw(error)
            except StopIteration as end:
                result: Result = end.value
                return result
            error = None
            try:
                for watcher in watchers:
                    watcher.update(row)
                if agreed := int(ranks.highest([stop.signal or 0])[0]):
                    stop.signal = agreed
                    error = InterruptedRunError(stop.words())
            except LostRankError as lost:
                error = lost
            except RuntimeError as death:
                if not is_death_of_a_worker(death):
                    raise
                error = death
