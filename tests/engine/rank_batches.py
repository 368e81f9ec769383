"""Batches of classes, and a rank's share of one."""

import torch

from lrtool.batch import Share, share_of


def batches(sizes, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(n, 5, generator=generator), torch.randint(0, 3, (n,), generator=generator))
        for n in sizes
    ]


def share(batch, ranks):
    """A rank's share of a batch (inputs, targets); plain for one rank."""
    if not ranks.several:
        return batch
    size = len(batch[1])
    rows, counts = share_of(size, ranks.rank, ranks.world_size)
    return Share(tuple(part[rows] for part in batch), size, counts)
