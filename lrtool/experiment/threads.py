"""How many threads compute on the CPU: one, or all, whichever makes this model's steps faster here.

torch's threads spin while they wait for each other, many times in a step. Where another process
holds one of the cores, each wait lasts until the system takes the core away from it: a small model
is then several times slower with two threads than with one, on two cores.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from lrtool.engine.copies import copied
from lrtool.experiment.experiment import build, first_batches, step_of

if TYPE_CHECKING:
    from lrtool.engine.step import Step
    from lrtool.experiment.experiment import Experiment

CHOSEN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # by these the user has chosen a number
ON_THIS_MACHINE = "LOCAL_WORLD_SIZE"  # torchrun sets it to the number of ranks there
ROUNDS = 3  # each with both numbers, since a busy machine changes from moment to moment
WINDOW = 0.012  # seconds of steps in a round, or one step
LONGEST = 1.0  # seconds that a step with one thread may take; with a longer one, all are used
GAIN = 1.2  # all threads must be so many times as fast


def with_threads(experiment: Experiment) -> Experiment:
    """Choose the number of threads where it is `auto`; return the experiment with that number.

    It is set for the whole process. Several ranks do not measure, for their clocks do not agree:
    each has its part of the machine's threads.
    """
    if experiment.config.runtime.threads != "auto" or experiment.runtime.device.type != "cpu":
        return experiment
    threads, ranks = torch.get_num_threads(), experiment.runtime.ranks
    chosen = any(os.environ.get(name) for name in CHOSEN)
    if ranks.several:
        if not chosen:
            threads //= int(os.environ.get(ON_THIS_MACHINE) or ranks.world_size)
        threads = max(1, -int(ranks.highest([-threads])[0]))  # the fewest of any rank
        torch.set_num_threads(threads)
    elif threads > 1 and not chosen:
        with suppress(Exception):  # some batches can be used once only
            threads = _faster(experiment, threads)
        torch.set_num_threads(threads)
    runtime = experiment.config.runtime.model_copy(update={"threads": threads})
    return replace(experiment, config=experiment.config.model_copy(update={"runtime": runtime}))


def _faster(experiment: Experiment, every: int) -> int:
    """Return 1 or `every`: with which number of threads a throwaway model's steps are faster."""
    built = build(experiment, experiment.config.seed)
    step = step_of(experiment, built, experiment.runtime.scaler())
    group, lr = first_batches(experiment), experiment.config.find.start
    if every * _seconds_of_a_step(step, group, lr, every) > LONGEST:
        return every
    _seconds_of_a_step(step, group, lr, 1)
    seconds, steps = {1: 0.0, every: 0.0}, {1: 0, every: 0}
    for _ in range(ROUNDS):
        for threads in (every, 1):
            spent = 0.0
            while spent < WINDOW:
                spent += _seconds_of_a_step(step, group, lr, threads)
                steps[threads] += 1
            seconds[threads] += spent
    one, all_threads = (seconds[threads] / steps[threads] for threads in (1, every))
    return every if all_threads * GAIN < one else 1


def _seconds_of_a_step(step: Step, group: list[Any], lr: float, threads: int) -> float:
    torch.set_num_threads(threads)
    group = copied(group)
    started = perf_counter()
    step(group, lr)
    return perf_counter() - started
