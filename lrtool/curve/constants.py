"""Numbers fitted on the development cells: everything in `combine` that is not a formula.

Development cells: 27, namely 6 tasks (digits MLP, Fashion-MNIST MLP and ResNet, Friedman
regression, tabular classification, character transformer) × up to 5 optimizers (SGD, SGD with
momentum .9, AdamW, Adagrad, Lion), warmup + cosine, 200-500 steps; two sweeps of 100 steps over 8
decades for each. "Best" is the middle, in log lr, of the stretch around the best rate of a
¼-decade grid with a normalised regret below 2%. Logarithms are to base 10.
"""

from __future__ import annotations

from typing import Final

# log(best / anchor): for each optimizer its mean, drawn a fifth of the way to its family's; for a
# family, and for "pooled", the mean over their optimizers.
OFFSETS: Final[dict[str, dict[str, float]]] = {
    "valley": {
        "sgd": 0.8,
        "sgd_momentum": 0.76,
        "adamw": 0.59,
        "adagrad": 0.74,
        "lion": 0.15,
        "proportional": 0.78,
        "adaptive": 0.49,
        "pooled": 0.61,
    },
    "divergence": {
        "sgd": -0.56,
        "sgd_momentum": -0.88,
        "adamw": -1.31,
        "adagrad": -0.62,
        "lion": -1.29,
        "proportional": -0.72,
        "adaptive": -1.08,
        "pooled": -0.93,
    },
}

# Standard deviation of the best rate around anchor + offset, decades: where the optimizer is one
# of the development cells', where only its family is known, and where nothing is.
SPREADS: Final[dict[str, dict[str, float]]] = {
    "valley": {"optimizer": 0.42, "family": 0.49, "pooled": 0.5},
    "divergence": {"optimizer": 0.33, "family": 0.46, "pooled": 0.49},
}
CORRELATION: Final = 0.5  # between the errors of two anchors; .1 to .5 was seen, .5 is careful

# log(best) for each optimizer, and the spread granted to it: the cells show .27 decades, but tasks
# of unusual scale move by decades, so the prior stays weak.
PRIORS: Final[dict[str, float]] = {
    "sgd": -0.41,
    "sgd_momentum": -1.19,
    "adamw": -1.94,
    "adagrad": -1.14,
    "lion": -2.72,
}
PRIOR_SPREAD: Final = 0.5
PRIOR_FULL, PRIOR_NONE = 0.5, 1.0  # decades between anchors and prior: full weight, no weight

# The more steps a decade, the longer a sweep trains at each rate and the sooner the loss falls.
# Sweeps at 12.5, 25 and 50 steps a decade (3 small MLPs × 4 optimizers × 3 seeds): per tenfold
# density the valley moves down by .3 decades on average, the divergence does not move.
PER_DECADE: Final = 12.5
DENSITY: Final[dict[str, float]] = {"valley": 0.3, "divergence": 0.0}

# LINEX loss (Varian 1975; Zellner 1986): a rate too high costs more than one too low, and the
# decision that costs least lies ASYMMETRY · variance / 2 below the mean. Per decade.
ASYMMETRY: Final = 1.0

# Half-width of the interval in standard deviations. Leaving one task out, it reaches into the
# stretch below 2% regret in 89% of the cells with the optimizer known, 74% with its family alone,
# 72% with neither. That stretch is .75 decade wide in the median, so the interval is narrower than
# the spread of the single best rate, which it holds in about a third of the cells.
HALF_WIDTH: Final = 0.6

# A schedule that falls to zero spends its mean at about half its peak, and the cells' best rates
# are peaks; a rate that never falls should be lower (Smith 2018, arXiv 1803.09820).
CONSTANT_SCHEDULE: Final = -0.3

# Best rates fall with length, like T^−.32 for language models (Bjorck et al. 2024, arXiv
# 2409.19913), not at all for others: an exponent anywhere between, uniformly.
STEPS: Final = 350
LENGTH_EXPONENT: Final = -0.16
LENGTH_EXPONENT_SPREAD: Final = 0.09

# Names as in torch.optim; "lion" and "+momentum" beside them. An optimizer stands for those whose
# update has the same size per unit of rate.
ALIKE: Final[dict[str, str]] = {
    "sgd": "sgd",
    "asgd": "sgd",
    "sgd_momentum": "sgd_momentum",
    "sgd_nesterov": "sgd_momentum",
    "adam": "adamw",
    "adamw": "adamw",
    "adamax": "adamw",
    "nadam": "adamw",
    "radam": "adamw",
    "sparseadam": "adamw",
    "adagrad": "adagrad",
    "lion": "lion",
    "signsgd": "lion",
}
FAMILIES: Final[dict[str, str]] = {
    "sgd": "proportional",
    "sgd_momentum": "proportional",
    "adamw": "adaptive",
    "adagrad": "adaptive",
    "lion": "adaptive",
    "rmsprop": "adaptive",
    "muon": "adaptive",
    "adafactor": "adaptive",
}
