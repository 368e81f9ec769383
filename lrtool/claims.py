"""Why a launch ends: what ranks tell one another when one has failed, whatever else they do.

The first one claims it in the store. It says its message, and all end with its exit code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from time import monotonic, sleep
from typing import TYPE_CHECKING

from lrtool.errors import EndedLaunchError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lrtool.ranks import Ranks

ANSWER_S = 3.0  # in which every process that lives answers
REPORT_S = 20.0  # in which one that has failed writes its report, and says why
LOOK_S = 0.05  # between two looks


@dataclass(frozen=True, slots=True)
class Claim:
    """The failure that ended a launch.

    Attributes:
        rank: that failed first.
        message: what it says.
        exit_code: of all ranks.
    """

    rank: int
    message: str
    exit_code: int


def claim(ranks: Ranks, message: str, exit_code: int) -> Claim:
    """Claim that this rank has failed; return the first claim, which may be another's.

    Raises:
        RuntimeError: the store is gone.
    """
    own = json.dumps([ranks.rank, message, exit_code])
    return Claim(*json.loads(ranks.store.compare_set("claim", "", own)))


def claimed(ranks: Ranks, seconds: float = 0.0) -> Claim | None:
    """Return the first claim, waited for; None if nobody has failed.

    Raises:
        RuntimeError: the store is gone.
    """
    deadline = monotonic() + seconds
    while not ranks.store.check(["claim"]):
        if monotonic() >= deadline:
            return None
        sleep(LOOK_S)
    return Claim(*json.loads(ranks.store.get("claim")))


def answer(ranks: Ranks) -> None:
    """Tell that this process lives, if one of the others asks; from a thread of its own.

    Raises:
        RuntimeError: the store is gone.
    """
    if ranks.store.check(["asked"]):
        ranks.store.set(f"alive/{ranks.rank}", "")


def cause(ranks: Ranks, error: BaseException) -> EndedLaunchError:
    """Find out why the lockstep with the others is lost; that takes some seconds.

    Args:
        ranks: all of the launch.
        error: that this rank has got instead of what the others had to tell.

    Returns:
        What another rank has claimed; or who is gone, or late, for this rank to claim.
    """
    try:
        ranks.store.set(f"out/{ranks.rank}", "")
        ranks.store.set("asked", "")
        return _cause(ranks, error)
    except RuntimeError:  # the store has ended with the first rank, which keeps it
        return EndedLaunchError(_without_a_word([0]))


def _cause(ranks: Ranks, error: BaseException) -> EndedLaunchError:
    timed_out = any(words in str(error).lower() for words in ("timed out", "timeout"))
    started = monotonic()
    while True:
        found = claimed(ranks)
        if found is not None:
            return of_claim(found)
        waited = monotonic() - started
        others = [rank for rank in range(ranks.world_size) if rank != ranks.rank]
        inside = [rank for rank in others if not ranks.store.check([f"out/{rank}"])]
        dead = [rank for rank in inside if not ranks.store.check([f"alive/{rank}"])]
        if waited > ANSWER_S and dead:
            return EndedLaunchError(_without_a_word(dead))
        if waited > ANSWER_S and timed_out:
            who = named(inside) if inside else "a rank"
            return EndedLaunchError(
                f"{who} kept the others waiting for more than {ranks.timeout:g} seconds; "
                "if that may be, raise runtime.timeout",
                late=True,
            )
        if (waited > ANSWER_S and not inside) or waited > REPORT_S:
            return EndedLaunchError(str(error))
        sleep(LOOK_S)


def of_claim(found: Claim) -> EndedLaunchError:
    """Return the error of the other ranks, which say nothing more."""
    message = f"rank {found.rank}: {found.message}"
    return EndedLaunchError(message, exit_code=found.exit_code)


def _without_a_word(dead: list[int]) -> str:
    return f"{named(dead)} ended without a word (killed, or out of memory?)"


def named(ranks: Iterable[int]) -> str:
    """Spell ranks: "rank 2", "ranks 1 and 2", "ranks 1, 2 and 5"."""
    *most, last = map(str, ranks)
    return f"ranks {', '.join(most)} and {last}" if most else f"rank {last}"
