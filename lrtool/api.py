"""The wiring for objects that the caller already has: the same engine, without a configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from lrtool import __version__
from lrtool.components import optimizers
from lrtool.components.schedules import SCHEDULES
from lrtool.config.schema import MAX_RATE, MIN_RATE
from lrtool.config.spelling import number
from lrtool.curve.suggest import METHODS, suggest
from lrtool.curve.trials import length
from lrtool.data import batches
from lrtool.engine import device as runtimes
from lrtool.engine.device import Runtime
from lrtool.engine.first_update import first_update
from lrtool.engine.preserve import preserved
from lrtool.engine.randomness import random_states
from lrtool.engine.step import make_step
from lrtool.engine.stopwatch import Stopwatch
from lrtool.engine.sweep import sweep, sweep_rates, to_sweep
from lrtool.errors import UserError, did_you_mean
from lrtool.report.records import Environment, ModelFacts, Timing
from lrtool.report.report import FindReport
from lrtool.search import object_trials
from lrtool.search.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.figure import Figure
    from torch import nn

    from lrtool.engine.step import LossFunction, Step
    from lrtool.report.records import Curve, Finding, Race, Sweep, Verdict


@dataclass(frozen=True, slots=True)
class FindResult:
    """What `find_lr` found.

    Attributes:
        finding: suggestion, every method's candidate, and the smooth curve.
        sweeps: the raw losses; `loss[i]` is before the update with `lr[i]`.
    """

    finding: Finding = field(repr=False)
    sweeps: tuple[Sweep, ...] = field(repr=False)
    _report: FindReport = field(repr=False)

    @property
    def lr(self) -> float | None:
        """The rate of the first parameter group; None when the verdict is "none"."""
        return self.finding.suggestion.lr

    @property
    def interval(self) -> tuple[float, float] | None:
        """An interval that reaches the good rates with about 80%; None for the verdict "none"."""
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

    def plot(self, directory: Path | str | None = None) -> Figure:
        """Draw the sweep, and save plot.png and plot.svg if a directory is given."""
        from lrtool.show.plots import find as plot  # noqa: PLC0415  (matplotlib, only for those who plot)

        if directory is not None:
            plot.save(self._report, Path(directory))
        return plot.draw(self._report)


def find_lr(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: LossFunction | None,
    loader: Iterable[Any],
    *,
    start: float = 1e-7,
    end: float = 10.0,
    steps: int = 100,
    repeats: int = 1,
    mode: Literal["exponential", "linear"] = "exponential",
    method: str = "auto",
    schedule: str = "constant",
    for_steps: int | None = None,
    accumulate: int = 1,
    clip_norm: float | None = None,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    scaler: torch.amp.GradScaler | None = None,
) -> FindResult:
    """Find a learning rate for objects that you have, and leave them exactly as they were.

    Besides the sweeps this makes two short trainings beside the estimate, which correct it: not
    for a training of 3,000 steps or more (`for_steps`), which they say little about, and not with
    an iterator as `loader`, whose batches come only once.

    Model, loss, optimizer, scaler, gradients, the loader's generator and the random states of
    Python, NumPy and torch are restored to the last bit, also after an exception or Ctrl-C, so
    training afterwards is what it would have been without this call. The cost is one copy of the
    model and the optimizer's state. What is not restored: a one-shot iterator given as `loader` is
    used up, and so are random generators and counters inside a dataset or on a module.

    Args:
        model: on its device. A model in evaluation mode is swept in training mode.
        optimizer: over the model's parameters. The rate found is that of the first parameter
            group whose rate is not 0; the other groups keep their ratio to it.
        loss_fn: `loss(outputs, targets)`, a mean over samples. None for a model with a loss of
            its own: `training_loss(batch)`, Lightning's `training_step`, or Hugging Face's
            `.loss`.
        loader: anything that yields batches, as often as needed: `(inputs, targets)`, more inputs
            before the targets, or a mapping with a key such as `targets` or `labels`.
        start: first rate, above 0.
        end: last rate, above `start`.
        steps: updates of a sweep, at least 2.
        repeats: sweeps, all from the present weights, over other batches.
        mode: "exponential" or "linear" distances between the rates.
        method: "auto", or a rule of the literature: "valley", "slide", "steep", "minimum".
        schedule: of the training that the rate is meant for, such as "constant" or "one_cycle".
        for_steps: how long that training is.
        accumulate: batches for each update.
        clip_norm: gradients are scaled down to this 2-norm.
        precision: of the forward pass, by autocast.
        scaler: your gradient scaler for fp16; a new one without.

    Raises:
        UserError: (a ValueError) an argument out of range, no batches, or batches that do not fit
            the model.
    """
    steps, repeats, accumulate = index(steps), index(repeats), index(accumulate)
    counts = {"steps": steps, "repeats": repeats, "accumulate": accumulate}
    if for_steps is not None:
        for_steps = counts["for_steps"] = index(for_steps)
    _check_numbers(start, end, clip_norm, counts)
    _check_choice("mode", mode, ("exponential", "linear"))
    _check_choice("precision", precision, tuple(runtimes.DTYPES))
    _check_choice("method", method, METHODS)
    _check_choice("schedule", schedule, tuple(SCHEDULES))
    runtime = Runtime(_device_of(model, optimizer, loss_fn), runtimes.DTYPES[precision])
    scaler = scaler or runtime.scaler()
    rates = sweep_rates(start, end, steps, mode)
    watch = Stopwatch()
    sweeps: list[Sweep] = []
    tried: Race | None = None
    generators = batches.generators(loader)

    def from_loader() -> Iterator[list[Any]]:
        return batches.micro_batches(batches.from_loader(loader, runtime.device), accumulate)

    def new_step() -> Step:
        if not model.training:
            model.train()
        step = make_step(model, loss_fn, optimizer, runtime, clip_norm=clip_norm, scaler=scaler)
        return watch.counted(step)

    with (
        torch.inference_mode(mode=False),  # whatever the caller has switched off
        torch.enable_grad(),
        preserved(
            model,
            optimizer,
            loss_fn=loss_fn,
            scaler=scaler,
            loader=loader,
            generators=generators,
        ) as restart,
    ):
        updates = from_loader()
        begin = next(updates)
        first = replace(
            first_update(new_step(), model, loss_fn, begin, runtime),
            opening=optimizers.opening(optimizer),
        )
        updates = chain([begin], updates)  # the first sweep sees those batches too
        for repeat in range(repeats):
            restart()
            rows = sweep(new_step(), updates, rates, repeat=repeat)
            sweeps.append(to_sweep(list(watch.timed(rows)), seed=repeat, planned=steps))
        named = partial(
            suggest,
            sweeps,
            first=first,
            method=method,
            optimizer=optimizers.kind(optimizer),
            family=optimizers.family(optimizer),
            schedule=schedule,
            steps=for_steps,
        )
        finding = named()
        if finding.trials is not None and not isinstance(loader, Iterator):
            random = random_states(generators)

            def runner(number: int, lr: float) -> Runner:
                restart()
                return Runner(
                    number=number,
                    lr=lr,
                    model=model,
                    loss_fn=loss_fn,
                    optimizer=optimizer,
                    step=new_step(),
                    schedule=object_trials.schedule_of(schedule, length(for_steps)),
                    generators=generators,
                    random=random,
                    epoch_random=random,
                )

            tried = object_trials.tried(
                finding.trials,
                length(for_steps),
                runner,
                lambda _number, _skip: from_loader(),
                watch,
                runtime=runtime,
                seed=repeats,
            )
            finding = named(tried=tried)
    arguments = {
        "model": {"name": type(model).__name__},
        "optimizer": {"name": type(optimizer).__name__.lower()},
        "find": {
            "start": float(start),
            "end": float(end),
            "steps": steps,
            "repeats": repeats,
            "mode": mode,
            "method": method,
        },
        "train": {
            "schedule": {"name": schedule},
            "max_steps": for_steps,
            "accumulate": accumulate,
            "gradient_clip_norm": clip_norm,
        },
        "runtime": {"device": str(runtime.device), "precision": precision},
    }
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    report = FindReport(
        status="no_suggestion" if finding.suggestion.lr is None else "completed",
        reason=finding.suggestion.reason,
        suggestion=finding.suggestion,
        suggestions=finding.suggestions,
        sweeps=tuple(sweeps),
        curve=finding.curve,
        first_update=first,
        trials=tried,
        config=arguments,
        config_hash=hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest(),
        seed=None,
        data=None,
        model=ModelFacts(
            name=type(model).__name__,
            parameters=sum(size for size, _ in sizes),
            trainable=sum(size for size, trainable in sizes if trainable),
        ),
        environment=Environment(lrtool=__version__, **runtimes.environment(runtime.device)),
        timing=Timing(**watch.timing()),
    )
    return FindResult(finding, tuple(sweeps), report)


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


def _device_of(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss_fn: LossFunction | None
) -> torch.device:
    """Return where the model lives, if there is something in it to train."""
    parameters = list(model.parameters())
    if not parameters:
        raise UserError("the model has no parameters, so there is nothing to train")
    if any(parameter.is_meta for parameter in parameters):
        raise UserError("the model is on the device meta, without weights; load or make them first")
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    own = [*parameters, *(loss_fn.parameters() if isinstance(loss_fn, torch.nn.Module) else [])]
    if not any(id(parameter) in trained for parameter in own):
        raise UserError("the optimizer has no parameter of this model; build it from this model's")
    return parameters[0].device


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        hint = did_you_mean(value, choices)
        raise UserError(f"{name} must be one of {', '.join(choices)}, not {value!r}{hint}")
