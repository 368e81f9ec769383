"""The report of a training: rate, epochs, best epoch, checkpoint, and a thinned line of steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self, Unpack

from pydantic import ConfigDict, Field, model_validator

from lrtool.report.parts import Facts, Part, Rate, RunReport, Status, Suggestion, null

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lrtool.report import records

MOST_STEPS = 2_000  # what a plot can show

RateOrZero = Annotated[float, Field(ge=0)]  # schedules may begin or end at zero
Count = Annotated[int, Field(ge=0)]


class LearningRate(Part):
    """The rate that the schedule starts from, and who chose it."""

    value: Rate
    origin: Literal["flag", "config", "find", "run", "optimizer"] = Field(
        description="find: of this very run; run: of the run that --lr-from named"
    )
    run: str | None = Field(description="directory of the find or the run that it came from")


class Epoch(Part):
    """One epoch, or the part of it at whose end a training stopped that was made longer later.

    Each metric is a further key under its own name. null: NaN or infinite.

    Where there is no validation part, `validation_loss` is null, and metrics are those of the
    training part.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float | None]

    epoch: int = Field(ge=1)
    step: Count = Field(description="updates made since the training began")
    lr: RateOrZero = Field(description="of the last update")
    train_loss: float | None
    validation_loss: float | None

    @property
    def metrics(self) -> dict[str, float | None]:
        """Each metric by its name."""
        return self.__pydantic_extra__


class Best(Part):
    """The epoch whose weights are the best ones, and the value that says so."""

    epoch: int = Field(ge=1)
    step: Count
    metric: str = Field(description="validation_loss, train_loss, or a metric")
    value: float


class Steps(Part):
    """Updates, evenly spaced where there were too many, always with the first and the last."""

    step: tuple[Count, ...]
    epoch: tuple[Count, ...]
    lr: tuple[RateOrZero, ...]
    loss: tuple[float | None, ...] = Field(description="before the update; null: NaN or infinite")

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if not len(self.step) == len(self.epoch) == len(self.lr) == len(self.loss):
            raise ValueError("steps have one epoch, one lr and one loss for each step")
        return self


class TrainReport(RunReport):
    """Everything a `train` has to say."""

    command: Literal["train"]
    learning_rate: LearningRate | None = Field(description="null: the run failed before it had one")
    epochs: tuple[Epoch, ...]
    best: Best | None = Field(description="null: no epoch has a finite value")
    checkpoint: str | None = Field(description="relative to the run directory")
    steps: Steps


def from_training(
    steps: Iterable[records.StepRow],
    epochs: Iterable[records.EpochRow],
    *,
    learning_rate: LearningRate | None,
    best: Best | None,
    checkpoint: str | None,
    suggestion: Suggestion | None = None,
    status: Status,
    reason: str | None = None,
    **facts: Unpack[Facts],
) -> TrainReport:
    """Return the report of a `train`.

    Args:
        steps: every update, in order; they are read once and thinned as they come.
        epochs: every epoch, also one that was interrupted.
        learning_rate: the rate and who chose it; None if the run ended before that.
        best: the best epoch.
        checkpoint: the newest good checkpoint, relative to the run directory: "checkpoints/last".
        suggestion: of the find that chose the rate, if one did.
        status: how the run ended.
        reason: why, in one sentence, and what to try.
        facts: of the run.
    """
    return TrainReport(
        command="train",
        status=status,
        reason=reason,
        suggestion=suggestion,
        suggestions={},
        sweeps=(),
        curve=None,
        learning_rate=learning_rate,
        epochs=tuple(_epoch(row) for row in epochs),
        best=best,
        checkpoint=checkpoint,
        steps=thin(steps),
        **facts,
    )


def _epoch(row: records.EpochRow) -> Epoch:
    return Epoch(
        epoch=row.epoch,
        step=row.step,
        lr=row.lr,
        train_loss=null(row.train_loss),
        validation_loss=None if row.validation_loss is None else null(row.validation_loss),
        **{name: null(value) for name, value in row.metrics.items()},
    )


def thin(rows: Iterable[records.StepRow], most: int = MOST_STEPS) -> Steps:
    """Return at most `most` of the rows, evenly spaced, always with the first and the last.

    The rows are read once, and never more than `most` are held: a generator may yield millions.

    Args:
        rows: in the order of their steps.
        most: at least 3.
    """
    kept: list[records.StepRow] = []
    stride, last = 1, None
    for index, row in enumerate(rows):
        last = row
        if index % stride == 0 and len(kept) == most:
            del kept[1::2]
            stride *= 2
        if index % stride == 0:
            kept.append(row)
    if last is not None and last is not kept[-1]:
        if len(kept) == most:
            del kept[1::2]
        kept.append(last)
    return Steps(
        step=tuple(row.step for row in kept),
        epoch=tuple(row.epoch for row in kept),
        lr=tuple(row.lr for row in kept),
        loss=tuple(null(row.loss) for row in kept),
    )
