"""Numbers and results in words, the same in plots, tables and terminal."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from lrtool.config.spelling import number
from lrtool.curve import constants
from lrtool.curve.full_trial import lowest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lrtool.report.records import (
        CheckpointFacts,
        ColumnFacts,
        FullTrial,
        RateFacts,
        Suggestion,
    )
    from lrtool.report.report import AnyReport, TrainReport

MOST_PARTS = 8  # of a model, that are named


def rate(lr: float) -> str:
    """Spell a learning rate with two significant digits, as one types it into YAML.

    0.00316 → "0.0032", 0.0000123 → "1.2e-5", 10.0 → "10".
    """
    return number(lr, 2)


def interval(suggestion: Suggestion) -> str | None:
    """Spell the interval, "0.0018 to 0.0056", or return None without one."""
    if suggestion.low is None or suggestion.high is None:
        return None
    return f"{rate(suggestion.low)} to {rate(suggestion.high)}"


def good(suggestion: Suggestion) -> tuple[float, float] | None:
    """Return the rates that should train almost as well as the best; None without an interval.

    The interval reaches into their range, whose width comes from other tasks.
    """
    if suggestion.low is None or suggestion.high is None:
        return None
    wider = 10 ** constants.fitted().window
    return suggestion.low / wider, suggestion.high * wider


def purpose(suggestion: Suggestion) -> str:
    """Say what the rate is meant for: "constant schedule over 2,300 steps"."""
    count = suggestion.for_steps
    steps = f" over {count:,} step{'s' * (count > 1)}" if count else ""
    return f"{suggestion.for_schedule.replace('_', ' ')} schedule{steps}"


def subject(report: AnyReport) -> str:
    """Say what was trained: "mlp, 26,122 parameters · adamw · digits, 1,437 samples · batch 64"."""
    parts: list[str | None] = []
    if report.model:
        parts.append(f"{report.model.name}, {report.model.parameters:,} parameters")
    parts.append(setting(report, "optimizer", "name"))
    source = setting(report, "data", "source")
    samples = report.data.samples.get("train") if report.data else None
    if source and samples:
        source = f"{source}, {samples:,} samples"
    parts.append(source)
    batch_size = _batch_size(report)
    parts.append(f"batch {batch_size}" if batch_size else None)
    ranks = report.environment.world_size
    parts.append(f"{ranks} ranks" if ranks > 1 else None)
    return " · ".join(part for part in parts if part)


def _batch_size(report: AnyReport) -> Any:
    """Return the samples of a batch, which a DataLoader of the user's decides itself."""
    batch_size = setting(report, "data", "batch_size")
    accumulate = setting(report, "train", "accumulate") or 1
    samples = report.data.samples_per_update if report.data else None
    if batch_size == "full" or not samples or samples % accumulate:
        return batch_size
    return samples // accumulate


def start(report: AnyReport) -> list[tuple[str, str]]:
    """Say with titles from which weights a model starts, and what of it is trained, if not all."""
    model = report.model
    if model is None:
        return []
    weights = checkpoint(model.checkpoint)
    rows = [("Weights", weights)] if weights else []
    if model.frozen:
        count = f"{model.trainable:,} of {model.parameters:,} parameters"
        part = f"{count}: {parts(model.trained)}; frozen: {parts(model.frozen)}"
        rows.append(("Part", part))
    rows += [("" if i else "Rates", rate_of_parts(each)) for i, each in enumerate(model.rates)]
    return rows


def checkpoint(facts: CheckpointFacts | None) -> str | None:
    """Say from which weights a model starts: "a.safetensors, 12 tensors; head is fresh"."""
    if facts is None:
        return None
    fresh, unused = parts(facts.fresh), parts(facts.unused)
    left = [f"fresh: {fresh}" if fresh else "", f"not used: {unused}" if unused else ""]
    tensors = f"{facts.loaded:,} tensor{'s' * (facts.loaded > 1)}"
    return "; ".join([f"{facts.path}, {tensors}", *filter(None, left)])


def parts(names: Sequence[str]) -> str | None:
    """List parts of a model: "stem, layer1, …"; None without any."""
    more = f" and {len(names) - MOST_PARTS:,} more" if len(names) > MOST_PARTS else ""
    return ", ".join(names[:MOST_PARTS]) + more or None


def rate_of_parts(facts: RateFacts) -> str:
    """Say what is trained at a rate: "0.75 × the base rate: blocks.1, norm (3,264 parameters)"."""
    count = f"{facts.parameters:,} parameter{'s' * (facts.parameters != 1)}"
    return f"{number(facts.lr_ratio, 3)} × the base rate: {parts(facts.parts)} ({count})"


def target_scale(report: AnyReport) -> str | None:
    """Say in which units losses and metrics of a regression are; None if they are the same."""
    scale = report.data.target if report.data else None
    if scale is None:
        return None
    what = scale.name or "target"
    mean, deviation = number(scale.mean, 4), number(scale.deviation, 4)
    return f"losses are of ({what} − {mean}) / {deviation}; metrics are in its units"


def column(column: ColumnFacts) -> str:
    """Say how a column was read: "age: number, 20 to 70, 1 missing"."""
    name = column.name or "''"
    if column.use == "left out":
        return f"{name}: left out, {column.reason}"
    what = "number"
    if column.words is not None:
        what = f"words × {column.words:,}"
        if column.use == "target":
            what = f"{column.words:,} classes"
    elif column.low is not None and column.high is not None:
        what += f", {number(column.low, 6)} to {number(column.high, 6)}"
    target = "target, " if column.use == "target" else ""
    missing = f", {column.missing:,} missing" if column.missing else ""
    return f"{name}: {target}{what}{missing}"


def setting(report: AnyReport, *keys: str) -> Any:
    """Return a value of the configuration; None if it has none."""
    here: Any = report.config
    for key in keys:
        here = here.get(key) if isinstance(here, dict) else None
    return here


def value(loss: float | None, digits: int = 4) -> str:
    """Spell a loss or a metric with some significant digits; None is "NaN or infinite"."""
    return "NaN or infinite" if loss is None else number(loss, digits)


def name(key: str) -> str:
    """Spell a key or a metric's name for a reader: "validation_loss" → "validation loss"."""
    return key.replace("_", " ")


def full_trial(full: FullTrial) -> str:
    """Say what a full trial showed: "0.01: validation loss lowest, 0.5, after 90 of 300 steps"."""
    tried, place = rate(full.lr), lowest(full)
    if full.interrupted or place is None:
        return f"{tried}: {'unfinished' if full.interrupted else 'diverged'}"
    found = f"validation loss lowest, {value(full.validation[place])},"
    return f"{tried}: {found} after {full.step[place]:,} of {full.steps:,} steps"


def validated(report: TrainReport) -> bool:
    """Tell whether a training had a validation set."""
    return report.data is None or report.data.samples.get("validation") != 0


def metric(key: str, *, validated: bool) -> str:
    """Spell a loss or a metric: "accuracy"; "training accuracy" without a validation set."""
    if key == "train_loss":
        return "training loss"
    return name(key) if validated else f"training {name(key)}"


def best(report: TrainReport) -> str:
    """Say what the best epoch reached: "validation loss 0.08123 in epoch 7"."""
    best = report.best
    assert best is not None
    what = metric(best.metric, validated=validated(report))
    return f"{what} {value(best.value)} in epoch {best.epoch:,}"


def glance(report: AnyReport) -> str:
    """Say in a line what came out: "learning rate 0.012 (0.0095 to 0.014), confident"."""
    if report.command == "train":
        end = best(report) if report.best else "no best epoch"
        return f"{name(report.status)}, {end}"
    suggestion = report.suggestion
    if suggestion is None or suggestion.lr is None:
        return f"no learning rate: {report.reason}" if report.reason else "no learning rate"
    ended = f" ({report.status})" if report.status in {"interrupted", "failed"} else ""
    between = f" ({interval(suggestion)})" if interval(suggestion) else ""
    return f"learning rate {rate(suggestion.lr)}{between}, {suggestion.verdict}{ended}"


def learning_rate(report: TrainReport) -> str:
    """Say which rate a training had and where it comes from: "0.00125, given by --lr"."""
    assert report.learning_rate is not None
    digits = 2 if report.learning_rate.origin in {"find", "run"} else 6
    return f"{number(report.learning_rate.value, digits)}, {origin(report)}"


def origin(report: TrainReport) -> str:
    """Say where the rate of a training comes from: "given by --lr"."""
    assert report.learning_rate is not None
    note = ""
    if report.suggestion and (between := interval(report.suggestion)):
        note = f" (interval {between}, {report.suggestion.verdict})"
    match report.learning_rate.origin:
        case "flag":
            return "given by --lr"
        case "config":
            return "from the configuration"
        case "find":
            return f"found before training{note}"
        case "run":
            return f"from {report.learning_rate.run}{note}"
        case "optimizer":
            inner = setting(report, "optimizer", "inner")
            key = ("optimizer", "inner") if inner else ("optimizer",)
            if setting(report, *key, "args", "lr") is not None:
                return f"from {'.'.join(key)}.args.lr"
            return f"{setting(report, *key, 'name') or 'the optimizer'}'s own default"


def schedule(report: TrainReport) -> str:
    """Say how the rate moved: "one cycle schedule, warm-up 0.05"."""
    warmup = setting(report, "train", "schedule", "warmup")
    spelled = name(setting(report, "train", "schedule", "name") or "constant")
    return f"{spelled} schedule" + (f", warm-up {number(warmup)}" if warmup else "")


def progress(report: TrainReport) -> str:
    """Say how much was trained: "epoch 7 of 10, step 161"."""
    planned = setting(report, "train", "epochs")
    of = f" of {planned:,}" if planned else ""
    epoch = max((e.epoch for e in report.epochs), default=0)
    epoch = max(epoch, *report.steps.epoch[-1:], report.reached.epoch if report.reached else 0)
    return f"epoch {epoch:,}{of}, step {last_step(report):,}"


def last_step(report: TrainReport) -> int:
    """Return the last update: the one that failed, if a training diverged."""
    reached = report.reached.step if report.reached else 0
    return max((*report.steps.step[-1:], *(e.step for e in report.epochs[-1:]), reached))


def duration(seconds: float) -> str:
    """Spell a time as a clock does: "0:45", "12:05", "1:02:03"."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def age(seconds: float) -> str:
    """Spell how long ago something was: "45 s", "12 min", "5 h", "3 days"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600:.0f} h"
    return f"{seconds // 86400:,.0f} days"


def per_second(count: float, what: str) -> str:
    """Spell a speed: "1,200 steps/s", "0.3 steps/s"."""
    return f"{f'{count:,.0f}' if count >= 10 else number(count, 2)} {what}/s"


def took(report: AnyReport) -> str:
    """Say how long a run took: "2.5 s, 600 steps at 1,200 steps/s on 4 ranks"."""
    timing = report.timing
    speed = f" at {per_second(timing.steps_per_s, 'steps')}" if timing.steps_per_s else ""
    ranks = report.environment.world_size
    where = f" on {ranks} ranks" if ranks > 1 else ""
    return f"{timing.total_s:.1f} s, {timing.steps:,} steps{speed}{where}"


def command(*words: object) -> str:
    """Spell a command of lrtool as one types it into a shell."""
    return shlex.join(["lrtool", *map(str, words)])
