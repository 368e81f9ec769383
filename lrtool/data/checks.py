"""What is wrong with the samples of a part, whatever their source.

The preflight calls these for every source, once the loss is known. A source itself raises what it
can say better, such as with the line of a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MOST_CLASSES = 1000  # labels above this, and above the number of targets, are not classes


def class_problem(targets: Tensor, *, ignored: int | None) -> str | None:
    """Return why integer targets are no classes that can be learned; None if they are.

    Args:
        targets: class indices of the training set, one or more for each sample: (N, …).
        ignored: the label that the loss leaves out; None: it leaves none out.
    """
    counted = targets if ignored is None else targets[targets != ignored]
    if not counted.numel():
        return f"every target is {ignored}, which the loss ignores: there is nothing to learn"
    low, high = counted.aminmax()
    if low < 0:
        return (
            f"{int((counted < 0).sum()):,} of {targets.numel():,} labels are below 0, down to "
            f"{int(low)}, but classes count from 0; loss.args.ignore_index names a label that the "
            "loss leaves out"
        )
    if low == high:
        return f"every target is {int(low)}: there is nothing to learn from one class"
    return None
