"""One loop for rows, progress and signals."""

import signal

import pytest

from lrtool.cli.pump import pump
from lrtool.cli.signals import Stop
from lrtool.errors import InterruptedRunError, LostRankError

DEATH = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")


class Watcher:
    """Keeps what it is shown; at the row 2 it does something."""

    def __init__(self, at_two=lambda: None):
        self.seen, self.at_two = [], at_two

    def update(self, row):
        self.seen.append(row)
        if row == 2:
            self.at_two()


def rows(closed):
    """Three rows; what is thrown in is returned, and what closes it noted."""
    try:
        yield 1
        yield 2
        yield 3
    except (InterruptedRunError, RuntimeError) as error:
        return error
    except GeneratorExit:
        closed.append(True)
        raise
    return "the end"


def test_every_watcher_sees_every_row_and_the_result_comes_back():
    one, two, stop, closed = Watcher(), Watcher(), Stop(), []
    assert pump(rows(closed), stop, one, two) == "the end"
    assert one.seen == two.seen == [1, 2, 3]
    assert (stop.gentle, closed) == (True, [])


def test_a_generator_without_rows_has_a_result_too():
    def nothing():
        yield from ()
        return 7

    assert pump(nothing(), Stop()) == 7


def test_a_signal_is_thrown_in_after_the_row_is_shown():
    stop = Stop()
    watcher = Watcher(lambda: setattr(stop, "signal", signal.SIGTERM))
    ending = pump(rows([]), stop, watcher)
    assert isinstance(ending, InterruptedRunError)
    assert str(ending) == "stopped by SIGTERM"
    assert watcher.seen == [1, 2]


class Two:
    """Two ranks, of which this is one; the other has what is given, at each row."""

    def __init__(self, *others, first=True):
        self.others, self.first = iter(others), first

    def highest(self, values):
        other = next(self.others)
        if isinstance(other, Exception):
            raise other
        return [max(value, other) for value in values]


def test_the_signal_of_another_rank_stops_this_one_at_the_same_row():
    stop, watcher = Stop(), Watcher()
    ending = pump(rows([]), stop, watcher, ranks=Two(0, signal.SIGTERM))
    assert str(ending) == "stopped by SIGTERM"
    assert (watcher.seen, stop.exit_code()) == ([1, 2], 143)


def test_the_loss_of_another_rank_is_thrown_in():
    lost = LostRankError("gone")
    watcher = Watcher()

    def rows():
        try:
            yield 1
            yield 2
        except LostRankError as error:
            return error

    assert pump(rows(), Stop(), watcher, ranks=Two(0, lost)) is lost
    assert watcher.seen == [1, 2]


def test_the_first_rank_alone_shows_rows():
    watcher = Watcher()
    assert pump(rows([]), Stop(), watcher, ranks=Two(0, 0, 0, first=False)) == "the end"
    assert watcher.seen == []


def test_rows_that_still_come_after_a_signal_are_shown():
    def slow():
        try:
            yield 1
        except InterruptedRunError:
            try:
                yield 2
            except InterruptedRunError:
                return "told twice"

    watcher = Watcher()
    assert pump(slow(), Stop(signal=signal.SIGINT), watcher) == "told twice"
    assert watcher.seen == [1, 2]


def raising(error):
    def fail():
        raise error

    return Watcher(fail)


def test_the_death_of_a_worker_while_a_row_is_shown_is_thrown_in():
    watcher = raising(DEATH)
    assert pump(rows([]), Stop(), watcher) is DEATH
    assert watcher.seen == [1, 2]


@pytest.mark.parametrize("bug", [RuntimeError("a bar that cannot be drawn"), KeyError("colour")])
def test_any_other_error_of_a_watcher_closes_the_generator_and_is_raised(bug):
    closed = []
    with pytest.raises(type(bug)) as caught:
        pump(rows(closed), Stop(), raising(bug))
    assert caught.value is bug
    assert closed == [True]


def test_an_error_of_the_generator_is_raised():
    def broken():
        yield 1
        raise LookupError("no such picture")

    with pytest.raises(LookupError, match="no such picture"):
        pump(broken(), Stop(), Watcher())
