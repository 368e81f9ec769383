"""Constants in round numbers, so that what is computed from them can be checked by hand."""

from lrtool.curve.constants import Constants

OPTIMIZERS = ("adagrad", "adamw", "lion", "sgd", "sgd_momentum")
GROUPS = ("proportional", "adaptive", "pooled")
ANCHORS = ("minimum", "rise", "divergence", "critical", "ratio")
PRIORS = {"adagrad": -1.5, "adamw": -2.5, "lion": -3.5, "sgd": -0.5, "sgd_momentum": -1.5}


def _offsets(own, family):
    return dict.fromkeys(OPTIMIZERS, own) | dict.fromkeys(GROUPS, family)


ROUND = Constants(
    anchors=ANCHORS,
    offsets={
        "minimum": _offsets(-0.5, -0.6),
        "rise": _offsets(-1.0, -1.1),
        "divergence": _offsets(-1.25, -1.3),
        "critical": _offsets(-0.25, -0.75),
        "ratio": _offsets(-0.75, -1.0),
        "prior": PRIORS,
    },
    spreads={
        "optimizer": dict.fromkeys((*ANCHORS, "prior"), 0.4),
        "family": dict.fromkeys(ANCHORS, 0.6),
        "pooled": dict.fromkeys(ANCHORS, 0.8),
    },
    correlation=tuple(tuple(1.0 if i == j else 0.25 for j in range(5)) for i in range(5)),
    density={"minimum": 0.1, "rise": -0.3},
    held=_offsets(-0.3, -0.4),
    length=-0.4,
    trial_gain=0.75,
    trial_shift=_offsets(-0.1, -0.2),
    trial_overfit=-0.5,
    half_width={"swept": 0.6, "tried": 5.0, "raced": 4.0},
    certain=0.04,
    window=0.4,
)
