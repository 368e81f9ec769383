"""What several ranks share in trials and race."""

from dataclasses import dataclass

import pytest
import torch

from lrtool.config.schema import Config
from lrtool.engine.device import Runtime
from lrtool.errors import LrtoolWarning, OutOfMemoryError
from lrtool.ranks import Ranks
from lrtool.search import parallel


@dataclass
class Experiment:
    config: Config
    runtime: Runtime


class Two(Ranks):
    """Two ranks; on the other one a batch fits, or not."""

    def __init__(self, *, other_fits=True):
        super().__init__(0, 2)
        object.__setattr__(self, "other_fits", other_fits)

    def any(self, *, flag):
        return flag or not self.other_fits


@pytest.fixture
def chosen(monkeypatch):
    """Tell what is chosen for a device on which a step of the whole batch raises an error."""
    steps = []

    def chosen(given, device="cuda", error=None, ranks=None, *, shard=False):
        def step(experiment):
            assert not experiment.runtime.ranks.several
            steps.append(experiment)
            if error is not None:
                raise error

        monkeypatch.setattr(parallel, "_make_step", step)
        config = Config.model_validate({"find": {"parallel": given}})
        runtime = Runtime(torch.device(device), shard=shard, ranks=ranks or Two())
        steps.clear()
        return parallel.parallel_of(Experiment(config, runtime)), len(steps)

    return chosen


def test_what_is_asked_for(chosen):
    assert chosen("data") == ("data", 0)
    assert chosen("candidates") == ("candidates", 0)


def test_auto_is_candidates_where_one_fits_on_every_rank(chosen):
    assert chosen("auto", device="cpu") == ("candidates", 0)
    assert chosen("auto") == ("candidates", 1)
    assert chosen("auto", error=torch.OutOfMemoryError("no")) == ("data", 1)
    assert chosen("auto", error=OutOfMemoryError("the model")) == ("data", 1)
    assert chosen("auto", ranks=Two(other_fits=False)) == ("data", 1)


def test_another_failure_is_left_to_the_search(chosen):
    assert chosen("auto", error=ValueError("a bad model")) == ("candidates", 1)


def test_a_model_that_is_sharded_fits_no_device(chosen):
    assert chosen("auto", shard=True) == ("data", 0)


def test_one_process_has_nothing_to_share(chosen):
    assert chosen("auto", ranks=Ranks()) == ("data", 0)


def test_candidates_of_their_own_are_not_sharded_and_that_is_said(chosen):
    with pytest.warns(LrtoolWarning, match=r"runtime\.shard is ignored in trials and race"):
        assert chosen("candidates", shard=True) == ("candidates", 0)
