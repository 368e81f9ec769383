"""The axis of a plot: where a value lies on it, and which values are spelled beside it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, isfinite, log10

from lrtool.config.spelling import number

LETTER = 0.6  # em: how wide a digit is
WIDTHS = (0, 16, 22, 28, 36, 46, 60)  # em: of a figure, from which on a label is shown
BESIDE = 6  # em of a figure beside the plot


@dataclass(frozen=True, slots=True)
class Tick:
    """A value that is spelled beside an axis.

    Attributes:
        place: on the axis, from 0 to 1.
        text: the value.
        width: of a figure in em, from which on there is room for it.
    """

    place: float
    text: str
    width: int = 0


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a plot, from `low` to `high`; positive ends if it is logarithmic.

    Attributes:
        whole: its values are counts.
    """

    name: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies, between 0 at the low end and 1; infinity where it cannot."""
        low, high = self.low, self.high
        if self.log:
            if not value > 0:
                return float("-inf")
            low, high, value = log10(low), log10(high), log10(value)
        return (value - low) / (high - low) if high > low else 0.5

    def spell(self, value: float) -> str:
        """Spell a value as a table has it: counts whole, others with four digits."""
        if self.whole and isfinite(value):
            return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"
        return number(value, 4)

    def ticks(self, most: int) -> list[Tick]:
        """Return at most about `most` round values, from low to high."""
        values = _decades(self.low, self.high, most) if self.log else []
        if len(values) < 2:
            values = _round_values(self.low, self.high, most, whole=self.whole)
        texts = [f"{v:,.0f}" if self.whole else number(v, 6) for v in values]
        places = [self.place(value) for value in values]
        gap = min((b - a for a, b in pairwise(places)), default=1.0)
        letters = max((len(text) for text in texts), default=0)
        return [
            Tick(place, text, width)
            for index, (place, text) in enumerate(zip(places, texts, strict=True))
            if (width := _room(index, gap, letters)) is not None
        ]


def room_for(letters: int, fraction: float) -> int | None:
    """Return how wide a figure must be for a text over a fraction of its plot; None: no such."""
    needed = BESIDE + (letters + 2) * LETTER / max(fraction, 1e-9)
    return next((width for width in WIDTHS[1:] if width >= needed), None)


def _room(index: int, gap: float, letters: int) -> int | None:
    """Return the width from which on a tick is shown: of every second, fourth, eighth one, before.

    The first is always shown.
    """
    stride = index & -index  # the largest power of two that divides it
    return room_for(letters, gap * stride) if index else 0


def _decades(low: float, high: float, most: int) -> list[float]:
    """Return powers of ten; on a short axis their doubles and fivefolds as well."""
    first, last = floor(log10(low)), ceil(log10(high))
    stride = ceil((last - first + 1) / (most + 1))
    factors = (1, 2, 5) if log10(high / low) < 2.5 else (1,)
    found = [float(f"{f}e{e}") for e in range(first, last + 1, stride) for f in factors]
    return [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]


def _round_values(low: float, high: float, most: int, *, whole: bool) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    step = max(step, 1.0) if whole else step
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]
