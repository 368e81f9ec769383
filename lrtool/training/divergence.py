"""What to say of a training whose numbers are no longer finite: where, why, and what to try."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from time import perf_counter
from typing import TYPE_CHECKING, Any

from lrtool.config.spelling import number
from lrtool.engine import weights
from lrtool.engine.diagnosis import Suspects, bad_inputs, finite, watched
from lrtool.engine.loop import SKIPS_IN_A_ROW
from lrtool.errors import DivergedError
from lrtool.report import metrics_log
from lrtool.report.records import EpochRow
from lrtool.report.run_directory import METRICS
from lrtool.training.resume import find_checkpoint
from lrtool.training.session import advance, begin, observe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lrtool.engine.step import StepOut
    from lrtool.report.records import StepRow
    from lrtool.training.resume import Checkpoint
    from lrtool.training.session import Session

REPLAY_S = 60.0  # looking for the cause may take so long


@dataclass(frozen=True, slots=True)
class Cause:
    """What was the first to be no number.

    Attributes:
        place: the update, in words.
        words: what was seen there.
        in_data: its batches hold NaN or infinity themselves.
    """

    place: str
    words: str
    in_data: bool = False


def refuse_bad_weights(session: Session) -> None:
    """Never let weights that are not finite be evaluated, or take the place of good ones.

    Raises:
        DivergedError: one is not.
    """
    bad = weights.first_bad_weight(session.built.model, session.finite_buffers)
    if bad is not None:
        raise diverged(session, f"{bad} is not finite")


def at_row(session: Session, row: StepRow) -> DivergedError:
    """Return the error to raise for an update that failed."""
    if not isfinite(row.loss):
        return diverged(session, f"the loss is {row.loss}")
    if row.skipped:
        return diverged(session, f"{SKIPS_IN_A_ROW} updates in a row overflowed and were skipped")
    return diverged(session, "the gradients are not finite")


def diverged(session: Session, seen: str) -> DivergedError:
    """Return the error that says where and why a training went wrong, and what to try.

    Args:
        session: at its last update.
        seen: what was noticed there.
    """
    good = find_checkpoint(session.directory)
    kept = "no checkpoint had been saved yet"
    if good is not None:
        kept = f"the checkpoint of step {good.state['position']['step']:,} has finite weights"
    position = session.position
    noticed = Cause(_place(position.step, position.epoch, position.lr), seen)
    try:
        cause = first_cause(session, good) or noticed
    except (Exception, SystemExit):  # noqa: BLE001  (for want of memory, say; `noticed` is known)
        cause = noticed
    return DivergedError(f"{cause.place}: {cause.words}; {_advice(session, cause)}; {kept}")


def _advice(session: Session, cause: Cause) -> str:
    config = session.experiment.config
    if cause.in_data:
        return f"look at what data.source {config.data.source} yields"
    tries = [f"a lower rate (--lr {number(session.rate.value / 10, 2)})"]
    if session.rate.origin in {"flag", "config", "optimizer"}:
        tries.append("--lr auto, which finds one")
    if config.train.gradient_clip_norm is None:
        tries.append("train.gradient_clip_norm: 1")
    if not config.train.schedule.warmup:
        tries.append("train.schedule.warmup: 0.05")
    if config.runtime.precision == "fp16":
        tries.append("runtime.precision: bf16")
    return f"try {', or '.join(tries)}"


def first_cause(session: Session, checkpoint: Checkpoint | None) -> Cause | None:
    """Find which update went wrong first and why, by making the last ones once more.

    Args:
        session: that has failed at its last update.
        checkpoint: its newest, or None to begin anew.

    Returns:
        None where nothing went wrong this time, or too much time has passed.
    """
    until = session.position.step
    replay = begin(session.experiment, session.rate, session.directory, checkpoint)
    model, position = weights.plain(replay.built.model), replay.position
    ends = {row.step: row for row in metrics_log.read(session.directory / METRICS, EpochRow)}
    deadline = perf_counter() + REPLAY_S
    causes: list[Cause] = []

    def examined(group: Sequence[Any], lr: float) -> StepOut:
        with watched(model) as suspects:
            out = replay.step(group, lr)
        skipped = out.skipped is not None and bool(out.skipped)
        if not finite(out.loss) or (suspects.gradient is not None and not skipped):
            place = _place(position.step + 1, position.epoch, lr)
            causes.append(_cause(place, float(out.loss), suspects, group))
        return out

    while position.step < until:
        for _ in advance(replay, examined, pause_every=1):
            if causes:
                return causes[0]
            if position.step >= until or perf_counter() > deadline:
                return None
        if position.evaluated != position.step and position.step in ends:
            observe(replay, ends[position.step])  # as the plateau schedule did
        position.next_epoch()
    return None


def _place(step: int, epoch: int, lr: float) -> str:
    return f"step {step:,} of epoch {epoch + 1}, rate {number(lr, 2)}"


def _cause(place: str, loss: float, suspects: Suspects, group: Sequence[Any]) -> Cause:
    if bad_inputs(group):
        return Cause(place, "the data of this step hold NaN or infinity", in_data=True)
    parts = [f"the loss is {loss}" if not isfinite(loss) else f"the loss is {number(loss, 4)}"]
    if suspects.output is not None:
        parts.append(f"the first output that is not finite is that of {suspects.output}")
    if suspects.gradient is not None:
        parts.append(f"the first gradient that is not finite is that of {suspects.gradient}")
    return Cause(place, "; ".join(parts))
