"""Rows of a training as scalars for TensorBoard, an extra: `pip install 'lrtool[tensorboard]'`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from lrtool.errors import UserError
from lrtool.report.records import EpochRow

if TYPE_CHECKING:
    from pathlib import Path

    from lrtool.report.records import StepRow

MISSING = "--tensorboard: TensorBoard is not installed: pip install 'lrtool[tensorboard]'"


def require_tensorboard(*, wanted: bool) -> None:
    """Refuse to go on without TensorBoard, if it is wanted; it is not imported.

    Raises:
        UserError: it is not installed.
    """
    if wanted and find_spec("tensorboard") is None:
        raise UserError(MISSING)


class EventFiles:
    """Writes each update's loss, rate and gradient norm, and each epoch's losses and metrics.

    Metrics of the training set, where there is no other, are called so: `training_accuracy`.
    Close it to have everything on disk.

    Args:
        directory: of the event files; it is made.
        step: updates made before: what an interrupted run wrote of later ones is hidden.

    Raises:
        UserError: TensorBoard is not installed.
        OSError: the directory cannot be written.
    """

    def __init__(self, directory: Path, step: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  (an extra, and torch)
        except ImportError as error:
            raise UserError(MISSING) from error
        self._writer = SummaryWriter(str(directory), purge_step=step + 1 if step else None)

    def update(self, event: list[StepRow] | EpochRow | int) -> None:
        """Write what a training has yielded: rows of updates, or the row of an epoch."""
        if isinstance(event, list):
            for row in event:
                self._write_step(row)
        elif isinstance(event, EpochRow):
            self._write_epoch(event)

    def close(self) -> None:
        """Bring everything to the disk."""
        self._writer.close()

    def _write_step(self, row: StepRow) -> None:
        self._writer.add_scalar("loss/step", row.loss, row.step)
        self._writer.add_scalar("learning_rate", row.lr, row.step)
        if row.grad_norm is not None:
            self._writer.add_scalar("gradient_norm", row.grad_norm, row.step)

    def _write_epoch(self, row: EpochRow) -> None:
        self._writer.add_scalar("loss/training", row.train_loss, row.step)
        if row.validation_loss is not None:
            self._writer.add_scalar("loss/validation", row.validation_loss, row.step)
        part = "training_" if row.validation_loss is None else ""
        for name, value in row.metrics.items():
            self._writer.add_scalar(f"metric/{part}{name}", value, row.step)
        self._writer.flush()
