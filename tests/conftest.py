"""What all tests share.

One thread for each process: several tests run at once, and threads that wait spin. A property is
tested on the same examples each time; `pytest --hypothesis-profile=explore` looks for new ones.
"""

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


@pytest.fixture
def lockstep(tmp_path):
    """Run a function as so many ranks, forks of this process; return each one's result.

    It is called with the `Ranks`, and its result is pickled.
    """
    numbers = itertools.count()

    def run(world_size, function):
        place = tmp_path / f".ranks-{next(numbers)}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forks of threads, since 3.12
            forks = [
                os.fork() or _become(rank, world_size, place, function)
                for rank in range(world_size)
            ]
        codes = [os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]) for fork in forks]
        assert codes == [0] * world_size, codes
        written = [place.with_suffix(f".{rank}").read_bytes() for rank in range(world_size)]
        ends = [pickle.loads(content) for content in written]  # noqa: S301  (of our own fork)
        assert not any(failure for failure, _ in ends), [failure for failure, _ in ends]
        return [result for _, result in ends]

    return run


def _become(rank, world_size, place, function):
    """Be a rank; never return."""
    code = 1
    try:
        import torch.distributed as dist

        from lrtool.ranks import Ranks

        store, limit = dist.FileStore(str(place), world_size), timedelta(seconds=30)
        dist.init_process_group(
            "gloo", store=store, rank=rank, world_size=world_size, timeout=limit
        )
        failure = result = None
        try:
            result = function(Ranks(rank, world_size, rank, "gloo"))
        except BaseException:  # noqa: BLE001  (the parent shows it)
            failure = traceback.format_exc()
        place.with_suffix(f".{rank}").write_bytes(pickle.dumps((failure, result)))
        code = 0
    finally:
        os._exit(code)
