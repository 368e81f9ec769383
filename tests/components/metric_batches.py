"""Outputs and targets of batches, and the metrics over them."""

import torch

from lrtool.components.metrics import build_metrics

CPU = torch.device("cpu")


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def classes(count, *shape, seed=1):
    return torch.randint(count, shape, generator=torch.Generator().manual_seed(seed))


def build(names, loss, outputs, targets, directories=(), **loss_args):
    return build_metrics(
        names,
        loss=loss,
        outputs=outputs,
        targets=targets,
        device=CPU,
        directories=directories,
        loss_args=loss_args,
    )
