"""The result of `find_lr`: the rate, how far to trust it, the plot and the report."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrtool.config.spelling import number
from lrtool.engine.step import rate_ratios, set_rates
from lrtool.errors import UserError

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from lrtool.report.records import Curve, Finding, Sweep, Verdict
    from lrtool.report.report import FindReport


@dataclass(frozen=True, slots=True, repr=False)
class FindResult:
    """The result of `find_lr`.

    Attributes:
        finding: the suggestion, that of every method, and the smooth curve.
        sweeps: the raw losses; `loss[i]` is the loss before the update with `lr[i]`.
    """

    finding: Finding
    sweeps: tuple[Sweep, ...]
    _report: FindReport

    @property
    def lr(self) -> float | None:
        """The rate of the first parameter group; None when the verdict is "none"."""
        return self.finding.suggestion.lr

    @property
    def interval(self) -> tuple[float, float] | None:
        """An interval that contains good rates in about 80% of cases; None without a rate."""
        low, high = self.finding.suggestion.low, self.finding.suggestion.high
        return None if low is None or high is None else (low, high)

    @property
    def verdict(self) -> Verdict:
        """Whether to trust the rate: confident, uncertain or none."""
        return self.finding.suggestion.verdict

    @property
    def reason(self) -> str:
        """Why this verdict, in one sentence."""
        return self.finding.suggestion.reason

    @property
    def advice(self) -> tuple[str, ...]:
        """What to do next, a sentence each."""
        return self.finding.suggestion.advice

    @property
    def curve(self) -> Curve | None:
        """The smooth loss over the rate, with its band."""
        return self.finding.curve

    def report(self) -> dict[str, Any]:
        """Return what `lrtool find` writes to report.json, as plain data."""
        return self._report.model_dump(mode="json")

    def apply(self, optimizer: torch.optim.Optimizer) -> None:
        """Set an optimizer's rate; its parameter groups keep their ratios to the first one.

        Raises:
            UserError: (a ValueError) there is no rate.
        """
        if self.lr is None:
            raise UserError(f"there is no rate to apply: {self.reason}")
        ratios = rate_ratios(optimizer)
        set_rates(optimizer, ratios, self.lr)
        for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
            if "initial_lr" in group:  # what schedules multiply
                group["initial_lr"] = self.lr * ratio

    def plot(self, directory: Path | str | None = None) -> Figure:
        """Draw the sweep. With a directory, which is created, save plot.png and plot.svg there."""
        from lrtool.show.plots import find as find_plot  # noqa: PLC0415  (matplotlib)

        if directory is not None:
            Path(directory).mkdir(parents=True, exist_ok=True)
            find_plot.save(self._report, Path(directory))
        return find_plot.draw(self._report)

    def __str__(self) -> str:
        """Return rate, interval and verdict in one line."""
        if self.lr is None or self.interval is None:
            return f"no learning rate: {self.reason}"
        low, high = (number(end, 2) for end in self.interval)
        return f"learning rate {number(self.lr, 2)} ({low} to {high}), {self.verdict}"

    def __repr__(self) -> str:
        """Return what a prompt shows."""
        return f"<FindResult: {self}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: rate, verdict, reason and the picture."""
        png = io.BytesIO()
        self.plot().savefig(png, format="png", dpi=100)
        picture = base64.b64encode(png.getvalue()).decode()
        title, *texts = (html.escape(text) for text in (str(self), self.reason, *self.advice))
        return (
            f"<p>{'<br>'.join([f'<b>{title}</b>', *texts])}</p>"
            f'<img alt="{title}" style="max-width: 100%" src="data:image/png;base64,{picture}">'
        )
