"""Whether a model computes the same in channels_last as in contiguous memory.

Most code fails where it cannot take channels_last. What counts on the order of numbers in memory,
such as `torch.as_strided`, computes something else without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lrtool.engine.copies import copied, detached
from lrtool.engine.device import set_memory_format, to_memory_format
from lrtool.engine.evaluation import evaluating
from lrtool.engine.lightning import transferred
from lrtool.engine.own_loss import own_loss
from lrtool.engine.randomness import random_states, restore_random_states
from lrtool.engine.step import forward
from lrtool.engine.weights import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lrtool.engine.randomness import RandomStates
    from lrtool.experiment.experiment import Built, Experiment

# Relative differences that rounding makes; a GPU may convolve in TF32, of ten bits.
ROUNDING, COARSE_ROUNDING = 1e-3, 2e-2


def refuse_other_results(experiment: Experiment, built: Built, batch: Any) -> None:
    """Refuse channels_last where it changes what the model returns for a training batch.

    Args:
        experiment: whose data may be in channels_last too.
        built: in evaluation mode; its memory is contiguous afterwards.
        batch: is not changed.

    Raises:
        RuntimeError: the results differ.
    """
    model = plain(built.model)
    if to_memory_format(experiment.runtime, model) != torch.channels_last:
        return
    channels_last = _results(built, batch)
    set_memory_format(model, torch.contiguous_format)
    contiguous = _results(built, _contiguous(batch))
    if channels_last is None or contiguous is None:
        return
    if not all(map(_same, channels_last, contiguous)):
        raise RuntimeError("the model returns other numbers than with contiguous memory")


def _results(built: Built, batch: Any) -> list[Tensor] | None:
    """Return a model's outputs in evaluation mode; None if it fails there, or draws numbers.

    Noise in the shape of an image is drawn in the order of its memory, so it differs rightly.
    """
    model, before = plain(built.model), random_states()
    try:
        with evaluating(model, built.loss_fn):
            batch = copied(batch)
            own = built.loss_fn is None
            batch = transferred(model, batch)
            outputs = own_loss(model, batch) if own else forward(model, batch)[0]
        after = random_states()
    except Exception:  # noqa: BLE001  (a training batch need not fit in evaluation mode)
        return None
    finally:
        restore_random_states(before)
    drawn = any(
        not torch.equal(one, other)
        for one, other in zip(_torch_states(before), _torch_states(after), strict=True)
    )
    return None if drawn else list(_floats(detached(outputs)))


def _torch_states(states: RandomStates) -> list[Tensor]:
    return [states["torch"], *states["cuda"], *([] if states["mps"] is None else [states["mps"]])]


def _floats(value: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors among a model's outputs."""
    if isinstance(value, Tensor) and value.is_floating_point():
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _floats(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _floats(item)


def _contiguous(batch: Any) -> Any:
    """Return a batch (inputs, targets) of ours in contiguous memory; others are as they come."""
    if isinstance(batch, list | tuple):
        return [item.contiguous() if isinstance(item, Tensor) else item for item in batch]
    return batch


def _same(one: Tensor, other: Tensor) -> bool:
    """Tell whether two results differ by no more than rounding; NaN and infinity count as 0."""
    if one.shape != other.shape:
        return False
    fine = one.device.type == "cpu" and one.dtype in {torch.float32, torch.float64}
    one, other = (t.float().nan_to_num(posinf=0, neginf=0) for t in (one, other))
    return bool((one - other).norm() <= (ROUNDING if fine else COARSE_ROUNDING) * other.norm())
