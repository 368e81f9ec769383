"""What lrtool does of its own accord gives way before the user is blamed.

channels_last, fused optimizers, data on the device and evaluation without gradients save time or
memory, and a sound model may not bear them. Where a try of one batch fails with them and works
without, the plain way is taken, with a warning. Where the user asked for it, that is an error.
"""

from __future__ import annotations

import traceback
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from lrtool.components import import_path, optimizers
from lrtool.config.document import located
from lrtool.data.load import to_device
from lrtool.data.part import Resident
from lrtool.engine.device import is_out_of_memory
from lrtool.errors import (
    ConfigError,
    LockstepError,
    LrtoolError,
    LrtoolWarning,
    Problem,
    RankFailedError,
    key_path,
)
from lrtool.experiment.failures import explain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lrtool.errors import KeyPath
    from lrtool.experiment.experiment import Experiment

Result = TypeVar("Result")


class PreflightError(Exception):
    """A part of the preflight failed.

    Attributes:
        failed: which part: the start of a message, up to its colon.
        error: what the user's code, or torch, raised.
    """

    def __init__(self, failed: str, error: Exception | SystemExit) -> None:
        super().__init__(failed)
        self.failed = failed
        self.error = error


@contextmanager
def part(failed: str) -> Iterator[None]:
    """Name a part of the preflight, for the message if it fails."""
    try:
        yield
    except LrtoolError:
        raise
    except (Exception, SystemExit) as error:
        raise PreflightError(failed, error) from error


@dataclass(frozen=True, slots=True)
class Fallback:
    """A plain way that can take the place of something in effect.

    Attributes:
        name: what is in effect.
        instead: the plain way, as a sentence.
        without: returns the experiment with the plain way.
        key: of the setting, if the user asked for what is in effect; else None.
    """

    name: str
    instead: str
    without: Callable[[Experiment], Experiment]
    key: KeyPath | None = None


def settled(
    experiment: Experiment, try_batch: Callable[[Experiment], Result]
) -> tuple[Experiment, Result]:
    """Return the experiment with the plain ways that it needs, and what `try_batch` returns for it.

    Args:
        experiment: as it was opened.
        try_batch: makes the preflight; each part of it is named by `part`.

    Raises:
        UserError: it fails in the plain ways too, or because of what the user asked for.
        OutOfMemoryError: likewise, for lack of memory.

    Warns:
        LrtoolWarning: for each plain way that is taken.
    """
    if experiment.runtime.ranks.several:
        try_batch = _by_all_ranks(try_batch)
    try:
        return experiment, try_batch(experiment)
    except LockstepError:  # nothing may be exchanged any more
        raise
    except PreflightError as error:
        first = error
    except LrtoolError as error:  # such as a loss that fails, which may need contiguous outputs
        first = PreflightError("", error)
    _free(first)
    fallbacks = list(_in_effect(experiment))
    if experiment.runtime.ranks.any(flag=is_out_of_memory(first.error)):
        fallbacks = [each for each in fallbacks if each.without is _from_the_host]
    tried = _tried(experiment, try_batch, fallbacks) if fallbacks else first
    if isinstance(tried, PreflightError):  # what a plain loop raises is the user's to mend
        failure = explain(experiment, tried.error, tried.failed)
        raise failure from (None if failure is tried.error else tried.error)

    # All of them together help; which ones are needed?
    needed: list[tuple[Fallback, PreflightError]] = []
    rest = list(fallbacks)
    for fallback in fallbacks:
        others = [each for each in rest if each is not fallback]
        found = _tried(experiment, try_batch, others) if others else first
        if isinstance(found, PreflightError):
            needed.append((fallback, found))
        else:
            rest, tried = others, found
    _report(experiment, needed)
    return tried


def _by_all_ranks(try_batch: Callable[[Experiment], Result]) -> Callable[[Experiment], Result]:
    """Return a try that fails on all ranks where it fails on one: they take the same plain ways."""

    def tried(experiment: Experiment) -> Result:
        result: list[Result] = []
        try:
            experiment.runtime.ranks.by_each(lambda: result.append(try_batch(experiment)))
        except RankFailedError as error:
            raise PreflightError("", error) from error
        return result[0]

    return tried


def _tried(
    experiment: Experiment,
    try_batch: Callable[[Experiment], Result],
    fallbacks: Sequence[Fallback],
) -> tuple[Experiment, Result] | PreflightError:
    """Try with these plain ways; return the experiment and the result, or why it failed."""
    for fallback in fallbacks:
        experiment = fallback.without(experiment)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the first try has given them
        try:
            return experiment, try_batch(experiment)
        except LockstepError:
            raise
        except PreflightError as error:
            return _free(error)
        except LrtoolError as error:
            return PreflightError("", error)


def _free(failure: PreflightError) -> PreflightError:
    """Free the model and the batch that the frames of a failure hold."""
    traceback.clear_frames(failure.__traceback__)
    traceback.clear_frames(failure.error.__traceback__)
    return failure


def _report(experiment: Experiment, needed: Sequence[tuple[Fallback, PreflightError]]) -> None:
    problems = []
    for fallback, failure in needed:
        error = failure.error
        why = str(error) if isinstance(error, LrtoolError) else import_path.words(error)
        why = why.partition("\n")[0]
        if fallback.key is not None:
            problem = f"{fallback.name} fails here, and without it all goes well: {why}"
            problems.append(Problem(fallback.key, problem))
            continue
        warnings.warn(
            f"{fallback.name} fails here ({why}): {fallback.instead}", LrtoolWarning, stacklevel=4
        )
    if problems:
        with located(experiment.document):
            raise ConfigError(*problems)


def _in_effect(experiment: Experiment) -> Iterator[Fallback]:
    """Yield what may give way, the likely ones last: they are tried alone at the end."""
    config, data = experiment.config, experiment.data
    parts = [each for each in (data.train, data.validation) if isinstance(each, Resident)]
    if any(each.inputs.device.type != "cpu" for each in parts):
        instead = "each batch is moved to the device"
        yield Fallback("holding the data on the device", instead, _from_the_host)
    if config.runtime.compile:
        yield Fallback("compiling the model", "", _not_compiled, ("runtime", "compile"))
    optimizer = config.optimizer.inner or config.optimizer
    path = ("optimizer", "inner") if config.optimizer.inner else ("optimizer",)
    asked = optimizer.args.get("fused") is True
    if asked or optimizers.fuses(optimizer, experiment.directories):
        key = (*path, "args", "fused")
        yield Fallback(
            f"the fused {optimizer.name}",
            f"its plain implementation is used ({key_path(key)}: false)",
            _not_fused,
            key if asked else None,
        )
    if not experiment.runtime.gradients:
        instead = "the model is evaluated with gradients switched on"
        yield Fallback("evaluation without gradients", instead, _with_gradients)
    if config.runtime.memory_format != "contiguous":
        yield Fallback(
            "channels_last",
            "memory stays contiguous (runtime.memory_format: contiguous)",
            _contiguous,
            None if config.runtime.memory_format == "auto" else ("runtime", "memory_format"),
        )


def _from_the_host(experiment: Experiment) -> Experiment:
    return replace(experiment, data=to_device(experiment.data, torch.device("cpu"), None))


def _not_compiled(experiment: Experiment) -> Experiment:
    runtime = replace(experiment.runtime, compile=False)
    return _with_setting(replace(experiment, runtime=runtime), "runtime", compile=False)


def _not_fused(experiment: Experiment) -> Experiment:
    inner = experiment.config.optimizer.inner
    if inner is not None:
        args = {**inner.args, "fused": False}
        return _with_setting(experiment, "optimizer", inner=inner.model_copy(update={"args": args}))
    args = {**experiment.config.optimizer.args, "fused": False}
    return _with_setting(experiment, "optimizer", args=args)


def _with_gradients(experiment: Experiment) -> Experiment:
    return replace(experiment, runtime=replace(experiment.runtime, gradients=True))


def _contiguous(experiment: Experiment) -> Experiment:
    runtime = replace(experiment.runtime, memory_format="contiguous")
    data = to_device(experiment.data, None, torch.contiguous_format)
    return _with_setting(
        replace(experiment, runtime=runtime, data=data), "runtime", memory_format="contiguous"
    )


def _with_setting(experiment: Experiment, section: str, **values: Any) -> Experiment:
    """Change keys of the configuration, so that the run's own file has what is in effect."""
    config = experiment.config
    changed = getattr(config, section).model_copy(update=values)
    return replace(experiment, config=config.model_copy(update={section: changed}))
