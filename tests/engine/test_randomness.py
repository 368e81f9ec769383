"""The random states: draws after they are put back are those after they were kept."""

import random

import numpy as np
import pytest
import torch

from lrtool.engine.randomness import random_states, restore_random_states


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
