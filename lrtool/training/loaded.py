"""`lrtool.load`: a run in Python, its report and, of a training, its model."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lrtool.errors import UserError
from lrtool.report import marker, run_directory
from lrtool.report import report as reports
from lrtool.report.runs import name_of, resolve
from lrtool.show import notebook, words

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from lrtool.config.schema import Config
    from lrtool.data.encoding import Encoding
    from lrtool.engine.device import Runtime
    from lrtool.report.report import AnyReport
    from lrtool.training.predictions import Predictions
    from lrtool.training.trained import Trained

Which = Literal["best", "last"]


class Run:
    """A run: `report` is what it found, and of a training there is the model.

    In place of `run.report.epochs`, `run.epochs` will do, as for all that the report has under a
    name that is not the run's own. The model is loaded when it is first asked for.

    Attributes:
        directory: of the run.
    """

    def __init__(
        self, directory: Path, report: AnyReport | None, checkpoint: Which | None, device: str
    ) -> None:
        self.directory = directory
        self._report = report
        self._checkpoint = checkpoint
        self._device = device

    @property
    def report(self) -> AnyReport:
        """What report.json holds: a `FindReport` or a `TrainReport`.

        Raises:
            UserError: it has none yet.
        """
        if self._report is None:
            raise UserError(
                f"{self.directory}: has no {reports.FILE_NAME}: the run is under way, or was killed"
            )
        return self._report

    @cached_property
    def trained(self) -> Trained:
        """The trained model, with its encoding.

        Raises:
            UserError: the run has no weights, or a file of it is damaged.
            OutOfMemoryError: the model does not fit in memory.
        """
        from lrtool.training.trained import load_trained  # noqa: PLC0415  (torch)

        return load_trained(self.directory, self._checkpoint, self._device)

    @property
    def model(self) -> nn.Module:
        """The model with its weights, on the device, in evaluation mode."""
        return self.trained.model

    @property
    def encoding(self) -> Encoding:
        """What the run learned of its training data."""
        return self.trained.encoding

    @property
    def config(self) -> Config:
        """The configuration of a training; of any run, `report.config` has it as plain data."""
        return self.trained.config

    @property
    def runtime(self) -> Runtime:
        """Device and precision."""
        return self.trained.runtime

    def inputs(self, data: Any) -> Tensor:
        """Return data as the model's inputs; see `Trained.inputs`."""
        return self.trained.inputs(data)

    def predict(self, data: Any) -> Predictions:
        """Return predictions for data; see `Trained.predict`."""
        return self.trained.predict(data)

    def __call__(self, data: Any) -> Tensor:
        """Return the model's outputs for data; see `Trained`."""
        return self.trained(data)

    def plot(self) -> Figure | None:
        """Return the plot of the report; None where nothing was measured."""
        return notebook.draw(self.report)

    def __getattr__(self, name: str) -> Any:
        """Return what the report has under that name."""
        if name.startswith("_") or self._report is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._report, name)

    def __dir__(self) -> list[str]:
        """Return what can be completed."""
        fields = type(self._report).model_fields if self._report is not None else ()
        return sorted({*super().__dir__(), *fields})

    def __repr__(self) -> str:
        """Return what a prompt shows."""
        name = name_of(self.directory)
        if self._report is None:
            return f"<Run {name}: without a report>"
        return f"<Run {name}: {words.glance(self._report)}>"

    def _repr_html_(self) -> str | None:
        """Return what a notebook shows: the result in words, and the plot."""
        return None if self._report is None else notebook.html(self._report)


def load(run: str | os.PathLike[str], checkpoint: Which | None = None, device: str = "cpu") -> Run:
    """Load a run: its report and, of a training, its model.

    The training data need not be there. Random states stay as they are.

    Args:
        run: the directory of a run, or its name below `runs/`.
        checkpoint: "best" or "last"; None for the best weights if there are any, else the last.
        device: of the model: auto, cpu, mps, cuda or cuda:N.

    Raises:
        UserError: (a ValueError) there is no such run, or its report is damaged or comes from a
            newer lrtool.
    """
    if checkpoint not in {None, "best", "last"}:
        raise UserError(f"{run}: the checkpoint must be best or last, not {checkpoint!r}")
    if device != "cpu":
        from lrtool.engine.device import choose_device  # noqa: PLC0415  (torch)

        choose_device(device)
    directory = resolve(Path(os.path.expanduser(run)))  # noqa: PTH111  (as in `find_file`)
    if directory.name == reports.FILE_NAME and directory.is_file():
        directory = directory.parent
    run_directory.settle(directory)
    path = directory / reports.FILE_NAME
    if path.exists():
        return Run(directory, reports.read(path), checkpoint, device)
    if marker.command_of(directory) in reports.KINDS:
        return Run(directory, None, checkpoint, device)
    raise UserError(f"{directory}: holds no run; there is no {path}")
