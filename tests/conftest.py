"""What all tests share.

One thread for each process: several tests run at once, and threads that wait spin. A property is
tested on the same examples each time; `pytest --hypothesis-profile=explore` looks for new ones.
"""

import gc
import itertools
import os
import pickle
import traceback
import warnings
from datetime import timedelta

import pytest
from hypothesis import settings

os.environ["OMP_NUM_THREADS"] = "1"
settings.register_profile("explore", deadline=None)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")

gc.disable()  # until all tests are collected: what is imported by then stays


def pytest_collection_finish():
    """Let no collection look at it again, nor copy it in a fork."""
    gc.freeze()
    gc.enable()


@pytest.fixture
def in_ranks(tmp_path):
    """Call `function(ranks)` in so many ranks; return what each has returned.

    They are forks of the test's own process, which has torch already. An exception in one of them
    fails the test.
    """
    numbers = itertools.count()

    def run(world_size, function):
        place = tmp_path / f".ranks-{next(numbers)}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forks of threads, since 3.12
            forks = [_fork(rank, world_size, function, place) for rank in range(world_size)]
        for fork in forks:
            os.waitpid(fork, 0)
        files = [place.with_suffix(f".{rank}") for rank in range(world_size)]
        ended = [pickle.loads(file.read_bytes()) for file in files]  # noqa: S301  (our own)
        if failed := [error for _, error in ended if error is not None]:
            pytest.fail("\n".join(failed), pytrace=False)
        return [result for result, _ in ended]

    return run


def _fork(rank, world_size, function, place):
    if fork := os.fork():
        return fork
    try:
        import torch
        import torch.distributed as dist

        from lrtool.ranks import Ranks

        torch.set_num_threads(1)
        store, limit = dist.FileStore(str(place), world_size), timedelta(seconds=20)
        dist.init_process_group(
            "gloo", store=store, rank=rank, world_size=world_size, timeout=limit
        )
        ended = function(Ranks(rank, world_size, rank, "gloo")), None
    except BaseException:  # noqa: BLE001  (nothing may return into the test's own process)
        ended = None, traceback.format_exc()
    place.with_suffix(f".{rank}").write_bytes(pickle.dumps(ended))
    os._exit(0)
