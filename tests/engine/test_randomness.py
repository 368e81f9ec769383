"""The random states: draws after they are put back are those after they were kept."""

import itertools
import pickle
import random

import numpy as np
import pytest
import torch

from lrtool.engine.randomness import OwnRandomness, random_states, restore_random_states


def draws(generators=()):
    return [
        random.random(),  # noqa: S311  (this is what is tested)
        random.gauss(0, 1),
        np.random.rand(3).tolist(),  # noqa: NPY002  (likewise)
        np.random.randn(),  # noqa: NPY002  (keeps a second number for the next call)
        torch.randn(5).tolist(),
        [torch.rand(2, generator=generator).tolist() for generator in generators],
    ]


@pytest.mark.parametrize("through_a_file", [False, True])
def test_every_source_goes_on_where_it_was(tmp_path, through_a_file):
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    draws(generators)  # in the middle of their streams
    states = random_states(generators)
    expected = [draws(generators), draws(generators)]
    if through_a_file:
        torch.save(states, tmp_path / "states")
        states = torch.load(tmp_path / "states", weights_only=True)
    for _ in range(2):
        restore_random_states(states, generators)
        assert [draws(generators), draws(generators)] == expected


def test_states_are_copies():
    generator = torch.Generator().manual_seed(3)
    states = random_states([generator])
    expected = draws([generator])
    for _ in range(700):  # NumPy's generator makes a new block of 624 numbers
        draws([generator])
    restore_random_states(states, [generator])
    assert draws([generator]) == expected


def test_the_generators_must_be_the_same():
    states = random_states([torch.Generator()])
    with pytest.raises(ValueError, match="longer"):
        restore_random_states(states, [])


def test_states_go_from_process_to_process():
    states = pickle.loads(pickle.dumps(random_states([torch.Generator()])))  # noqa: S301  (our own)
    expected = draws()
    restore_random_states(states, [torch.Generator()])
    assert draws() == expected


def test_older_states_had_unsigned_numbers():
    states = random_states()
    kind, keys, *rest = states["numpy"]
    expected = draws()
    restore_random_states({**states, "numpy": (kind, keys.view(torch.uint32), *rest)})
    assert draws() == expected


class TestOwnRandomness:
    def own(self, seed=3, rank=1):
        return OwnRandomness(seed, rank, torch.device("cpu"))

    def test_the_states_of_all_ranks_stay_as_they_are(self):
        torch.manual_seed(0)
        before, own = random_states(), self.own()
        expected = draws()
        restore_random_states(before)
        with own:
            draws()
        assert draws() == expected

    def test_an_exception_leaves_the_block_as_well(self):
        before, own = random_states(), self.own()
        expected = draws()
        restore_random_states(before)
        with pytest.raises(ZeroDivisionError), own:
            torch.rand(1) / (1 // 0)
        assert draws() == expected

    def test_each_block_goes_on(self):
        one, two = self.own(), self.own()
        with one:
            expected = [draws(), draws()]
        for each in expected:
            draws()
            with two:
                assert draws() == each

    def test_every_seed_rank_and_step_has_its_own(self):
        seen = []
        for seed, rank, step in itertools.product((3, 4), (0, 1, 2), (0, 1)):
            own = self.own(seed, rank)
            own.begin(step)
            with own:
                seen += [str(draw) for draw in draws()[:-1]]
        assert len(set(seen)) == len(seen) == 12 * 5

    def test_the_states_are_kept_in_a_file(self, tmp_path):
        one, two = self.own(), self.own(rank=2)
        with one:
            draws()
        torch.save(one.state_dict(), tmp_path / "states")
        with one:
            expected = draws()
        two.load_state_dict(torch.load(tmp_path / "states", weights_only=True))
        with two:
            assert draws() == expected
