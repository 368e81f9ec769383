"""What to say of a training whose numbers are no longer finite: where, why, and what to try."""

from __future__ import annotations

from math import isfinite
from time import perf_counter
from typing import TYPE_CHECKING, Any

from lrtool.config.spelling import number
from lrtool.engine import weights
from lrtool.engine.diagnosis import Suspects, bad_inputs, finite, watched
from lrtool.engine.loop import SKIPS_IN_A_ROW
from lrtool.errors import DivergedError
from lrtool.report import metrics_log as history
from lrtool.report.records import EpochRow
from lrtool.report.run_directory import METRICS
from lrtool.training import session as training
from lrtool.training.resume import find_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lrtool.engine.loop import Position
    from lrtool.engine.step import StepOut
    from lrtool.report.records import StepRow
    from lrtool.training.resume import Resumed
    from lrtool.training.session import Run

REPLAY_S = 60.0  # looking for the cause may take so long
BAD_DATA = "the data of this step hold NaN or infinity"


def refuse_bad_weights(run: Run) -> None:
    """Never let weights that are not finite be evaluated, or take the place of good ones.

    Raises:
        DivergedError: one is not.
    """
    bad = weights.first_bad_weight(run.built.model, run.finite_buffers)
    if bad is not None:
        raise diverged(run, f"{bad} is not finite")


def at_row(run: Run, row: StepRow) -> DivergedError:
    """Return the error to raise for an update that failed."""
    if not isfinite(row.loss):
        return diverged(run, f"the loss is {row.loss}")
    if row.skipped:
        return diverged(run, f"{SKIPS_IN_A_ROW} updates in a row overflowed and were skipped")
    return diverged(run, "the gradients are not finite")


def diverged(run: Run, what: str) -> DivergedError:
    """Return the error that says where and why a training went wrong, and what to try.

    Args:
        run: at its last update.
        what: was noticed there.
    """
    config, good = run.task.config, find_checkpoint(run.directory)
    kept = "no checkpoint had been saved yet"
    if good is not None:
        kept = f"the checkpoint of step {good.state['position']['step']:,} has finite weights"
    said = _explained(run, what, good)
    tries = [f"a lower rate (--lr {number(run.rate.value / 10, 2)})"]
    if run.rate.origin in {"flag", "config", "optimizer"}:
        tries.append("--lr auto, which finds one")
    if config.train.gradient_clip_norm is None:
        tries.append("train.gradient_clip_norm: 1")
    if not config.train.schedule.warmup:
        tries.append("train.schedule.warmup: 0.05")
    if config.runtime.precision == "fp16":
        tries.append("runtime.precision: bf16")
    advice = f"try {', or '.join(tries)}"
    if said.endswith(BAD_DATA):
        advice = f"look at what data.source {config.data.source} yields"
    return DivergedError(f"{said}; {advice}; {kept}")


def _explained(run: Run, what: str, resumed: Resumed | None) -> str:
    """Explain, or say just what was noticed where explaining fails, for want of memory say."""
    try:
        return explain(run, what, resumed)
    except (Exception, SystemExit):  # noqa: BLE001  (the divergence is what there is to tell)
        return f"{_place(run.position)}: {what}"


def explain(run: Run, what: str, resumed: Resumed | None) -> str:
    """Say which update went wrong first and why, by making the last ones once more.

    Args:
        run: that has failed at its last update.
        what: was noticed there.
        resumed: its newest checkpoint, or None to begin anew.
    """
    until, found = run.position, f"{_place(run.position)}: {what}"
    replay = training.begin(run.task, run.rate, run.directory, resumed)
    model, position = weights.plain(replay.built.model), replay.position
    ends = {row.step: row for row in history.read(run.directory / METRICS, EpochRow)}
    deadline = perf_counter() + REPLAY_S
    causes: list[str] = []

    def examined(group: Sequence[Any], lr: float) -> StepOut:
        with watched(model) as suspects:
            out = replay.step(group, lr)
        skipped = out.skipped is not None and bool(out.skipped)
        if not finite(out.loss) or (suspects.gradient is not None and not skipped):
            causes.append(_cause(float(out.loss), suspects, group))
        return out

    while position.step < until.step:
        for _ in training.advance(replay, examined, pause_every=1):
            if causes:
                return f"{_place(position)}: {causes[0]}"
            if position.step >= until.step or perf_counter() > deadline:
                return found
        if position.evaluated != position.step and position.step in ends:
            training.observe(replay, ends[position.step])  # as the plateau schedule did
        position.next_epoch()
    return found


def _place(position: Position) -> str:
    return f"step {position.step:,} of epoch {position.epoch + 1}, rate {number(position.lr, 2)}"


def _cause(loss: float, suspects: Suspects, group: Sequence[Any]) -> str:
    """Say what was the first to be no number."""
    if bad_inputs(group):
        return BAD_DATA
    parts = [f"the loss is {loss}" if not isfinite(loss) else f"the loss is {number(loss, 4)}"]
    if suspects.output is not None:
        parts.append(f"the first output that is not finite is that of {suspects.output}")
    if suspects.gradient is not None:
        parts.append(f"the first gradient that is not finite is that of {suspects.gradient}")
    return "; ".join(parts)
