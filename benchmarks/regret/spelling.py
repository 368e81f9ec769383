"""Numbers as the result's tables and pictures write them."""

from __future__ import annotations


def number(value: float, places: int | None = None) -> str:
    """Spell a regret without its leading zero: three places below a tenth, else two."""
    if places is None:
        places = 3 if abs(value) < 0.0995 else 2
    text = f"{round(value, places) + 0.0:.{places}f}".replace("-", "−")  # + 0.0: no −0
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def span(low: float, high: float) -> str:
    """Spell an interval."""
    return f"{number(low)} to {number(high)}"


def gap(value: float | None) -> str:
    """Spell a number of decades, or that there is none."""
    return "–" if value is None else number(value, 2)
