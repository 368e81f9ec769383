"""What tests of reports, and of what is shown of them, share."""

import pytest
from finds import ODD, ODD_RACES, make_report
from trainings import ODD_TRAININGS, make_training


@pytest.fixture(scope="session")
def make():
    """Return the builder of reports of finds; every part of them can be replaced."""
    return make_report


@pytest.fixture(params=list(ODD))
def odd(request):
    return ODD[request.param]


@pytest.fixture(params=list(ODD_RACES))
def odd_race(request):
    return ODD_RACES[request.param]


@pytest.fixture(scope="session")
def train():
    """Return the builder of reports of trainings; every part of them can be replaced."""
    return make_training


@pytest.fixture(params=list(ODD_TRAININGS))
def odd_training(request):
    return ODD_TRAININGS[request.param]


@pytest.fixture
def odd_training_named():
    return ODD_TRAININGS.__getitem__
