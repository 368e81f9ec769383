"""Losses: torch.nn.functional's by their names, Keras's names for them, or an import path.

Each is the mean over samples that gradient descent minimises; mean squared error, for instance, is
the sum of squared errors over N.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lrtool.components import import_path as lookup
from lrtool.config.spelling import spell
from lrtool.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lrtool.config.schema import ComponentConfig

Loss = Callable[[Tensor, Tensor], Tensor]

# What targets a loss takes. values: floats of the outputs' shape; classes: one index for each
# prediction; probabilities: floats in [0, 1] of the outputs' shape; signs: −1 and 1 likewise;
# label sets: rows of class indices, ended by −1.
Takes = Literal["values", "classes", "probabilities", "signs", "label sets"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A loss of torch.nn.functional: its function, its targets, and Keras's or short names."""

    function: Callable[..., Tensor]
    takes: Takes
    aliases: tuple[str, ...] = ()


LOSSES: dict[str, Kind] = {
    "cross_entropy": Kind(
        F.cross_entropy, "classes", ("sparse_categorical_crossentropy", "categorical_crossentropy")
    ),
    "nll_loss": Kind(F.nll_loss, "classes", ("nll",)),
    "multi_margin_loss": Kind(F.multi_margin_loss, "classes"),
    "mse_loss": Kind(F.mse_loss, "values", ("mse", "mean_squared_error")),
    "l1_loss": Kind(F.l1_loss, "values", ("l1", "mae", "mean_absolute_error")),
    "smooth_l1_loss": Kind(F.smooth_l1_loss, "values", ("smooth_l1",)),
    "huber_loss": Kind(F.huber_loss, "values", ("huber",)),
    "poisson_nll_loss": Kind(F.poisson_nll_loss, "values"),
    "binary_cross_entropy_with_logits": Kind(
        # Keras's name, for the built-in models give logits as well.
        F.binary_cross_entropy_with_logits,
        "probabilities",
        ("bce_with_logits", "binary_crossentropy"),
    ),
    "binary_cross_entropy": Kind(F.binary_cross_entropy, "probabilities", ("bce",)),
    "multilabel_soft_margin_loss": Kind(F.multilabel_soft_margin_loss, "probabilities"),
    # torch's "mean" divides by the number of outputs as well, which is no mean over samples
    "kl_div": Kind(functools.partial(F.kl_div, reduction="batchmean"), "probabilities"),
    "soft_margin_loss": Kind(F.soft_margin_loss, "signs"),
    "hinge_embedding_loss": Kind(F.hinge_embedding_loss, "signs"),
    "multilabel_margin_loss": Kind(F.multilabel_margin_loss, "label sets"),
}
ALIASES: dict[str, str] = {alias: name for name, kind in LOSSES.items() for alias in kind.aliases}

# Of torch's parameters those that a configuration does not fill, or fills with old spellings.
RESERVED = ("input", "target", "size_average", "reduce", "reduction")
_TENSORS = {"weight", "pos_weight"}  # lists of numbers in a configuration


def canonical(name: str) -> str:
    """Return torch's name for a loss, given torch's, Keras's or a short one."""
    return ALIASES.get(name, name)


def wants_binary(name: str) -> bool:
    """Tell whether two classes should be given to this loss as one output and targets 0.0, 1.0."""
    return canonical(name) in {"binary_cross_entropy", "binary_cross_entropy_with_logits"}


def check_args(name: str, args: dict[str, Any]) -> list[Problem]:
    """Return what is wrong with a built-in loss's arguments, as `lookup.check_call` does."""
    problems = [
        Problem((reserved,), "is not for a configuration: a loss here is a mean over samples")
        for reserved in RESERVED
        if reserved in args
    ]
    rest = {k: v for k, v in args.items() if k not in RESERVED}
    # torch annotates these as tensors; lists of numbers are what a file can hold.
    numbers = {k: v for k, v in rest.items() if k in _TENSORS}
    problems += [
        Problem((k,), f"must be a list of numbers, not {spell(v)}")
        for k, v in numbers.items()
        if lookup.check_value(list[float], v)
    ]
    return problems + lookup.check_call(LOSSES[canonical(name)].function, rest, given=RESERVED)


def build_loss(component: ComponentConfig, directories: Sequence[Path]) -> Loss:
    """Return `loss(outputs, targets)`, a scalar tensor.

    Raises:
        UserError: an import path leads nowhere.
        ConfigError: what it leads to cannot be called.
    """
    args = component.args
    if lookup.is_import_path(component.name):
        found = lookup.resolve(component.name, directories)
        if inspect.isclass(found):  # a module such as torch.nn.HuberLoss
            try:
                found, args = found(**args), {}
            except (Exception, SystemExit) as error:
                problem = f"{component.name} cannot be built: {lookup.words(error)}"
                raise ConfigError(Problem(("loss",), problem)) from error
        if not callable(found):
            problem = f"{component.name} is a {type(found).__name__}; it cannot be called"
            raise ConfigError(Problem(("loss", "name"), problem))
        return functools.partial(found, **args) if args else found
    name = canonical(component.name)
    function: Callable[..., Tensor] = LOSSES[name].function
    if name == "cross_entropy":
        function = _cross_entropy
    weights = {k: torch.tensor(v, dtype=torch.float32) for k, v in args.items() if k in _TENSORS}
    if weights:
        function = functools.partial(_weighted, function, weights)
    return functools.partial(function, **{k: v for k, v in args.items() if k not in _TENSORS})


def _weighted(
    function: Loss, weights: dict[str, Tensor], outputs: Tensor, targets: Tensor, **args: Any
) -> Tensor:
    weights = {name: weight.to(outputs) for name, weight in weights.items()}
    return function(outputs, targets, **weights, **args)


def _cross_entropy(outputs: Tensor, targets: Tensor, **args: Any) -> Tensor:
    """Cross-entropy; of outputs (B, C, T) that lie in memory as (B, T, C), without a copy."""
    if outputs.ndim > 2 and outputs.stride(1) == 1 and not targets.is_floating_point():
        outputs = outputs.movedim(1, -1).flatten(0, -2)
        targets = targets.flatten()
    return F.cross_entropy(outputs, targets, **args)


def fit_problem(name: str, loss: Loss, outputs: Any, targets: Any) -> str | None:
    """Say why a loss does not fit a real batch; None if it does.

    Args:
        name: as the configuration names it.
        loss: what `build_loss` made of it.
        outputs: what the model returned.
        targets: what the data hold.
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        if lookup.is_import_path(name):
            problem = _try(loss, outputs, targets)
            return None if problem is None else f"{name} {problem}"
        got = " and ".join(type(part).__name__ for part in (outputs, targets))
        return f"{name} compares two tensors, but outputs and targets are {got}"
    if lookup.is_import_path(name):
        problem = _try(loss, outputs, targets)
        return None if problem is None else f"{name} {problem}; {spell_both(outputs, targets)}"
    args = loss.keywords if isinstance(loss, functools.partial) else {}
    problem = _mismatch(canonical(name), outputs, targets, args) or _try(loss, outputs, targets)
    if problem is None:
        return None
    fitting = [
        other
        for other, kind in LOSSES.items()
        if other != canonical(name)
        and _mismatch(other, outputs, targets, {}) is None
        and _try(kind.function, outputs, targets) is None
    ]
    advice = f"losses that fit: {', '.join(fitting)}" if fitting else "no built-in loss fits these"
    return f"{name} {problem}; {spell_both(outputs, targets)}; {advice}"


def spell_both(outputs: Tensor, targets: Tensor) -> str:
    """Spell shapes and types of a batch."""
    parts = (("outputs", outputs), ("targets", targets))
    return ", ".join(f"{what} {tuple(t.shape)} {str(t.dtype)[6:]}" for what, t in parts)


def _try(loss: Callable[..., Any], outputs: Any, targets: Any) -> str | None:
    try:
        with torch.no_grad():
            value = loss(outputs, targets)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (whatever torch or the user's function says)
        return f"failed: {lookup.words(error)}"
    if not isinstance(value, Tensor):
        return f"returned a {type(value).__name__}, not a tensor"
    if value.numel() != 1:
        return f"returned shape {tuple(value.shape)}, not a scalar; take the mean"
    return None


def _mismatch(  # noqa: C901, PLR0911, PLR0912  (a list of rules, the first broken one speaks)
    name: str, outputs: Tensor, targets: Tensor, args: Mapping[str, Any]
) -> str | None:
    """Hold a built-in loss's rules against a batch."""
    takes = LOSSES[name].takes
    if takes == "classes":
        if targets.is_floating_point():
            return _soft_classes(name, outputs, targets)
        problem = _classes(outputs, targets, ignored=args.get("ignore_index", -100))
        if problem is None and name == "nll_loss" and not bool((outputs <= 0).all()):
            return "takes outputs that are log-probabilities; for logits there is cross_entropy"
        return problem
    if takes == "label sets":
        fits = not targets.is_floating_point() and targets.shape == outputs.shape
        return None if fits else "takes rows of class indices, as many as there are outputs"
    if not targets.is_floating_point():
        return "takes targets that are floats, not class indices"
    if targets.shape != outputs.shape:
        return "takes targets of the outputs' shape"
    if name == "poisson_nll_loss" and bool((targets < 0).any()):
        return "takes targets that are counts, and some of these are below 0"
    if takes == "signs" and not bool((targets.abs() == 1).all()):
        return "takes targets that are −1 or 1"
    if args.get("log_target"):  # kl_div's targets as logarithms
        if bool((targets > 0).any()):
            return "takes targets that are log-probabilities, and some of these are above 0"
    elif takes == "probabilities" and not bool(((targets >= 0) & (targets <= 1)).all()):
        return "takes targets between 0 and 1"
    if name == "binary_cross_entropy" and not bool(((outputs >= 0) & (outputs <= 1)).all()):
        return (
            "takes outputs between 0 and 1, and these are not; for logits there is "
            "binary_cross_entropy_with_logits"
        )
    if name == "kl_div" and not bool((outputs <= 0).all()):
        return "takes outputs that are log-probabilities, and some of these are above 0"
    return None


def _soft_classes(name: str, outputs: Tensor, targets: Tensor) -> str | None:
    """Cross-entropy also takes a probability for each class."""
    if name == "cross_entropy" and targets.shape == outputs.shape and outputs.ndim > 1:
        sums = targets.sum(1)
        if outputs.shape[1] > 1 and bool(((sums - 1).abs() < 1e-3).all() & (targets >= 0).all()):
            return None
    return "takes class indices, not floats"


def _classes(outputs: Tensor, targets: Tensor, *, ignored: int) -> str | None:
    if outputs.ndim < 2 or outputs.shape[:1] + outputs.shape[2:] != targets.shape:
        if outputs.ndim > 2 and outputs.shape[:-1] == targets.shape:
            return (
                "takes outputs with the classes in the second dimension: "
                "return outputs.transpose(1, -1)"
            )
        return "takes one class index for each prediction"
    counted = targets[targets != ignored]
    if counted.numel() == 0:
        return None
    low, high, classes = int(counted.min()), int(counted.max()), outputs.shape[1]
    if low < 0 or high >= classes:
        return f"takes class indices from 0 to {classes - 1}, and these go from {low} to {high}"
    return None
