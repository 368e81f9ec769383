"""How numbers and results are worded, the same in the plot, the table and the terminal."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrtool.show.report import AnyReport, Suggestion
    from lrtool.show.train_report import Best, TrainReport


def rate(lr: float) -> str:
    """Spell a learning rate with two significant digits, as one types it into YAML.

    0.00316 → "0.0032", 0.0000123 → "1.2e-5", 10.0 → "10".
    """
    mantissa, exponent = f"{lr:.1e}".split("e")
    power = int(exponent)
    if -4 <= power <= 5:
        return f"{float(mantissa) * 10.0**power:g}"
    return f"{mantissa.removesuffix('.0')}e{power}"


def interval(suggestion: Suggestion) -> str | None:
    """Spell the interval, "0.0018 to 0.0056", or return None without one."""
    if suggestion.low is None or suggestion.high is None:
        return None
    return f"{rate(suggestion.low)} to {rate(suggestion.high)}"


def purpose(suggestion: Suggestion) -> str:
    """Say what the rate is meant for: "constant schedule over 2,300 steps"."""
    steps = f" over {suggestion.for_steps:,} steps" if suggestion.for_steps else ""
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
    batch_size = setting(report, "data", "batch_size")
    parts.append(f"batch {batch_size}" if batch_size else None)
    return " · ".join(part for part in parts if part)


def setting(report: AnyReport, *keys: str) -> Any:
    """Return a value of the configuration, or None where a call had no such setting."""
    here: Any = report.config
    for key in keys:
        here = here.get(key) if isinstance(here, dict) else None
    return here


def value(number: float | None) -> str:
    """Spell a loss or a metric with four significant digits; "–" for none."""
    if number is None:
        return "–"
    return f"{number:.4g}".replace("e-0", "e-").replace("e+0", "e+")


def name(key: str) -> str:
    """Spell a key or a metric's name for a reader: "validation_loss" → "validation loss"."""
    return key.replace("_", " ")


def best(best: Best) -> str:
    """Say what the best epoch reached: "validation loss 0.08123 in epoch 7"."""
    return f"{name(best.metric)} {value(best.value)} in epoch {best.epoch:,}"


def origin(report: TrainReport) -> str:
    """Say where the rate of a training comes from: "given by --lr"."""
    assert report.learning_rate is not None
    found = ""
    if report.suggestion and (good := interval(report.suggestion)):
        found = f" (good from {good}, {report.suggestion.verdict})"
    match report.learning_rate.origin:
        case "flag":
            return "given by --lr"
        case "config":
            return "from the configuration"
        case "find":
            return f"found before training{found}"
        case "run":
            return f"from {report.learning_rate.run}{found}"
        case "optimizer":
            return f"{setting(report, 'optimizer', 'name') or 'the optimizer'}'s own default"


def schedule(report: TrainReport) -> str:
    """Say how the rate moved: "one cycle schedule, warm-up 0.05"."""
    warmup = setting(report, "train", "schedule", "warmup")
    spelled = name(setting(report, "train", "schedule", "name") or "constant")
    return f"{spelled} schedule" + (f", warm-up {warmup:g}" if warmup else "")


def progress(report: TrainReport) -> str:
    """Say how much was trained: "epoch 7 of 10, step 161"."""
    planned = setting(report, "train", "epochs")
    of = f" of {planned:,}" if planned else ""
    epoch = max((e.epoch for e in report.epochs), default=0)
    epoch = max(epoch, *report.steps.epoch[-1:], 0)
    return f"epoch {epoch:,}{of}, step {last_step(report):,}"


def last_step(report: TrainReport) -> int:
    """Return the number of updates that were made or tried."""
    return max((*report.steps.step[-1:], *(e.step for e in report.epochs[-1:])), default=0)


def duration(seconds: float) -> str:
    """Spell a time as a clock does: "0:45", "12:05", "1:02:03"."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def took(report: AnyReport) -> str:
    """Say how long a run took: "2.5 s, 600 steps at 1,200 steps/s"."""
    timing = report.timing
    speed = f" at {timing.steps_per_s:,.0f} steps/s" if timing.steps_per_s else ""
    return f"{timing.total_s:.1f} s, {timing.steps:,} steps{speed}"


def command(*words: object) -> str:
    """Spell a command of lrtool as one types it into a shell."""
    return shlex.join(["lrtool", *map(str, words)])
