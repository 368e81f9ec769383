"""Several ranks in forks of the test's own process, which has torch already."""

import os
import pickle
import traceback
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from lrtool.ranks import Ranks


@pytest.fixture
def in_ranks(tmp_path):
    """Call `function(ranks)` in so many ranks; return what each has returned, or the traceback."""
    import torch._dynamo  # noqa: F401  (DDP imports it: once here, rather than in each fork)

    def run(world_size, function):
        pids = [
            _fork(Ranks(rank, world_size, rank, "gloo"), function, tmp_path)
            for rank in range(world_size)
        ]
        for pid in pids:
            os.waitpid(pid, 0)
        results = [tmp_path / f"result-{rank}" for rank in range(world_size)]
        (tmp_path / "store").unlink(missing_ok=True)
        return [pickle.loads(result.read_bytes()) for result in results]  # noqa: S301  (our own)

    return run


def _fork(ranks, function, folder):
    pid = os.fork()
    if pid:
        return pid
    try:
        torch.set_num_threads(1)
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/store",
            rank=ranks.rank,
            world_size=ranks.world_size,
            timeout=timedelta(seconds=20),
        )
        result = function(ranks)
    except BaseException:  # noqa: BLE001  (nothing may return into the test's own process)
        result = traceback.format_exc()
    (folder / f"result-{ranks.rank}").write_bytes(pickle.dumps(result))
    os._exit(0)
