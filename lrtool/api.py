"""`find_lr`: the search of `lrtool find` for objects that the caller has."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from contextlib import closing
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from lrtool import __version__
from lrtool.components.schedules import SCHEDULES
from lrtool.config.schema import MAX_RATE, MIN_RATE
from lrtool.config.spelling import number
from lrtool.curve import race, trials
from lrtool.curve.suggest import METHODS
from lrtool.data import batches
from lrtool.engine import freeze
from lrtool.engine.device import DTYPES, Runtime, environment
from lrtool.engine.lightning import warn_of_hooks
from lrtool.engine.preserve import preserved
from lrtool.engine.step import forget_used, rate_ratios, set_rates
from lrtool.engine.stopwatch import Stopwatch
from lrtool.errors import LrtoolWarning, UserError, did_you_mean
from lrtool.report.records import DataFacts, Environment, ModelFacts, Timing
from lrtool.report.report import FindReport
from lrtool.search import arguments
from lrtool.search.object_ranks import meeting
from lrtool.search.object_subject import ObjectSubject, again
from lrtool.search.search import SearchPlan, run_search, search
from lrtool.show import words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from lrtool.engine.step import LossFunction
    from lrtool.report.records import Curve, Finding, Sweep, Verdict
    from lrtool.search.search import SearchResult
    from lrtool.show.plots.canvas import Plot

STAGES = {
    "trials": "a short training beside the estimate",
    "full trial": "a whole training at the estimate",
    "race": "the race",
}


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

        A schedule is built after this, for it may keep the rate that it finds.

        Raises:
            UserError: (a ValueError) there is no rate.
        """
        if self.lr is None:
            raise UserError(f"there is no rate to apply: {self.reason}")
        optimizer = arguments.one_optimizer(optimizer)
        ratios = rate_ratios(optimizer)
        set_rates(optimizer, ratios, self.lr)
        for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
            if "initial_lr" in group:  # what schedules multiply
                group["initial_lr"] = self.lr * ratio

    def plot(self, directory: Path | str | None = None) -> Plot:
        """Draw the sweep. With a directory, which is created, save plot.png and plot.svg there."""
        from lrtool.show.plots import find as find_plot  # noqa: PLC0415  (matplotlib)

        if directory is not None:
            folder = Path(os.path.expanduser(directory))  # noqa: PTH111  (a home may be unknown)
            folder.mkdir(parents=True, exist_ok=True)
            find_plot.save(self._report, folder)
        return find_plot.draw(self._report)

    def __str__(self) -> str:
        """Return rate, interval and verdict in one line."""
        return words.glance(self._report)

    def __repr__(self) -> str:
        """Return what a prompt shows."""
        return f"<FindResult: {self}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: rate, verdict, reason and the picture."""
        from lrtool.show import notebook  # noqa: PLC0415  (matplotlib)

        return notebook.html(self._report)


def find_lr(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Any,
    loss_fn: LossFunction | str | None,
    loader: Iterable[Any],
    *,
    validation: Iterable[Any] | None = None,
    start: float = 1e-7,
    end: float = 10.0,
    steps: int = 100,
    repeats: int = 1,
    verify: bool = False,
    mode: Literal["exponential", "linear"] = "exponential",
    method: str = "auto",
    schedule: str = "constant",
    for_steps: int | None = None,
    accumulate: int = 1,
    clip_norm: float | None = None,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    scaler: torch.amp.GradScaler | None = None,
    progress: bool = False,
) -> FindResult:
    """Find a learning rate for your objects, and leave them exactly as they were.

    This is the search of `lrtool find`: sweeps; two or three short trainings beside their estimate,
    which correct it (left out for a training of 3,000 steps or more, of which they say little,
    unless the sweeps show nothing or each sample is seen 30 times and more); a whole training of up
    to 300 steps, where it may overfit; and, with `verify`, a race. Two calls with the same seeds
    give the same result.

    Model, loss, optimizer and optimizers inside it, scaler, gradients, the loaders' generators and
    the random states of Python, NumPy and torch are restored to the last bit, also after an
    exception or Ctrl-C. Training afterwards is what it would have been without this call. This
    costs two copies of the model and of the optimizer's state, and one more while a whole training
    pauses, or for each candidate of a race that waits for its second half. Not restored: random
    generators and counters inside a dataset or on a module. An iterator is used up, and its batches
    are kept in memory.

    Where ranks share the model in DistributedDataParallel, all of them call this, and search
    together: the batch of an update is that of all ranks, and all get the same result.

    Args:
        model: on its device. A model in evaluation mode is trained in training mode.
        optimizer: over the model's parameters, and the loss's if it has any. The result is the rate
            of the first parameter group whose rate is not 0; the other groups keep their ratio to
            it. What Lightning's `configure_optimizers` returns is taken too, if it holds one.
        loss_fn: `loss(outputs, targets)`, a mean over its batch, or its name in a configuration.
            None for a model with a loss of
            its own: `training_loss(batch)`, Lightning's `training_step`, or Hugging Face's
            `.loss`.
        loader: yields batches, on each rank its own: `(inputs, targets)`, with more inputs before
            the targets, or a mapping with a key such as `targets` or `labels`. Either may have
            weights of samples.
        validation: likewise, of the validation set; of all of it on each rank, or of a part of its
            own. Trials and race are compared by its loss; without it by their last training losses.
        start: first rate, above 0.
        end: last rate, above `start`.
        steps: updates of a sweep, at least 2.
        repeats: number of sweeps, each over other batches.
        verify: race rates around the suggestion, to confirm or correct it: in short trainings, or
            whole ones of up to 300 steps.
        mode: "exponential" or "linear" spacing of the rates.
        method: "auto", or a rule of the literature: "valley", "slide", "steep", "minimum".
        schedule: of the training that the rate is for, such as "constant" or "one_cycle".
        for_steps: number of updates of that training.
        accumulate: batches for each update; the last update of a pass over `loader` may have fewer.
        clip_norm: gradients are scaled down to this 2-norm.
        precision: of the forward pass, by autocast.
        scaler: your gradient scaler for fp16; by default a new one.
        progress: show how far the search is: a bar on stderr or below a notebook's cell; a line
            every few seconds where neither is. The result is the same.

    Raises:
        UserError: (a ValueError) an argument is out of range, there are no batches or they do not
            fit the model, or something could not be restored.
        RankFailedError: another rank has failed, with its message.
        LostRankError: another rank has ended, or kept this one waiting for too long.

    Warns:
        LrtoolWarning: a trial or the race failed; the result is that of the search before it. Or
            something that was given is ignored.
    """
    # Check the arguments.
    steps, repeats, accumulate = index(steps), index(repeats), index(accumulate)
    counts = {"steps": steps, "repeats": repeats, "accumulate": accumulate}
    if for_steps is not None:
        for_steps = counts["for_steps"] = index(for_steps)
    _check_numbers(start, end, clip_norm, counts)
    _check_choice("mode", mode, ("exponential", "linear"))
    _check_choice("precision", precision, tuple(DTYPES))
    _check_choice("method", method, METHODS)
    _check_choice("schedule", schedule, tuple(SCHEDULES))

    arguments.check_model(model)
    model, wrapper = arguments.unwrapped(model)
    with meeting(wrapper) as met:  # with the other ranks, if the model is theirs too
        optimizer = arguments.one_optimizer(optimizer, schedule)
        loss_fn = arguments.check_loss(loss_fn, model)
        arguments.check_loader("loader", loader)
        if validation is not None:
            arguments.check_loader("validation", validation)
        device = _device_of(model)
        if torch.is_autocast_enabled(device.type):  # whose cached weights would be those before
            raise UserError(
                "find_lr is called inside of torch.autocast; call it outside, and say in which "
                'numbers to compute, as precision="bf16"'
            )
        arguments.check_optimized(model, optimizer, loss_fn)
        warn_of_hooks(model)
        plan = SearchPlan(
            start=float(start),
            end=float(end),
            steps=steps,
            mode=mode,
            repeats=repeats,
            method=method,
            verify=bool(verify),
            schedule=schedule,
            training=for_steps,
            passes=arguments.passes(loader, for_steps, accumulate),
            followed=arguments.followed(loader, validation, schedule),
        )
        if scaler is not None and scaler.is_enabled() and precision == "fp32":
            warnings.warn(
                "a gradient scaler is for fp16, and the search computes in fp32: give "
                'precision="fp16"',
                LrtoolWarning,
                stacklevel=2,
            )
        # The report names the arguments as a configuration does.
        config: dict[str, dict[str, Any]] = {
            "model": {"name": type(model).__name__},
            "optimizer": {"name": type(optimizer).__name__.lower()},
            "find": {
                "start": plan.start,
                "end": plan.end,
                "steps": steps,
                "repeats": repeats,
                "mode": mode,
                "method": method,
                "verify": plan.verify,
            },
            "train": {
                "schedule": {"name": schedule},
                "max_steps": for_steps,
                "accumulate": accumulate,
                "gradient_clip_norm": clip_norm,
            },
            "runtime": {"device": str(device), "precision": precision},
        }
        named = {f"{part}.{key}": each for part in config for key, each in config[part].items()}
        kinds = {"loss_fn": type(loss_fn).__name__, "validation": type(validation).__name__}
        met.compare({**named, **kinds})

        # Search, with everything put back at the end.
        runtime = Runtime(device, DTYPES[precision], own_statistics=True, ranks=met.ranks)
        machine = Environment(lrtool=__version__, **environment(runtime))
        scaler = scaler or runtime.scaler()
        loaders = [loader] if validation is None else [loader, validation]
        generators = batches.generators(*loaders)
        with (
            torch.inference_mode(mode=False),  # whatever the caller has set
            torch.enable_grad(),
            preserved(
                model,
                optimizer,
                loss_fn=loss_fn,
                scaler=scaler,
                loaders=loaders,
                generators=generators,
            ),
            closing(
                ObjectSubject(
                    plan=plan,
                    model=model,
                    optimizer=optimizer,
                    loss_fn=loss_fn,
                    scaler=scaler,
                    loader=again(loader),
                    validation=None if validation is None else again(validation),
                    runtime=runtime,
                    generators=generators,
                    accumulate=accumulate,
                    clip_norm=clip_norm,
                    wrapper=wrapper,
                )
            ) as subject,
        ):
            if progress and met.ranks.first:
                result = _shown_search(subject, plan)
            else:
                result = run_search(subject, plan, Stopwatch())
            if result.failure is None:
                forget_used(wrapper)

        # A failure after the sweeps costs a warning, not their rate.
        if result.failure is not None:
            failure = met.part(result.failure)
            if result.finding is None:
                raise failure
            warnings.warn(
                f"{STAGES.get(result.stage, 'the search')} failed ({type(failure).__name__}: "
                f"{failure}); the rate is that of the search before it",
                LrtoolWarning,
                stacklevel=2,
            )
        return _find_result(result, model, machine, config)


def _shown_search(subject: ObjectSubject, plan: SearchPlan) -> SearchResult:
    """Search to the end, and show how far it is."""
    from lrtool.show.terminal.find import Progress  # noqa: PLC0415  (rich)

    shown = Progress(
        repeats=plan.repeats,
        steps=plan.steps,
        trial_steps=trials.length(plan.training),
        race_steps=race.length(plan.training),
        training=plan.training,
    )
    with shown, closing(search(subject, plan, Stopwatch())) as rows:
        while True:
            try:
                shown.update(next(rows))
            except StopIteration as end:
                result: SearchResult = end.value
                return result


def _find_result(
    result: SearchResult, model: nn.Module, machine: Environment, config: dict[str, Any]
) -> FindResult:
    """Make the report that `lrtool find` would write."""
    finding = result.finding
    assert finding is not None, "a search that did not fail has a finding"
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    trained, frozen = freeze.parts(model)
    report = FindReport(
        status="no_suggestion" if finding.suggestion.lr is None else "completed",
        reason=finding.suggestion.reason,
        suggestion=finding.suggestion,
        suggestions=finding.suggestions,
        sweeps=result.sweeps,
        curve=finding.curve,
        first_update=result.first_update,
        trials=result.trials,
        full_trial=result.full_trial,
        race=result.race,
        config=config,
        config_hash=hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
        seed=None,
        data=DataFacts(
            samples={}, shapes={}, hash=None, samples_per_update=result.samples_per_update
        ),
        model=ModelFacts(
            name=type(model).__name__,
            parameters=sum(size for size, _ in sizes),
            trainable=sum(size for size, trainable in sizes if trainable),
            trained=trained,
            frozen=frozen,
        ),
        environment=machine,
        timing=Timing(**result.timing),
    )
    return FindResult(finding, result.sweeps, report)


def _check_numbers(
    start: float, end: float, clip_norm: float | None, counts: dict[str, int]
) -> None:
    given = f"start={number(start)}, end={number(end)}"
    if not 0 < start < end < float("inf"):
        raise UserError(f"start must be above 0 and below end, not {given}")
    if start < MIN_RATE or end > MAX_RATE:
        raise UserError(f"rates must lie between 1e-20 and 1e10, not {given}")
    if clip_norm is not None and not clip_norm > 0:
        raise UserError(f"clip_norm must be above 0, not {clip_norm}")
    for name, count in counts.items():
        least = 2 if name == "steps" else 1
        if count < least:
            raise UserError(f"{name} must be at least {least}, not {count}")


def _device_of(model: nn.Module) -> torch.device:
    """Return the model's device.

    Raises:
        UserError: there is nothing to train.
    """
    parameters = list(model.parameters())
    if not parameters:
        raise UserError("the model has no parameters, so there is nothing to train")
    if any(parameter.is_meta for parameter in parameters):
        raise UserError("the model is on the meta device, without weights; load or make them first")
    return parameters[0].device


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        raise UserError(f"{name} must be one of {', '.join(choices)}, not {value!r}{hint}")
