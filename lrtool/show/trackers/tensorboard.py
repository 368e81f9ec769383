"""Rows of a training as scalars for TensorBoard, an extra: `pip install 'lrtool[tensorboard]'`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrtool.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from torch.utils.tensorboard import SummaryWriter

    from lrtool.report.records import EpochRow, StepRow


def open_writer(directory: Path, step: int = 0) -> SummaryWriter:
    """Open a writer of event files; close it to have everything on disk.

    Args:
        directory: of the event files; it is made.
        step: updates made before: what an interrupted run wrote of later ones is hidden.

    Raises:
        UserError: TensorBoard is not installed.
        OSError: the directory cannot be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  (an extra, and torch)
    except ImportError as error:
        raise UserError(
            "--tensorboard: TensorBoard is not installed: pip install 'lrtool[tensorboard]'"
        ) from error
    return SummaryWriter(str(directory), purge_step=step + 1 if step else None)


def write_step(writer: SummaryWriter, row: StepRow) -> None:
    """Write an update's loss, rate and norm of the gradients."""
    writer.add_scalar("loss/step", row.loss, row.step)
    writer.add_scalar("learning_rate", row.lr, row.step)
    if row.grad_norm is not None:
        writer.add_scalar("gradient_norm", row.grad_norm, row.step)


def write_epoch(writer: SummaryWriter, row: EpochRow) -> None:
    """Write an epoch's losses and metrics at its last update.

    Metrics of the training part, where there is no other, are called so: `training_accuracy`.
    """
    writer.add_scalar("loss/training", row.train_loss, row.step)
    if row.validation_loss is not None:
        writer.add_scalar("loss/validation", row.validation_loss, row.step)
    part = "training_" if row.validation_loss is None else ""
    for name, value in row.metrics.items():
        writer.add_scalar(f"metric/{part}{name}", value, row.step)
    writer.flush()
