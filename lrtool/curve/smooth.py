"""Two-sided smoothing of sweeps in log lr, without lag, with a band.

A running mean of the past lags behind the curve; a fit to both sides does not. Each value of the
curve is that of a local quadratic (Cleveland 1979, "Robust locally weighted regression and
smoothing scatterplots"). Generalised cross-validation chooses its bandwidth, in decades (Craven &
Wahba 1979). The band is a wild bootstrap (Wu 1986) of the residuals and a bootstrap of the sweeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from lrtool.curve.stopping import RESOLUTION
from lrtool.report.records import Curve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lrtool.report.records import Sweep

    Array: TypeAlias = NDArray[np.float64]
    Points: TypeAlias = tuple[Array, Array]  # log10 of the rates, ascending, and a loss for each

LEAST_POINTS = 10  # usable steps of a sweep
POINTS_PER_DECADE = 40  # of the grid
BANDWIDTHS = (0.35, 0.5, 0.7, 1.0)  # half-widths of the window, decades
TOLERANCE = 1.1  # the smoothest curve with a score within this factor of the best is used
NEIGHBOURS = 6  # rates in a window, at least
GAP = 0.3  # decades: no curve where the nearest rate is further away
BLOCKS = 256  # a longer sweep is averaged over neighbouring steps down to this many points
MEDIAN_WINDOW = 7  # steps, centred
SPIKE = 5.0  # robust standard deviations: a loss further from the centred median is a spike
REPLICATES = 200
LARGEST = float(np.finfo(np.float32).max)  # squares of larger losses overflow


@dataclass(frozen=True, slots=True)
class Fit:
    """Smoothed sweeps on one grid.

    Attributes:
        log_lr: log10 of the rates of the grid, ascending, shape (G,).
        loss: the loss expected after an update at each rate, cut off at the ceiling, shape (G,).
        replicates: the same for each bootstrap replicate, shape (B, G).
        noise: standard deviation of `loss` from the noise of a typical batch, shape (G,); at least
            the resolution of float32.
        ceiling: the loss at which the curve is cut off.
        per_decade: steps per decade of rate in one sweep, near its end.
        blew_up: the sweep that got furthest diverged, or met NaN or infinity.
    """

    log_lr: Array
    loss: Array
    replicates: Array
    noise: Array
    ceiling: float
    per_decade: float
    blew_up: bool

    @property
    def curve(self) -> Curve:
        """The record of this fit, with the 80% band of its replicates."""
        low, high = np.quantile(self.replicates, (0.1, 0.9), axis=0)
        return Curve(
            lr=tuple((10.0**self.log_lr).tolist()),
            loss=tuple(self.loss.tolist()),
            low=tuple(np.minimum(low, self.loss).tolist()),
            high=tuple(np.maximum(high, self.loss).tolist()),
        )


def effects(sweep: Sweep) -> Points:
    """Return log10(lr) of the updates that were made and the loss after each, both shape (n,).

    The loss of a step is measured before its update, so lr[i] shows in loss[i+1]. Skipped steps,
    those without targets, and losses too large for float32 are left out.
    """
    steps = np.setdiff1d(np.arange(len(sweep.loss)), sweep.without_targets)  # those change nothing
    log_lr, loss = np.log10(np.asarray(sweep.lr, dtype=float))[steps], np.asarray(sweep.loss)[steps]
    made = ~np.isin(steps, sweep.skipped)
    usable = made[:-1] & made[1:] & (np.abs(loss[1:]) <= LARGEST)
    return log_lr[:-1][usable], loss[1:][usable]


def fit(sweeps: Sequence[Sweep]) -> Fit | None:
    """Smooth the pooled sweeps; None if none of them has 10 usable steps.

    Sweeps may differ in length and in rates, and their order does not matter. Losses are cut off
    at a ceiling as far above the initial loss as the best is below it, so that the divergence does
    not outweigh the rest. A sweep that blew up counts with the ceiling from its end to the last
    rate of the others; else only survivors would count there.
    """
    ordered = sorted(sweeps, key=lambda sweep: (sweep.seed, sweep.lr, sweep.loss))
    used = [sweep for sweep in ordered if effects(sweep)[0].size >= LEAST_POINTS]
    if not used:
        return None
    raw = [_blocks(log_lr, _without_spikes(loss)) for log_lr, loss in map(effects, used)]
    initial, best, sigma = _levels([loss for _, loss in raw])
    sigma = max(sigma, *(_of_heavy_tails(effects(sweep)[1]) for sweep in used))
    # A jump from the best loss to this ceiling, smoothed, crosses the initial loss where it
    # happened. Six standard deviations leave the noise whole.
    ceiling = initial + max(initial - best, 6 * sigma)
    points = [(log_lr, np.minimum(loss, ceiling)) for log_lr, loss in raw]
    bandwidth = _bandwidth(points)
    grid = _grid([log_lr for log_lr, _ in points])

    rng = np.random.default_rng(0)
    draws = rng.multinomial(len(used), np.full(len(used), 1 / len(used)), size=REPLICATES)
    curves = np.empty((len(used), grid.size))
    replicates = np.zeros((REPLICATES, grid.size))
    variance = np.zeros(grid.size)
    for index, (sweep, (log_lr, loss)) in enumerate(zip(used, points, strict=True)):
        hat = local_quadratic(log_lr, log_lr, bandwidth)
        residual = (loss - hat @ loss) / np.sqrt(np.maximum(1 - np.diag(hat), 0.1))
        beyond = _beyond(log_lr, grid[-1]) if _blew_up(sweep) else np.empty(0)
        smoother = local_quadratic(np.append(log_lr, beyond), grid, bandwidth)
        inside = (grid > log_lr[0] - 1e-9) & (grid < log_lr[-1] + 1e-9)
        inside |= _blew_up(sweep) & (grid > log_lr[0])
        level = smoother @ np.append(loss, np.full(beyond.size, ceiling))
        curves[index] = np.where(inside, level, np.nan)
        variance += sigma**2 * np.sum(smoother**2, axis=1) / len(used) ** 2
        signs = rng.choice((-1.0, 1.0), size=(REPLICATES, loss.size))
        noise = (signs * residual) @ smoother[:, : loss.size].T
        replicates += draws[:, index, None] * noise / len(used)
    mean = np.nanmean(curves, axis=0)
    replicates += draws @ np.where(np.isnan(curves), mean, curves) / len(used)
    furthest = max(range(len(used)), key=lambda index: points[index][0][-1])
    return Fit(
        log_lr=grid,
        loss=mean,
        replicates=replicates,
        noise=np.maximum(np.sqrt(variance), RESOLUTION * abs(initial)),
        ceiling=ceiling,
        per_decade=float(np.median([_density(log_lr) for log_lr, _ in points])),
        blew_up=_blew_up(used[furthest]),
    )


def local_quadratic(log_lr: Array, at: Array, bandwidth: float) -> Array:
    """Return the matrix that maps losses at `log_lr` (n,) to fitted values at `at` (m,): (m, n).

    Each row is the value at one point of the quadratic fitted by least squares with tricube
    weights of half-width `bandwidth`, or wide enough to hold `NEIGHBOURS` rates.
    """
    offset = log_lr - at[:, None]
    distance = np.abs(offset)
    nearest = np.partition(distance, min(NEIGHBOURS, log_lr.size) - 1, axis=1)
    width = np.maximum(bandwidth, 1.01 * nearest[:, min(NEIGHBOURS, log_lr.size) - 1])[:, None]
    scaled = offset / width
    tricube = np.clip(1 - np.abs(scaled * scaled * scaled), 0, None)
    weight = tricube * tricube * tricube  # NumPy's ** is slow for these
    moments, term = [], weight
    for _ in range(5):
        moments.append(term.sum(axis=1))
        term = term * scaled
    normal = np.array([[moments[row + column] for column in range(3)] for row in range(3)])
    normal = np.moveaxis(normal, 2, 0) + 1e-9 * moments[0][:, None, None] * np.eye(3)
    value = np.linalg.solve(normal, np.array([[1.0], [0.0], [0.0]]))[:, :, 0]  # (m, 3)
    rows = weight * (value[:, :1] + value[:, 1:2] * scaled + value[:, 2:] * scaled**2)
    result: Array = rows / rows.sum(axis=1, keepdims=True)  # the ridge must not touch constants
    return result


def _without_spikes(loss: Array) -> Array:
    """Replace each loss far from the median of its neighbourhood by that median (Hampel filter)."""
    median = _centred_median(loss)
    distance = np.abs(loss - median)
    scale = 1.4826 * np.median(distance[distance > 0]) if np.any(distance > 0) else 0.0
    return np.where(distance > SPIKE * scale, median, loss)


def _centred_median(loss: Array) -> Array:
    """Return the median of the steps around each; the first and the last loss are repeated."""
    padded = np.pad(loss, MEDIAN_WINDOW // 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, MEDIAN_WINDOW)
    result: Array = np.sort(windows, axis=1)[:, MEDIAN_WINDOW // 2]
    return result


def _blocks(log_lr: Array, loss: Array) -> Points:
    """Average neighbouring steps until at most `BLOCKS` points are left."""
    if log_lr.size <= BLOCKS:
        return log_lr, loss
    starts = np.linspace(0, log_lr.size, BLOCKS, endpoint=False).astype(int)
    counts = np.diff(np.append(starts, log_lr.size))
    return np.add.reduceat(log_lr, starts) / counts, np.add.reduceat(loss, starts) / counts


def _levels(losses: list[Array]) -> tuple[float, float, float]:
    """Return the initial loss, the best loss, and the standard deviation of one batch's noise."""
    initial = float(np.median([np.median(loss[:5]) for loss in losses]))
    best = min(float(_centred_median(loss).min()) for loss in losses)
    # the median of |a − b| is 0.954 standard deviations for two normal values a and b
    sigma = float(np.median([np.median(np.abs(np.diff(loss))) for loss in losses])) / 0.954
    return initial, best, sigma


def _of_heavy_tails(loss: Array) -> float:
    """Return the standard deviation of noise by its larger jumps, in the first half of a sweep.

    The same as by the median for normal noise; more where single samples outweigh their batch:
    their outliers would otherwise pass for a descent.
    """
    jumps = np.abs(np.diff(loss[: loss.size // 2]))
    return float(np.quantile(jumps, 0.9)) / 2.326  # 1.645 · √2, of a difference of normal values


def _blew_up(sweep: Sweep) -> bool:
    return sweep.stop_reason in {"diverged", "nan", "inf"}


def _beyond(log_lr: Array, end: float) -> Array:
    """Return the rates that a sweep would have reached, up to `end`, in strides of its last."""
    result: Array = np.arange(log_lr[-1], end + 1e-9, max(log_lr[-1] - log_lr[-2], 1e-3))[1:]
    return result


def _bandwidth(points: list[Points]) -> float:
    """Return the widest bandwidth whose generalised cross-validation score is near the least."""

    def score(bandwidth: float) -> float:
        total = 0.0
        for log_lr, loss in points:
            hat = local_quadratic(log_lr, log_lr, bandwidth)
            freedom = 1 - np.trace(hat) / loss.size
            total += float(np.mean((loss - hat @ loss) ** 2) / max(freedom, 1e-3) ** 2)
        return total

    scores = {bandwidth: score(bandwidth) for bandwidth in BANDWIDTHS}
    return max(b for b in BANDWIDTHS if scores[b] <= TOLERANCE * min(scores.values()))


def _grid(log_lrs: list[Array]) -> Array:
    """Return evenly spaced points within the sweeps, but none far from any rate."""
    rates = np.unique(np.concatenate(log_lrs))
    count = max(2, round((rates[-1] - rates[0]) * POINTS_PER_DECADE) + 1)
    grid = np.linspace(rates[0], rates[-1], count)
    after = np.clip(np.searchsorted(rates, grid), 1, rates.size - 1)
    distance = np.minimum(np.abs(grid - rates[after - 1]), np.abs(rates[after] - grid))
    swept = np.any([(grid > x[0] - 1e-9) & (grid < x[-1] + 1e-9) for x in log_lrs], axis=0)
    result: Array = grid[(distance <= GAP) & swept]
    return result


def _density(log_lr: Array) -> float:
    """Return steps per decade over the last decade of a sweep, where its rates matter."""
    first = int(np.searchsorted(log_lr, log_lr[-1] - 1))
    recent = log_lr[min(first, log_lr.size - 2) :]  # the last two may be further apart
    return float((recent.size - 1) / max(recent[-1] - recent[0], 1e-9))
