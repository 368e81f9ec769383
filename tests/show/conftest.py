import pytest
from finds import ODD, ODD_RACES, make_race, make_trials
from report_fixtures import make, odd, odd_race, odd_training, odd_training_named, train

from lrtool.show.terminal import find as terminal
from lrtool.show.terminal import train as training_terminal

__all__ = ["make", "odd", "odd_race", "odd_training", "odd_training_named", "train"]


@pytest.fixture
def trials():
    """Return the builder of trials."""
    return make_trials


@pytest.fixture
def race():
    """Return the builder of races."""
    return make_race


@pytest.fixture
def odd_named():
    return ODD.__getitem__


@pytest.fixture
def odd_race_named():
    return ODD_RACES.__getitem__


@pytest.fixture
def clock(monkeypatch):
    """A clock for progress that moves only when told to."""
    now = [100.0]
    for module in (terminal, training_terminal):
        monkeypatch.setattr(module, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
