"""The metrics that a configuration may name."""

from __future__ import annotations

METRICS: dict[str, str] = {
    "accuracy": "share of samples whose most likely class is right",
    "top_5_accuracy": "share of samples whose class is among the five most likely",
    "precision": "right among those said to be of a class, mean over classes",
    "recall": "found among those of a class, mean over classes",
    "f1": "harmonic mean of precision and recall, mean over classes",
    "auroc": "area under the receiver operating characteristic",
    "mae": "mean absolute error",
    "mse": "mean squared error",
    "rmse": "root of the mean squared error",
    "r2": "share of the variance that is explained",
    "perplexity": "exp of the mean cross-entropy of a token",
}
