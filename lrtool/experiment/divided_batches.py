"""How several ranks divide the batches of a training: what they ask of the data for that."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import islice
from math import isclose, isfinite
from typing import TYPE_CHECKING, Any

import torch

from lrtool.batch import samples_in, targets_of
from lrtool.components import import_path
from lrtool.config.document import located
from lrtool.data import batches
from lrtool.data.part import OwnLoader
from lrtool.data.rank_shares import takes_index_lists
from lrtool.data.rows import layout_of, rows_of
from lrtool.engine.copies import copied
from lrtool.engine.denominator import loss_of_all, reduction_of
from lrtool.engine.evaluation import evaluating
from lrtool.engine.sharded_tensors import own_part
from lrtool.engine.step import batch_loss
from lrtool.errors import ConfigError, DataError, LrtoolWarning, Problem
from lrtool.experiment.experiment import build
from lrtool.experiment.same_data import digest_of

if TYPE_CHECKING:
    from torch import Tensor

    from lrtool.data.part import Part
    from lrtool.data.rows import Layout
    from lrtool.experiment.experiment import Built, Experiment

MOST = 8  # batches that are looked at for one with a loss
NOISE = 0.02  # deviation of what is added to weights, for a last layer of zeros ignores the inputs
SAME, COARSELY_SAME = 1e-4, 2e-2  # relative differences of losses that rounding may make
NOT_OF_PARTS = "the loss of a batch is not that of its parts"


def with_divided_batches(experiment: Experiment) -> Experiment:
    """Return the experiment with what several ranks need to divide each batch.

    A loader that makes its batches in a way of its own makes each of them on every rank. They are
    divided by rows where the loss of a batch is that of its parts.

    Raises:
        ConfigError: a batch has fewer samples than there are ranks.

    Warns:
        LrtoolWarning: batches cannot be divided, so each rank computes all of them; or they are,
            and the loss is another one for that.
    """
    ranks, part = experiment.runtime.ranks, experiment.data.train
    if not ranks.several:
        return experiment
    with located(experiment.document):
        _refuse_small_batches(experiment)
    made_whole = isinstance(part, OwnLoader) and not takes_index_lists(part.loader)
    layout, targets, why = None, "", ""
    try:
        layout, targets = _tried_layout(experiment, part)
    except DataError as error:
        why = str(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (the user's code may raise anything)
        why = import_path.words(error).rstrip(".")
    found = ranks.gather((layout, targets, why))
    why = next((each[-1] for each in found if each[-1]), "")
    if not (made_whole and isinstance(part, OwnLoader)):
        if why == NOT_OF_PARTS:
            warnings.warn(
                f"{NOT_OF_PARTS}, as where it compares samples with one another: each of the "
                f"{ranks.world_size} ranks computes that of its own samples, so losses and weights "
                "are not those of one process",
                LrtoolWarning,
                stacklevel=2,
            )
        return experiment
    if not why and all(each == found[0] for each in found):
        train = replace(part, layout=layout)
        return replace(experiment, data=replace(experiment.data, train=train))
    warnings.warn(
        f"each of the {ranks.world_size} ranks computes all of every batch, no faster than one "
        f"process: the batches that {experiment.config.data.source} makes cannot be divided "
        f"({why or 'they differ between ranks'}). Return a dataset, or a DataLoader that batches "
        "a map-style one: the ranks divide its samples",
        LrtoolWarning,
        stacklevel=2,
    )
    return experiment


def _refuse_small_batches(experiment: Experiment) -> None:
    ranks, data = experiment.runtime.ranks.world_size, experiment.data
    size, part = data.batch_size, data.train
    if isinstance(part, OwnLoader) and part.loader.batch_size is None:  # sizes may vary
        lists = part.loader.batch_sampler if takes_index_lists(part.loader) else None
        size = max([size, *(len(list(indices)) for indices in islice(lists or (), MOST))])
    if size >= ranks:
        return
    samples = "1 sample" if size == 1 else f"{size} samples"
    words = f"a batch of {samples} cannot be divided among {ranks} ranks"
    if isinstance(part, OwnLoader):
        problem = f"{words}; give the DataLoader a batch_size of {ranks} or more"
        raise ConfigError(Problem(("data", "source"), f"{problem}, or start fewer ranks"))
    problem = f"{words}; give {ranks} or more, or start fewer ranks"
    raise ConfigError(Problem(("data", "batch_size"), problem))


def _tried_layout(experiment: Experiment, part: Part) -> tuple[Layout, str]:
    """Return how batches are divided, tried on one with a throwaway model, and a digest of it.

    The digest is that of its targets, for inputs may be augmented without a seed.

    Raises:
        DataError: they cannot be divided.
    """
    built = build(experiment, experiment.config.seed)
    _add_noise(built)
    reduction = reduction_of(built.loss_fn, built.model)
    stream = batches.epoch(
        part,
        batch_size=experiment.data.batch_size,
        seed=experiment.config.seed,
        epoch=0,
        device=experiment.runtime.device,
    )
    for batch in islice(stream, MOST):
        samples = samples_in(batch)
        if samples < 2:
            continue
        layout = layout_of(batch, samples)
        cut = max(samples // 3, 1)  # parts of unequal size, so that their weights matter
        parts = [rows_of(batch, layout, samples, rows) for rows in (slice(cut), slice(cut, None))]
        whole, *losses = (_loss(experiment, built, each) for each in (batch, *parts))
        if whole is None or not isfinite(whole):
            continue
        together = loss_of_all(losses, [reduction.denominator(each) for each in parts])
        if not isclose(together, whole, rel_tol=_tolerance(built), abs_tol=SAME**2):
            raise DataError(NOT_OF_PARTS)
        return layout, digest_of(targets_of(batch))
    raise DataError("none of the first ones has several samples and a loss")


def _add_noise(built: Built) -> None:
    with torch.no_grad():
        for parameter in built.model.parameters():
            if parameter.is_floating_point():
                own = own_part(parameter)  # of a sharded model
                own.add_(torch.randn_like(own), alpha=NOISE)


def _tolerance(built: Built) -> float:
    weights = [p for p in built.model.parameters() if p.is_floating_point()]
    exact = all(p.dtype in {torch.float32, torch.float64} for p in weights)
    return SAME if exact else COARSELY_SAME


def _loss(experiment: Experiment, built: Built, batch: Any) -> Tensor | None:
    """Return the loss of a batch in evaluation mode, as exactly as the device can compute it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with (
            torch.backends.cudnn.flags(allow_tf32=False),
            evaluating(built.model, built.loss_fn),
            experiment.runtime.no_grad(),
        ):
            loss = batch_loss(built.model, built.loss_fn, copied(batch))
    finally:
        torch.set_float32_matmul_precision(before)
    return None if loss is None else loss.detach()
