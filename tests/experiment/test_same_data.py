"""What is said of data that ranks cannot read to compare them."""

from types import SimpleNamespace

import pytest

from lrtool.errors import ConfigError
from lrtool.experiment import same_data
from lrtool.ranks import Ranks


def test_a_data_set_that_fails_as_it_is_compared_is_named(monkeypatch):
    def fails(*_):
        raise KeyError("it went wrong")

    monkeypatch.setattr(same_data, "_difference", fails)
    split = SimpleNamespace(train_digest=None)
    data = SimpleNamespace(
        encoding=SimpleNamespace(split=split), train=None, validation=None, digest=None
    )
    with pytest.raises(ConfigError, match=r"data\.source: my:data failed: KeyError: 'it went"):
        same_data.refuse_different_data(data, "my:data", 0, Ranks(0, 2))
