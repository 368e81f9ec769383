"""What the inputs and outputs of a run's weights mean in other data, where that has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrtool.data.encoding import (
    CharacterInputs,
    GreyInputs,
    NumberColumn,
    TableInputs,
    Values,
    WordsColumn,
    class_names,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lrtool.data.encoding import Encoding

    Scale = NumberColumn | GreyInputs | Values

_MOST_APART = 0.1  # of a deviation: another split of the same data stays below


def changes(before: Encoding, now: Encoding) -> list[str]:
    """Say what a number means now that meant something else to a run, in words.

    Only numbers that the same weights take or give are compared: where there are more or fewer
    inputs or outputs, such weights do not fit.
    """
    return [
        *(_of_inputs(before, now) if before.input_shape == now.input_shape else ()),
        *(_of_targets(before, now) if before.num_outputs == now.num_outputs else ()),
    ]


def _of_inputs(before: Encoding, now: Encoding) -> list[str]:
    one, other = before.inputs, now.inputs
    if isinstance(one, CharacterInputs) and isinstance(other, CharacterInputs):
        same_size = before.vocabulary == now.vocabulary
        return _of_names("token", one.characters, other.characters) if same_size else []
    if isinstance(one, GreyInputs) and isinstance(other, GreyInputs):
        return _of_scale("the images", one, other)
    if not isinstance(one, TableInputs) or not isinstance(other, TableInputs):
        return []
    names, others = _names(one), _names(other)
    if names != others:
        return _of_names("input", names, others)
    pairs = zip(one.columns, other.columns, strict=True)
    return [
        words
        for a, b in pairs
        if isinstance(a, NumberColumn) and isinstance(b, NumberColumn)
        for words in _of_scale(f"column {a.name!r}", a, b)
    ]


def _of_targets(before: Encoding, now: Encoding) -> list[str]:
    one, other = before.targets, now.targets
    if class_names(one) and class_names(other):
        return _of_names("class", class_names(one), class_names(other))
    if isinstance(one, Values) and isinstance(other, Values):
        return _of_scale("the target", one, other)
    return []


def _names(inputs: TableInputs) -> list[str]:
    """Return what each input of a table is."""
    return [
        name
        for column in inputs.columns
        for name in (
            [f"{column.name} = {word}" for word in column.words]
            if isinstance(column, WordsColumn)
            else [column.name]
        )
    ]


def _of_names(what: str, before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Name the first place that means something else."""
    pairs = enumerate(zip(before, now, strict=False))
    changed = [(place, a, b) for place, (a, b) in pairs if a != b]
    if not changed:
        return []
    place, one, other = changed[0]
    more = f" ({len(changed)} differ)" if len(changed) > 1 else ""
    return [f"{what} {place} is {one!r} there, and {other!r} here{more}"]


def _of_scale(what: str, before: Scale, now: Scale) -> list[str]:
    apart = abs(now.mean - before.mean) > _MOST_APART * before.deviation
    if not apart and abs(now.deviation / before.deviation - 1) <= _MOST_APART:
        return []
    there, here = (f"mean {s.mean:.4g} and deviation {s.deviation:.4g}" for s in (before, now))
    return [f"{what}: {there} there, {here} here"]
