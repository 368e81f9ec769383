import pytest

from lrtool.data.split import Split


@pytest.fixture
def split(tmp_path):
    """Make a split that looks for files in `tmp_path`."""

    def make(validation=0, seed=0):
        return Split(validation, seed, (tmp_path,))

    return make
