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

from lrtool.components import import_path
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

# What outputs a loss takes. log rates: the logarithm of the mean of counts; scores: larger for what
# is likelier, without a probability; distances: smaller for what is likelier.
Outputs = Literal[
    "values", "log rates", "logits", "log-probabilities", "probabilities", "scores", "distances"
]


def _cross_entropy(
    outputs: Tensor,
    targets: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy; of outputs (B, C, T) that lie in memory as (B, T, C), without a copy."""
    if outputs.ndim > 2 and outputs.stride(1) == 1 and not targets.is_floating_point():
        outputs = outputs.movedim(1, -1).flatten(0, -2)
        targets = targets.flatten()
    return F.cross_entropy(
        outputs, targets, weight, ignore_index=ignore_index, label_smoothing=label_smoothing
    )


@dataclass(frozen=True, slots=True)
class LossEntry:
    """A loss that a configuration may name.

    Attributes:
        function: `function(outputs, targets, **args)`, as torch.nn.functional has them.
        takes: its targets.
        outputs: what it takes a model's outputs for.
        aliases: Keras's or short names.
        soft: takes a probability for each class as well as class indices.
        one_output: two classes are one output for it, and targets 0.0 and 1.0.
        for_logits: the loss to name to those whose outputs are logits, perhaps.
    """

    function: Callable[..., Tensor]
    takes: Takes
    outputs: Outputs
    aliases: tuple[str, ...] = ()
    soft: bool = False
    one_output: bool = False
    for_logits: str | None = None


LOSSES: dict[str, LossEntry] = {
    "cross_entropy": LossEntry(
        _cross_entropy,
        "classes",
        "logits",
        ("sparse_categorical_crossentropy", "categorical_crossentropy"),
        soft=True,
    ),
    "nll_loss": LossEntry(
        F.nll_loss, "classes", "log-probabilities", ("nll",), for_logits="cross_entropy"
    ),
    "multi_margin_loss": LossEntry(F.multi_margin_loss, "classes", "scores"),
    "mse_loss": LossEntry(F.mse_loss, "values", "values", ("mse", "mean_squared_error")),
    "l1_loss": LossEntry(F.l1_loss, "values", "values", ("l1", "mae", "mean_absolute_error")),
    "smooth_l1_loss": LossEntry(F.smooth_l1_loss, "values", "values", ("smooth_l1",)),
    "huber_loss": LossEntry(F.huber_loss, "values", "values", ("huber",)),
    "poisson_nll_loss": LossEntry(F.poisson_nll_loss, "values", "log rates"),
    "binary_cross_entropy_with_logits": LossEntry(
        # Keras's name, for the built-in models give logits as well.
        F.binary_cross_entropy_with_logits,
        "probabilities",
        "logits",
        ("bce_with_logits", "binary_crossentropy"),
        one_output=True,
    ),
    "binary_cross_entropy": LossEntry(
        F.binary_cross_entropy,
        "probabilities",
        "probabilities",
        ("bce",),
        one_output=True,
        for_logits="binary_cross_entropy_with_logits",
    ),
    "multilabel_soft_margin_loss": LossEntry(
        F.multilabel_soft_margin_loss, "probabilities", "logits"
    ),
    # torch's "mean" divides by the number of outputs as well, which is no mean over samples
    "kl_div": LossEntry(
        functools.partial(F.kl_div, reduction="batchmean"), "probabilities", "log-probabilities"
    ),
    "soft_margin_loss": LossEntry(F.soft_margin_loss, "signs", "logits"),
    "hinge_embedding_loss": LossEntry(F.hinge_embedding_loss, "signs", "distances"),
    "multilabel_margin_loss": LossEntry(F.multilabel_margin_loss, "label sets", "scores"),
}
ALIASES: dict[str, str] = {alias: name for name, loss in LOSSES.items() for alias in loss.aliases}

# Of torch's parameters those that a configuration does not fill, or fills with old spellings.
RESERVED = ("input", "target", "size_average", "reduce", "reduction")
_TENSORS = {"weight", "pos_weight"}  # lists of numbers in a configuration


def canonical(name: str) -> str:
    """Return torch's name for a loss, given torch's, Keras's or a short one."""
    return ALIASES.get(name, name)


def wants_binary(name: str) -> bool:
    """Tell whether two classes should be given to this loss as one output and targets 0.0, 1.0."""
    loss = LOSSES.get(canonical(name))
    return loss is not None and loss.one_output


def check_args(name: str, args: dict[str, Any]) -> list[Problem]:
    """Return what is wrong with a built-in loss's arguments, as `import_path.check_call` does."""
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
        if import_path.check_value(list[float], v)
    ]
    function = LOSSES[canonical(name)].function
    return problems + import_path.check_call(function, rest, given=RESERVED, positional=2)


def build_loss(component: ComponentConfig, directories: Sequence[Path]) -> Loss:
    """Return `loss(outputs, targets)`, a scalar tensor.

    Raises:
        UserError: an import path leads nowhere.
        ConfigError: what it leads to cannot be called.
    """
    args = component.args
    if import_path.is_import_path(component.name):
        found = import_path.resolve(component.name, directories)
        if inspect.isclass(found):  # a module such as torch.nn.HuberLoss
            try:
                found, args = found(**args), {}
            except (Exception, SystemExit) as error:
                problem = f"{component.name} cannot be built: {import_path.words(error)}"
                raise ConfigError(Problem(("loss",), problem)) from error
        if not callable(found):
            problem = f"{component.name} is a {type(found).__name__}; it cannot be called"
            raise ConfigError(Problem(("loss", "name"), problem))
        return functools.partial(found, **args) if args else found
    function: Callable[..., Tensor] = LOSSES[canonical(component.name)].function
    weights = {k: torch.tensor(v, dtype=torch.float32) for k, v in args.items() if k in _TENSORS}
    if weights:
        function = functools.partial(_weighted, function, weights)
    return functools.partial(function, **{k: v for k, v in args.items() if k not in _TENSORS})


def _weighted(
    function: Loss, weights: dict[str, Tensor], outputs: Tensor, targets: Tensor, **args: Any
) -> Tensor:
    weights = {name: weight.to(outputs) for name, weight in weights.items()}
    return function(outputs, targets, **weights, **args)


def fit_problem(name: str, loss: Loss, outputs: Any, targets: Any) -> str | None:
    """Say why a loss does not fit a real batch; None if it does.

    Args:
        name: as the configuration names it.
        loss: what `build_loss` made of it.
        outputs: what the model returned.
        targets: what the data hold.
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        if import_path.is_import_path(name):
            problem = _try(loss, outputs, targets)
            return None if problem is None else f"{name} {problem}"
        got = " and ".join(type(part).__name__ for part in (outputs, targets))
        return f"{name} compares two tensors, but outputs and targets are {got}"
    if import_path.is_import_path(name):
        problem = _try(loss, outputs, targets)
        return None if problem is None else f"{name} {problem}; {spell_both(outputs, targets)}"
    args = loss.keywords if isinstance(loss, functools.partial) else {}
    entry = LOSSES[canonical(name)]
    problem = _mismatch(entry, outputs, targets, args) or _try(loss, outputs, targets)
    if problem is None:
        return None
    fitting = [
        other
        for other, entry in LOSSES.items()
        if other != canonical(name)
        and _mismatch(entry, outputs, targets, {}) is None
        and _try(entry.function, outputs, targets) is None
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
        return f"failed: {import_path.words(error)}"
    if not isinstance(value, Tensor):
        return f"returned a {type(value).__name__}, not a tensor"
    if value.numel() != 1:
        return f"returned shape {tuple(value.shape)}, not a scalar; take the mean"
    return None


def _mismatch(  # noqa: C901, PLR0911  (a list of rules, the first broken one speaks)
    loss: LossEntry, outputs: Tensor, targets: Tensor, args: Mapping[str, Any]
) -> str | None:
    """Hold a built-in loss's rules against a batch."""
    takes = loss.takes
    if takes == "classes":
        if targets.is_floating_point():
            fits = loss.soft and _are_soft(outputs, targets)
            return None if fits else "takes class indices, not floats"
        problem = _classes(outputs, targets, ignored=args.get("ignore_index", -100))
        return problem or _wrong_outputs(loss, outputs)
    if takes == "label sets":
        fits = not targets.is_floating_point() and targets.shape == outputs.shape
        return None if fits else "takes rows of class indices, as many as there are outputs"
    if not targets.is_floating_point():
        return "takes targets that are floats, not class indices"
    if targets.shape != outputs.shape:
        return "takes targets of the outputs' shape"
    if loss.outputs == "log rates" and bool((targets < 0).any()):
        return "takes targets that are counts, and some of these are below 0"
    if takes == "signs" and not bool((targets.abs() == 1).all()):
        return "takes targets that are −1 or 1"
    if args.get("log_target"):  # kl_div's targets as logarithms
        if bool((targets > 0).any()):
            return "takes targets that are log-probabilities, and some of these are above 0"
    elif takes == "probabilities" and not bool(((targets >= 0) & (targets <= 1)).all()):
        return "takes targets between 0 and 1"
    return _wrong_outputs(loss, outputs)


def _wrong_outputs(loss: LossEntry, outputs: Tensor) -> str | None:
    other = loss.for_logits and f"for logits there is {loss.for_logits}"
    if loss.outputs == "probabilities" and not bool(((outputs >= 0) & (outputs <= 1)).all()):
        words = "takes outputs between 0 and 1, and these are not"
        return f"{words}; {other}" if other else words
    if loss.outputs == "log-probabilities" and not bool((outputs <= 0).all()):
        words = "takes outputs that are log-probabilities"
        return f"{words}; {other}" if other else f"{words}, and some of these are above 0"
    return None


def _are_soft(outputs: Tensor, targets: Tensor) -> bool:
    """Tell whether the targets are a probability for each class."""
    if targets.shape != outputs.shape or outputs.ndim < 2 or outputs.shape[1] < 2:
        return False
    return bool(((targets.sum(1) - 1).abs() < 1e-3).all() & (targets >= 0).all())


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
