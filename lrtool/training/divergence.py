"""Explains a training whose numbers are no longer finite: where, why, and what to try."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from math import isfinite, isnan
from time import perf_counter
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lrtool.batch import targets_of
from lrtool.components.schedules import warms_up
from lrtool.config.spelling import number
from lrtool.engine import weights
from lrtool.engine.lockstep import leaving_lockstep
from lrtool.engine.loop import SKIPS_IN_A_ROW
from lrtool.engine.nonfinite import Suspects, bad_inputs, finite, watched
from lrtool.errors import DivergedError, LockstepError
from lrtool.report import metrics_log
from lrtool.report.records import EpochRow
from lrtool.report.run_directory import METRICS
from lrtool.training.resume import find_checkpoint
from lrtool.training.session import advance, begin, observe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lrtool.engine.step import StepOut
    from lrtool.ranks import Ranks
    from lrtool.report.records import StepRow
    from lrtool.training.resume import Checkpoint
    from lrtool.training.session import Session

REPLAY_S = 60.0  # time limit for finding the cause


@dataclass(frozen=True, slots=True)
class Cause:
    """The first thing that was not finite.

    Attributes:
        place: the update, in words.
        symptom: what was not finite, in words.
        in_data: the batches of the update hold NaN or infinity themselves.
        ignored: the only target in them, which the loss seems to ignore; None: there are others.
    """

    place: str
    symptom: str
    in_data: bool = False
    ignored: int | None = None


def refuse_bad_weights(session: Session) -> None:
    """Refuse to evaluate or save weights that are not finite.

    Raises:
        DivergedError: a weight is not finite.
    """
    bad = weights.first_bad_weight(session.built.model, session.finite_buffers)
    bad = next(filter(None, session.ranks.gather(bad)), None)  # buffers may be a rank's own
    if bad is not None:
        raise divergence_error(session, f"{bad} is not finite")


def error_of_row(session: Session, row: StepRow) -> DivergedError:
    """Return the error to raise for an update that failed."""
    symptom = "the gradients are not finite"
    if not isfinite(row.loss):
        symptom = f"the loss is {row.loss}"
    elif row.skipped:
        symptom = f"{SKIPS_IN_A_ROW} updates in a row overflowed and were skipped"
    return divergence_error(session, symptom)


def divergence_error(session: Session, symptom: str) -> DivergedError:
    """Return the error that says where and why a training diverged, and what to try.

    Args:
        session: at its last update.
        symptom: of that update.
    """
    checkpoint = find_checkpoint(session.directory)
    kept = "no checkpoint had been saved yet"
    if checkpoint is not None:
        step = checkpoint.state["position"]["step"]
        kept = f"the checkpoint of step {step:,} has finite weights"
    position = session.position
    cause = Cause(_place(position.step, position.epoch, position.lr), symptom)
    try:
        cause = first_cause(session, checkpoint) or cause
    except (Exception, SystemExit) as error:  # such as too little memory for a second model
        if isinstance(error, LockstepError):  # the other ranks wait for what this one cannot do
            raise
    return DivergedError(f"{cause.place}: {cause.symptom}; {_advice(session, cause)}; {kept}")


def _advice(session: Session, cause: Cause) -> str:
    config = session.experiment.config
    if cause.in_data:
        return f"look at what data.source {config.data.source} yields"
    if cause.ignored is not None:
        return (
            f"if the loss ignores {cause.ignored}, this is the mean of nothing: let it return 0 "
            "where no target counts, or name a loss of torch with loss.args.ignore_index"
        )
    remedies = [f"a lower rate (--lr {number(session.rate.value / 10, 2)})"]
    if session.rate.origin in {"flag", "config", "optimizer"}:
        remedies.append("--lr auto, which finds one")
    if config.train.gradient_clip_norm is None:
        remedies.append("train.gradient_clip_norm: 1")
    if not warms_up(config.train.schedule):
        remedies.append("train.schedule.warmup: 0.05")
    if config.runtime.precision == "fp16":
        remedies.append("runtime.precision: bf16")
    return f"try {', or '.join(remedies)}"


def first_cause(session: Session, checkpoint: Checkpoint | None) -> Cause | None:
    """Find the first update that went wrong, by repeating those since the last checkpoint.

    Args:
        session: failed at its last update.
        checkpoint: its newest; None to repeat the training from its start.

    Returns:
        None if nothing went wrong this time, or the time limit has passed. Several ranks do not
        look on GPUs, where a second model may be too much for one of them alone.
    """
    last_step, ranks = session.position.step, session.ranks
    if ranks.several and session.experiment.runtime.device.type != "cpu":
        return None
    with leaving_lockstep() if ranks.several else nullcontext():
        replay = begin(session.experiment, session.rate, session.directory, checkpoint)
    model, position = weights.plain(replay.built.model), replay.position
    ends = {row.step: row for row in metrics_log.read(session.directory / METRICS, EpochRow)}
    deadline = perf_counter() + REPLAY_S
    causes: list[Cause] = []

    def watched_step(group: Sequence[Any], lr: float) -> StepOut | None:
        with watched(model) as suspects:
            out = replay.step(group, lr)
        if out is None:
            return None
        skipped = out.skipped is not None and bool(out.skipped)
        if not finite(out.loss) or (suspects.gradient is not None and not skipped):
            place = _place(position.step + 1, position.epoch, lr)
            causes.append(_cause(place, float(out.loss), suspects, group))
        return out

    while position.step < last_step:
        for _ in advance(replay, watched_step, pause_every=1):
            found, late = _of_all_ranks(causes, ranks, late=perf_counter() > deadline)
            if found or late or position.step >= last_step:
                return found
        if position.evaluated != position.step and position.step in ends:
            observe(replay, ends[position.step])  # for the plateau schedule
        position.next_epoch()
    return None


def _of_all_ranks(causes: list[Cause], ranks: Ranks, *, late: bool) -> tuple[Cause | None, bool]:
    """Return the cause to tell, of those on any rank; and whether one has passed the time limit."""
    everyone = ranks.gather((causes[:1], late))
    found = [cause for own, _ in everyone for cause in own]
    found.sort(key=lambda cause: not cause.in_data)  # what other ranks see follows from it
    return (found[0] if found else None), any(each for _, each in everyone)


def _place(step: int, epoch: int, lr: float) -> str:
    return f"step {step:,} of epoch {epoch + 1}, rate {number(lr, 2)}"


def _cause(place: str, loss: float, suspects: Suspects, group: Sequence[Any]) -> Cause:
    if bad_inputs(group):
        return Cause(place, "the data of this step hold NaN or infinity", in_data=True)
    target = _only_target(group)
    if isnan(loss) and suspects.output is None and target is not None:
        symptom = f"the loss is nan, all outputs are finite, and every target is {target}"
        return Cause(place, symptom, ignored=target)
    parts = [f"the loss is {loss}" if not isfinite(loss) else f"the loss is {number(loss, 4)}"]
    if suspects.output is not None:
        parts.append(f"the first output that is not finite is that of {suspects.output}")
    if suspects.gradient is not None:
        parts.append(f"the first gradient that is not finite is that of {suspects.gradient}")
    return Cause(place, "; ".join(parts))


def _only_target(group: Sequence[Any]) -> int | None:
    """Return the class index that is every target of some batch; None if none has but one."""
    for batch in group:
        targets = targets_of(batch)
        if isinstance(targets, Tensor) and targets.numel() and not targets.is_floating_point():
            low, high = targets.aminmax()
            if low == high:
                return int(low)
    return None
