"""Made-up reports of finds: a smooth valley with a diverging tail, in any number of variations."""

import math
from dataclasses import replace

import numpy as np
from trainings import FACTS

from lrtool.report import records
from lrtool.report.report import FindReport

TIMING = records.Timing(
    total_s=2.5, setup_s=0.5, steps=600, steps_per_s=1200.0, samples_per_s=76_800.0
)
CONFIG = {
    "seed": 0,
    "data": {"source": "digits", "batch_size": 64},
    "model": {"name": "mlp", "args": {"hidden": [128, 128]}},
    "loss": {"name": "cross_entropy", "args": {}},
    "optimizer": {"name": "adamw", "args": {}},
    "find": {"start": 1e-7, "end": 10.0, "loss": "batch", "mode": "exponential"},
}


def valley(lr):
    """2.3 at low rates, about 0.4 near 0.01, exploding beyond 0.3."""
    x = np.log10(lr)
    return 0.4 + 1.9 / (1 + np.exp(3 * (x + 3))) + np.exp(6 * (x + 0.5))


def make_sweeps(
    repeats=3, steps=200, *, start=1e-7, end=10.0, noise=0.08, linear=False, loss=valley
):
    lr = np.linspace(start, end, steps) if linear else np.geomspace(start, end, steps)
    sweeps = []
    for seed in range(repeats):
        random = np.random.default_rng(seed)
        shape = loss(lr)
        losses = shape + noise * random.standard_normal(steps)
        first, best = loss(np.array([1e-7, 3e-2]))
        beyond = np.flatnonzero((shape - first) / 20 > first - best)
        stop = beyond[0] + 1 if beyond.size else steps
        sweeps.append(
            records.Sweep(
                seed=seed,
                lr=tuple(lr[:stop].tolist()),
                loss=tuple(losses[:stop].tolist()),
                skipped=(),
                stop_reason="diverged" if stop < steps else "completed",
            )
        )
    return sweeps


def make_curve(lr, loss=valley, width=0.1):
    lr = np.asarray(lr)
    values = loss(lr)
    return records.Curve(
        lr=tuple(lr.tolist()),
        loss=tuple(values.tolist()),
        low=tuple((values - width).tolist()),
        high=tuple((values + width).tolist()),
    )


def make_suggestion(lr=0.0032, low=0.0018, high=0.0056, verdict="confident", **changes):
    facts = {
        "method": "auto",
        "reason": "three sweeps agree within 0.2 decades",
        "advice": (),
        "for_schedule": "constant",
        "for_steps": 230,
    }
    return records.Suggestion(lr=lr, low=low, high=high, verdict=verdict, **(facts | changes))


def make_candidate(
    lr, origin, half=None, final=None, outcome="lost", *, steps=100, error=0.02, scale=1
):
    """A candidate whose losses fall from 2.3, the faster the lower its final loss."""
    end = 0.5 if final is None else final
    made = {"dropped": steps // 2, "diverged": 20}.get(outcome, steps)
    x = np.arange(made)
    noise = 0.05 * np.random.default_rng(round(1e6 * lr)).standard_normal(made)
    loss = end + (2.3 - end) * np.exp(-4 * x / steps) + noise
    if outcome == "diverged":
        loss = 2.3 * np.exp(x / 2)
        loss[-1] = math.nan
    values = [None if v is None else v * scale for v in (half, final)]
    values.append(None if error is None else error * abs(scale))
    return records.Candidate(lr, origin, tuple((scale * loss).tolist()), *values, outcome)


def make_race(candidates=None, *, scale=1, **changes):
    facts = {
        "seed": 7,
        "steps": 100,
        "steps_spent": 318.4,
        "measure": "validation",
        "examples": 360,
        "untrained_loss": 2.3 * scale,
        "interrupted": False,
    }
    if candidates is None:
        candidates = (
            make_candidate(0.001, "lower", 0.9, 0.61, scale=scale),
            make_candidate(0.0032, "suggestion", 0.7, 0.42, "won", error=0, scale=scale),
            make_candidate(0.01, "higher", 0.8, 0.5, scale=scale),
        )
    return records.Race(candidates=candidates, **(facts | changes))


def make_full_trial(*validation, **changes):
    """A whole training of 230 steps at 0.004, lowest at the third of its measurements."""
    validation = validation or (1.2, 0.8, 0.5, 0.7, 0.9)
    parts = range(1, len(validation) + 1)
    facts = {
        "seed": 8,
        "lr": 0.004,
        "steps": 230,
        "steps_spent": 250.0,
        "examples": 30,
        "untrained_loss": 2.3,
        "step": tuple(230 * part // len(validation) for part in parts),
        "share": tuple(part / len(validation) for part in parts),
        "validation": validation,
        "loss": tuple(np.linspace(2.3, 0.1, 230).tolist()),
        "interrupted": False,
    }
    return records.FullTrial(**(facts | changes))


def make_trials(lower=0.42, higher=0.61, outcomes=("won", "lost"), **changes):
    """Two trials at 0.0016 and 0.0064."""
    candidates = (
        make_candidate(0.0016, "lower", None, lower, outcomes[0], steps=90),
        make_candidate(0.0064, "higher", None, higher, outcomes[1], steps=90),
    )
    return make_race(candidates, **({"steps": 90} | changes))


def odd_trials():
    nan = math.nan
    one = make_trials(higher=None, outcomes=("won", "unfinished"), interrupted=True)
    return {
        "trials": make_trials(),
        "trials in training": make_trials(measure="training", examples=704),
        "a trial that diverged": make_trials(higher=nan, outcomes=("won", "diverged")),
        "trials that diverged": make_trials(nan, nan, ("diverged", "diverged")),
        "an interrupted trial": one,
        "no trial yet": replace(one, candidates=()),
        "trials off the axis": replace(
            one,
            interrupted=False,
            candidates=tuple(replace(r, lr=r.lr * 1e9) for r in one.candidates),
        ),
    }


def odd_races():
    nan = math.nan
    five = (
        make_candidate(0.001, "lower", 0.9, None, "dropped", error=None),
        make_candidate(0.0032, "suggestion", 0.7, 0.42),
        make_candidate(0.01, "higher", 0.6, 0.31, "won", error=0),
        make_candidate(0.0056, "prior", 0.65, 0.35),
        make_candidate(0.032, "outward", nan, None, "diverged", error=None),
    )
    diverged = tuple(
        make_candidate(lr, "lower", nan, None, "diverged", error=None) for lr in (0.1, 0.32, 1.0)
    )
    at_once = tuple(replace(candidate, loss=(nan,)) for candidate in diverged)
    half = tuple(
        make_candidate(lr, "lower", loss, None, "unfinished", error=0.01)
        for lr, loss in ((0.001, 0.9), (0.0032, 0.7), (0.01, 0.8))
    )
    begun = (
        replace(half[0], loss=half[0].loss[:7], half_loss=None, standard_error=None),
        replace(half[1], loss=(), half_loss=None, standard_error=None),
    )
    alone = (
        make_candidate(0.001, "lower", 0.9, None, "dropped", error=None),
        make_candidate(0.0032, "suggestion", 0.3, 0.2, "won", error=0),
    )
    return {
        "usual": make_race(),
        "five": make_race(five),
        "five, tiny rates": make_race(tuple(replace(r, lr=r.lr * 1.23e-9) for r in five)),
        "in training": make_race(measure="training", examples=1600),
        "all diverged": make_race(diverged, untrained_loss=nan),
        "diverged at once": make_race(at_once, untrained_loss=nan),
        "interrupted half-way": make_race(half, interrupted=True),
        "just begun": make_race(begun, interrupted=True, examples=0),
        "alone": make_race(alone),
        "huge": make_race(scale=1e30),
        "largest": make_race(scale=1e307),
        "tiny": make_race(scale=1e-12),
        "negative": make_race(scale=-1),
        "long": make_race(
            tuple(replace(r, loss=r.loss * 40) for r in make_race().candidates), steps=4000
        ),
    }


NO_SUGGESTION = make_suggestion(
    None,
    None,
    None,
    "none",
    reason="the loss never fell below where it began",
    advice=("raise find.end, or look for a fault in the model or the data",),
)
DEFAULT = object()


def make_report(
    *, sweeps=DEFAULT, curve=DEFAULT, suggestion=DEFAULT, status=None, reason=None, **changes
):
    sweeps = make_sweeps() if sweeps is DEFAULT else sweeps
    if curve is DEFAULT:
        longest = max((sweep.lr for sweep in sweeps), key=len, default=())
        curve = make_curve(longest[:-5]) if len(longest) > 5 else None
    suggestion = make_suggestion() if suggestion is DEFAULT else suggestion
    suggestions = {
        "valley": records.MethodSuggestion(0.0021),
        "steep": records.MethodSuggestion(None, "the curve never falls"),
    }
    found = suggestion is not None and suggestion.verdict != "none"
    facts = {
        "config": CONFIG,
        "timing": TIMING,
        **FACTS,
    }
    return FindReport(
        status=status or ("completed" if found else "no_suggestion"),
        reason=reason or (suggestion and suggestion.reason),
        suggestion=suggestion,
        suggestions=suggestions if suggestion else {},
        sweeps=tuple(sweeps),
        curve=curve if suggestion else None,
        **(facts | changes),
    )


def _odd_reports():
    def sweep(lr, loss, stop_reason="completed", skipped=()):
        return records.Sweep(0, tuple(lr), tuple(loss), skipped, stop_reason)

    def moved(scale, offset):
        def loss(lr):
            return scale * valley(lr) + offset

        sweeps = make_sweeps(loss=loss, noise=0.08 * abs(scale), end=0.5)
        curve = make_curve(sweeps[0].lr, loss, 0.1 * abs(scale))
        return make_report(sweeps=sweeps, curve=curve)

    lr = tuple(np.geomspace(1e-7, 10, 200).tolist())
    nan = math.nan
    nothing = {"suggestion": NO_SUGGESTION, "curve": None}
    flat = lambda lr: np.full_like(lr, 2.3)  # noqa: E731  (a one-line function beside its use)
    linear = make_sweeps(linear=True, start=1e-4, end=1.0)
    short = make_sweeps(end=1e-3)
    return {
        "usual": make_report(),
        "uncertain, wide interval": make_report(
            suggestion=make_suggestion(0.003, 0.0002, 0.05, "uncertain")
        ),
        "narrow interval": make_report(suggestion=make_suggestion(0.0032, 0.0031, 0.0033)),
        "left edge": make_report(suggestion=make_suggestion(1.1e-7, 1e-7, 2e-7)),
        "right edge": make_report(
            sweeps=short,
            suggestion=make_suggestion(1e-3, 0.8e-3, 1e-3),
            curve=make_curve(short[0].lr),
        ),
        "no interval": make_report(suggestion=make_suggestion(0.0032, None, None)),
        "one repeat": make_report(sweeps=make_sweeps(1)),
        "eight repeats": make_report(sweeps=make_sweeps(8)),
        "no suggestion": make_report(
            sweeps=make_sweeps(loss=flat), **nothing, reason="the loss never fell: " + "why " * 60
        ),
        "no suggestion, with a curve": make_report(
            sweeps=make_sweeps(loss=flat), curve=make_curve(lr, flat), suggestion=NO_SUGGESTION
        ),
        "one point": make_report(sweeps=[sweep([1e-3], [2.3], "interrupted")], **nothing),
        "two points": make_report(sweeps=[sweep([1e-3, 1e-2], [2.3, 2.2])], **nothing),
        "first loss NaN": make_report(sweeps=[sweep([1e-7], [nan], "nan")] * 3, **nothing),
        "all NaN": make_report(sweeps=[sweep(lr, [nan] * 200, "nan")], **nothing),
        "no sweeps": make_report(
            sweeps=[],
            suggestion=None,
            status="failed",
            reason="out of memory",
            data=None,
            model=None,
        ),
        "interrupted": make_report(
            sweeps=[
                *make_sweeps(1),
                sweep(lr[:90], valley(np.array(lr[:90])).tolist(), "interrupted"),
            ],
            status="interrupted",
            reason="interrupted by SIGINT in sweep 2 of 3",
        ),
        "interrupted at once": make_report(sweeps=[sweep([], [], "interrupted")], **nothing),
        "nan in the end": make_report(
            sweeps=[sweep(lr[:150], [*valley(np.array(lr[:149])).tolist(), nan], "nan")]
        ),
        "inf in the end": make_report(
            sweeps=[sweep(lr[:150], [*valley(np.array(lr[:149])).tolist(), math.inf], "inf")]
        ),
        "skipped steps": make_report(
            sweeps=[
                sweep(
                    lr[:150],
                    valley(np.array(lr[:150])).tolist(),
                    skipped=(0, 1, 2, 3, 70),
                )
            ]
        ),
        "negative": moved(1.0, -10.0),
        "times 1000": moved(1000.0, 0.0),
        "plus 1000": moved(1.0, 1000.0),
        "huge": moved(1e30, 0.0),
        "largest": moved(1e307, 0.0),
        "tiny": moved(1e-12, 0.0),
        "constant": make_report(sweeps=make_sweeps(loss=flat, noise=0), **nothing),
        "constant zero": make_report(sweeps=make_sweeps(loss=np.zeros_like, noise=0), **nothing),
        "noisy": make_report(sweeps=make_sweeps(noise=0.6)),
        "linear": make_report(sweeps=linear, curve=make_curve(linear[0].lr[:-5])),
        "narrow sweep": make_report(
            sweeps=make_sweeps(start=1e-3, end=4e-3), suggestion=make_suggestion()
        ),
        "beyond the guideline": make_report(
            sweeps=make_sweeps(start=0.05, end=0.5), suggestion=make_suggestion(0.1, 0.08, 0.2)
        ),
        "below the guideline": make_report(
            sweeps=make_sweeps(start=1e-9, end=5e-5), suggestion=make_suggestion(1e-5, 5e-6, 4e-5)
        ),
        "odd text": make_report(
            sweeps=make_sweeps(1),
            model=records.ModelFacts(
                name="[bold]my_package.$x_1$:模型" + "ResNet" * 20, parameters=1, trainable=1
            ),
            reason="see [red]notes[/red] \\[x] $y^2$ :smile: 100%",
        ),
    }


ODD = _odd_reports()
ODD |= {name: make_report(trials=trials) for name, trials in odd_trials().items()}
ODD["trials of eight sweeps"] = make_report(sweeps=make_sweeps(8), trials=make_trials())
ODD["trials and no suggestion"] = make_report(suggestion=NO_SUGGESTION, trials=make_trials())

ODD_RACES = {name: make_report(race=race) for name, race in odd_races().items()}
ODD_RACES["after trials"] = make_report(race=make_race(), trials=make_trials())
