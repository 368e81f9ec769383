"""The first update of several ranks is that of one, where parts of the model have no gradient."""

import pytest
import torch
import torch.distributed.fsdp  # once here, rather than in each fork
from torch import nn
from torch.nn import functional as F

from lrtool.batch import Share, share_of
from lrtool.engine.device import Runtime
from lrtool.engine.first_update import first_update
from lrtool.engine.shard import shard
from lrtool.engine.step import make_step
from lrtool.ranks import ALONE

CPU = torch.device("cpu")


class Adapted(nn.Module):
    """A frozen matrix with one of low rank beside it, which starts at 0."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(6, 6)
        self.base.weight.requires_grad_(requires_grad=False)
        self.a = nn.Parameter(torch.randn(2, 6))
        self.b = nn.Parameter(torch.zeros(6, 2))

    def forward(self, x):
        return torch.tanh(self.base(x) + x @ self.a.T @ self.b.T)


class Words(nn.Module):
    def __init__(self, *, trained):
        super().__init__()
        self.words = nn.Embedding(50, 6).requires_grad_(trained)
        self.blocks = nn.ModuleList(Adapted() for _ in range(2))
        self.head = nn.Linear(6, 3).requires_grad_(trained)

    def forward(self, x):
        x = self.words(x).mean(1)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def looked(ranks, *, trained, sharded):
    torch.manual_seed(0)
    model = Words(trained=trained)
    runtime = Runtime(CPU, shard=sharded, ranks=ranks.on(CPU, 20.0))
    if runtime.sharded:
        shard(model, runtime)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1.0)
    generator = torch.Generator().manual_seed(1)
    # the first half has other words than the second, and so has a rank than the other
    words = torch.cat([torch.arange(0, 4), torch.arange(20, 25)])[:, None]
    batch = words, torch.randint(0, 3, (9,), generator=generator)
    if ranks.several:
        rows, counts = share_of(9, ranks.rank, ranks.world_size)
        batch = Share(tuple(part[rows] for part in batch), 9, counts)
    step = make_step(model, F.cross_entropy, optimizer, runtime)
    found = first_update(step, model, F.cross_entropy, [batch], runtime)
    return {"critical": found.critical_lr, "ratio": found.ratio_lr or 0, "steps": found.steps}


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("trained", [False, True])
def test_all_ranks_see_what_one_sees(in_ranks, trained, sharded):
    expected = looked(ALONE, trained=trained, sharded=sharded)
    assert bool(expected["ratio"]) is trained  # the words' and the head's, not an adapter's
    assert expected["critical"] > 0
    one, other = in_ranks(2, lambda ranks: looked(ranks, trained=trained, sharded=sharded))
    assert one == other
    assert one == pytest.approx(expected, rel=1e-3)
