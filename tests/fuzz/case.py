"""One input to try: files, the arguments of `lrtool`, and what may come of it."""

from dataclasses import dataclass, field

ANYTHING, REFUSED, THE_SAME = "anything", "refused", "the same data, or refused"


@dataclass
class Case:
    """`files` are written, `lrtool` is run with `arguments`.

    `outcome` is what damage allows: where bytes can be told to be damaged, they must be refused, or
    give what they gave before the damage, `sound`.
    """

    arguments: list[str]
    files: dict[str, bytes] = field(default_factory=dict)
    outcome: str = ANYTHING
    sound: dict[str, bytes] = field(default_factory=dict)
    done: str = ""  # what was done to it, in words
