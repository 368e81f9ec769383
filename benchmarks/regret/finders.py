"""What each finder says about a cell: a rate by method and finder seed, and the steps it spent."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import controls
import ours
import peers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cells import Cell

SEEDS = (0, 1, 2)  # apart from the seeds of training
ANY = "any"  # in the place of a finder's seed: the rate does not depend on it
OWN = {"lrtool find": False, "lrtool find --verify": True}  # method → find.verify

Said = dict[str, dict[str, dict[str, Any]]]  # finder seed → method → rate, steps, …


def _peers(known: peers.Peers, cell: Cell) -> Said:
    return {str(seed): peers.ask(cell, seed, known) for seed in SEEDS}


def _controls(cell: Cell) -> Said:
    return {
        ANY: controls.constant(cell),
        **{str(seed): controls.seeded(cell, seed) for seed in SEEDS},
    }


def _lrtool(cell: Cell) -> Said:
    return {
        str(seed): {
            method: ours.suggestion(cell, seed, verify=verify) for method, verify in OWN.items()
        }
        for seed in SEEDS
    }


SOURCES: dict[str, Callable[[Cell], Said]] = {
    "controls": _controls,
    "lrtool": _lrtool,
    "peers": partial(_peers, peers.PEERS),
    "lightning252": partial(_peers, peers.PEERS_252),
}
BLIND = {"peers", "lightning252"}  # to schedule and length: one answer for a task and an optimizer


def file_of(cell: Cell, source: str, cache: Path) -> Path:
    """Return where a source's answer about a cell is kept."""
    name = f"{cell.task}-{cell.optimizer}" if source in BLIND else cell.name
    return cache / "rates" / source / f"{name}.json"


def said(cell: Cell, cache: Path) -> Said:
    """Return all that was said about a cell, whatever the source."""
    found: Said = {}
    for source in SOURCES:
        path = file_of(cell, source, cache)
        for seed, methods in (json.loads(path.read_text()) if path.exists() else {}).items():
            found.setdefault(seed, {}).update(methods)
    return found
