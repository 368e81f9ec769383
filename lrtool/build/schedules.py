"""The schedules that a configuration may name: how the rate moves over training."""

from __future__ import annotations

# t: the share of training done after warm-up, 0 to 1; each is a factor of the base rate.
SCHEDULES: dict[str, str] = {
    "constant": "1",
    "linear": "1 − t",
    "cosine": "(1 + cos πt) / 2",
    "one_cycle": "up by a cosine, then down to almost 0 (Smith 2018, arXiv:1803.09820)",
    "cosine_restarts": "cosine, started anew (SGDR, arXiv:1608.03983)",
    "triangular": "up and down between two rates (Smith 2015, arXiv:1506.01186)",
    "triangular2": "triangular, its height halved after each cycle",
    "exp_range": "triangular, its height decaying exponentially",
    "step": "a factor every so many epochs",
    "multi_step": "a factor at given epochs",
    "exponential": "a factor each epoch",
    "polynomial": "(1 − t)^power",
    "wsd": "constant, then a decay at the end (warm-up, stable, decay)",
    "inverse_sqrt": "1 / √step",
    "plateau": "a factor when the validation loss no longer falls",
}
