"""How numbers and results are worded, the same in the plot, the table and the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrtool.show.report import Report, Suggestion


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


def subject(report: Report) -> str:
    """Say what was swept: "mlp, 26,122 parameters · adamw · digits, 1,437 samples · batch 64"."""
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


def setting(report: Report, *keys: str) -> Any:
    """Return a value of the configuration, or None where a call had no such setting."""
    here: Any = report.config
    for key in keys:
        here = here.get(key) if isinstance(here, dict) else None
    return here
