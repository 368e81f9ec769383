"""Losses: those of torch.nn.functional, under torch's or Keras's names, or an import path.

Each is a mean over the samples of a batch: over all of their elements, or over the targets that are
not ignored.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrtool.components import import_path
from lrtool.config.spelling import spell
from lrtool.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lrtool.config.schema import ComponentConfig, LossConfig

Loss = Callable[[Tensor, Tensor], Tensor]

# The targets of a loss. values: floats of the outputs' shape; classes: a class index for each
# prediction; probabilities: floats in [0, 1] of the outputs' shape; signs: −1 or 1, of the outputs'
# shape; label sets: rows of class indices, ended by −1.
Takes = Literal["values", "classes", "probabilities", "signs", "label sets"]

# The outputs that a loss takes. log rates: log of the expected count; scores: higher for likelier
# classes, but not probabilities; distances: lower for likelier ones.
Outputs = Literal[
    "values", "log rates", "logits", "log-probabilities", "probabilities", "scores", "distances"
]


@functools.wraps(F.cross_entropy, assigned=(), updated=())  # which it computes
def _cross_entropy(
    outputs: Tensor,
    targets: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    *,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy that does not copy outputs (B, C, T) stored as (B, T, C)."""
    shape = targets.shape
    flat = outputs.ndim > 2 and outputs.stride(1) == 1 and not targets.is_floating_point()
    if flat:
        outputs = outputs.movedim(1, -1).flatten(0, -2)
        targets = targets.flatten()
    loss = F.cross_entropy(
        outputs,
        targets,
        weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
    )
    return loss.reshape(shape) if flat and reduction == "none" else loss


@dataclass(frozen=True, slots=True)
class LossEntry:
    """A loss that a configuration may name.

    Attributes:
        function: `function(outputs, targets, **args)`.
        takes: the kind of targets.
        outputs: the kind of outputs.
        aliases: Keras's names and short ones.
        soft: also takes a probability for each class as targets.
        one_output: two classes are a single output, with targets 0.0 and 1.0.
        for_logits: the loss to recommend when outputs look like logits.
        module: the same loss in torch.nn.
    """

    function: Callable[..., Tensor]
    takes: Takes
    outputs: Outputs
    aliases: tuple[str, ...] = ()
    soft: bool = False
    one_output: bool = False
    for_logits: str | None = None
    module: type[nn.Module] | None = None


LOSSES: dict[str, LossEntry] = {
    "cross_entropy": LossEntry(
        _cross_entropy,
        "classes",
        "logits",
        ("sparse_categorical_crossentropy", "categorical_crossentropy"),
        soft=True,
        module=nn.CrossEntropyLoss,
    ),
    "nll_loss": LossEntry(
        F.nll_loss,
        "classes",
        "log-probabilities",
        ("nll",),
        for_logits="cross_entropy",
        module=nn.NLLLoss,
    ),
    "multi_margin_loss": LossEntry(
        F.multi_margin_loss, "classes", "scores", module=nn.MultiMarginLoss
    ),
    "mse_loss": LossEntry(
        F.mse_loss, "values", "values", ("mse", "mean_squared_error"), module=nn.MSELoss
    ),
    "l1_loss": LossEntry(
        F.l1_loss, "values", "values", ("l1", "mae", "mean_absolute_error"), module=nn.L1Loss
    ),
    "smooth_l1_loss": LossEntry(
        F.smooth_l1_loss, "values", "values", ("smooth_l1",), module=nn.SmoothL1Loss
    ),
    "huber_loss": LossEntry(F.huber_loss, "values", "values", ("huber",), module=nn.HuberLoss),
    "poisson_nll_loss": LossEntry(
        F.poisson_nll_loss, "values", "log rates", module=nn.PoissonNLLLoss
    ),
    "binary_cross_entropy_with_logits": LossEntry(
        # Keras's binary_crossentropy, for the built-in models return logits.
        F.binary_cross_entropy_with_logits,
        "probabilities",
        "logits",
        ("bce_with_logits", "binary_crossentropy"),
        one_output=True,
        module=nn.BCEWithLogitsLoss,
    ),
    "binary_cross_entropy": LossEntry(
        F.binary_cross_entropy,
        "probabilities",
        "probabilities",
        ("bce",),
        one_output=True,
        for_logits="binary_cross_entropy_with_logits",
        module=nn.BCELoss,
    ),
    "multilabel_soft_margin_loss": LossEntry(
        F.multilabel_soft_margin_loss,
        "probabilities",
        "logits",
        module=nn.MultiLabelSoftMarginLoss,
    ),
    # torch's "mean" would divide by the number of outputs too
    "kl_div": LossEntry(
        functools.partial(F.kl_div, reduction="batchmean"),
        "probabilities",
        "log-probabilities",
        module=nn.KLDivLoss,
    ),
    "soft_margin_loss": LossEntry(F.soft_margin_loss, "signs", "logits", module=nn.SoftMarginLoss),
    "hinge_embedding_loss": LossEntry(
        F.hinge_embedding_loss, "signs", "distances", module=nn.HingeEmbeddingLoss
    ),
    "multilabel_margin_loss": LossEntry(
        F.multilabel_margin_loss, "label sets", "scores", module=nn.MultiLabelMarginLoss
    ),
}
ALIASES: dict[str, str] = {alias: name for name, loss in LOSSES.items() for alias in loss.aliases}

# Parameters of torch's losses that a configuration must not set.
RESERVED = ("input", "target", "size_average", "reduce", "reduction")
_TENSORS = {"weight", "pos_weight"}  # tensors for torch, lists of numbers in a configuration
_MEANING = ("ignore_index", "log_input", "log_target")  # which tell what outputs and targets are


def canonical(name: str) -> str:
    """Return torch's name of a built-in loss; other names stay as they are."""
    return ALIASES.get(name, name)


def wants_binary(name: str) -> bool:
    """Tell whether this loss takes two classes as one output with targets 0.0 and 1.0."""
    loss = LOSSES.get(canonical(name))
    return loss is not None and loss.one_output


def check_args(name: str, args: dict[str, Any]) -> list[Problem]:
    """Return what is wrong with a built-in loss's arguments, as `import_path.check_call`."""
    problems = [
        Problem((reserved,), "cannot be set here: a loss is a mean over samples")
        for reserved in RESERVED
        if reserved in args
    ]
    rest = {k: v for k, v in args.items() if k not in RESERVED}
    problems += [
        Problem((k,), f"must be a list of numbers, not {spell(v)}")
        for k, v in rest.items()
        if k in _TENSORS and import_path.check_value(list[float], v)
    ]
    function = LOSSES[canonical(name)].function
    return problems + import_path.check_call(function, rest, given=RESERVED, positional=2)


_NAME_WHAT_IT_MAKES = "if it makes a loss, put that into a variable and name it: loss = make_loss()"


def build_loss(component: ComponentConfig, directories: Sequence[Path]) -> Loss:
    """Return `loss(outputs, targets)`, a scalar tensor.

    Raises:
        UserError: the import path leads nowhere.
        ConfigError: it leads to something that cannot be built or called.
    """
    args = component.args
    if import_path.is_import_path(component.name):
        loss = import_path.resolve(component.name, directories)
        if inspect.isclass(loss):  # a module such as torch.nn.HuberLoss
            try:
                torchs = any(loss is entry.module for entry in LOSSES.values())
                loss, args = loss(**(_with_tensors(args) if torchs else args)), {}
            except (Exception, SystemExit) as error:
                problem = f"{component.name} cannot be built: {import_path.words(error)}"
                raise ConfigError(Problem(("loss",), problem)) from error
        if not callable(loss):
            problem = f"{component.name} is a {type(loss).__name__}; it cannot be called"
            raise ConfigError(Problem(("loss", "name"), problem))
        if not import_path.takes(loss, 2, args):
            problem = (
                f"{component.name} cannot be called with outputs and targets; {_NAME_WHAT_IT_MAKES}"
            )
            raise ConfigError(Problem(("loss",), problem))
        if args and isinstance(loss, nn.Module):
            return _WithArgs(loss, args)
        return functools.partial(loss, **args) if args else loss
    function: Callable[..., Tensor] = LOSSES[canonical(component.name)].function
    weighted = _weighted(function) if _TENSORS & args.keys() else function
    return functools.partial(weighted, **_with_tensors(args))


def _with_tensors(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of a loss of torch's, those made tensors that it wants as such."""
    return {
        name: torch.tensor(value, dtype=torch.float32)
        if name in _TENSORS and isinstance(value, list)
        else value
        for name, value in args.items()
    }


def known_as(component: LossConfig, loss: Loss | None) -> LossConfig:
    """Return a loss of torch's under its built-in name, with what its arguments say of the data.

    The user's own loss stays as it is, and so does one under a built-in name.

    Args:
        component: of the configuration, which may be an import path.
        loss: from `build_loss`; None: the model's own.
    """
    if loss is None or not import_path.is_import_path(component.name):
        return component
    inner: Any = loss.loss if isinstance(loss, _WithArgs) else loss
    args = component.args
    while isinstance(inner, functools.partial):
        inner, args = inner.func, {**inner.keywords, **args}
    args = {name: getattr(inner, name) for name in _MEANING if hasattr(inner, name)} | args
    for name, entry in LOSSES.items():
        if _is_torchs(inner, entry):
            return component.model_copy(update={"name": name, "args": args})
    return component


def _is_torchs(loss: Any, entry: LossEntry) -> bool:
    """Tell whether a loss is the function or the module of a built-in one, unchanged."""
    function: Any = entry.function
    function = function.func if isinstance(function, functools.partial) else function
    if entry.module is None or not isinstance(loss, nn.Module):
        return loss is inspect.unwrap(function)
    return isinstance(loss, entry.module) and type(loss).forward is entry.module.forward


class _WithArgs(nn.Module):
    """A loss that is a module, called with further arguments."""

    def __init__(self, loss: nn.Module, args: dict[str, Any]) -> None:
        super().__init__()
        self.loss, self.args = loss, args

    @property
    def __wrapped__(self) -> nn.Module:
        return self.loss

    def forward(self, outputs: Any, targets: Any) -> Any:
        return self.loss(outputs, targets, **self.args)


def _weighted(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the loss with its tensors moved to the outputs' device and type."""

    @functools.wraps(function)
    def weighted(outputs: Tensor, targets: Tensor, **args: Any) -> Tensor:
        moved = {
            name: value.to(outputs, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in args.items()
        }
        return function(outputs, targets, **moved)

    return weighted


def ignored_index(name: str, loss: Loss | None) -> int | None:
    """Return the label that a loss leaves out; None for a loss that is not known to have one.

    Args:
        name: as in the configuration.
        loss: from `build_loss`; None: the model's own, which is taken for one as torch's.
    """
    if loss is None:
        return -100
    entry = LOSSES.get(canonical(name))
    if entry is not None and entry.takes != "classes":
        return None
    given = loss.keywords if isinstance(loss, functools.partial) else {}
    default = getattr(loss, "ignore_index", None) if entry is None else -100
    label = given.get("ignore_index", default)
    return label if isinstance(label, int) else None


def takes_classes(name: str) -> bool:
    """Tell whether a built-in loss takes class indices; False for the user's own."""
    entry = LOSSES.get(canonical(name))
    return entry is not None and entry.takes == "classes"


def takes_values(name: str) -> bool:
    """Tell whether a built-in loss takes numbers to predict; False for the user's own."""
    entry = LOSSES.get(canonical(name))
    return entry is not None and entry.takes in {"values", "signs"}


def takes_unscaled(name: str) -> bool:
    """Tell whether a built-in loss takes counts, probabilities or signs: numbers as they are."""
    entry = LOSSES.get(canonical(name))
    if entry is None:
        return False
    return entry.outputs == "log rates" or entry.takes in {"probabilities", "signs"}


def fit_problem(name: str, loss: Loss, outputs: Any, targets: Any) -> str | None:
    """Return why a loss does not fit a batch; None if it does.

    Args:
        name: as in the configuration.
        loss: from `build_loss`.
        outputs: of the model.
        targets: of the data.
    """
    if import_path.is_import_path(name):
        problem = _try(loss, outputs, targets)
        return None if problem is None else f"{name} {problem}{shapes(outputs, targets)}"
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return f"{name} {not_tensors(outputs, targets)}"
    args = loss.keywords if isinstance(loss, functools.partial) else {}
    entry = LOSSES[canonical(name)]
    problem = _mismatch(entry, outputs, targets, args) or _try(loss, outputs, targets)
    if problem is None:
        return None
    same = targets
    floats = targets.is_floating_point() and outputs.shape == (*targets.shape, 1)
    if floats and takes_classes(name):
        same = targets[..., None]  # as a loss that takes values would get them
    fitting = [
        other
        for other, entry in LOSSES.items()
        if other != canonical(name)
        and _mismatch(entry, outputs, same, {}) is None
        and _try(entry.function, outputs, same) is None
    ]
    advice = f"losses that fit: {', '.join(fitting)}" if fitting else "no built-in loss fits these"
    return f"{name} {problem}{shapes(outputs, targets)}; {advice}"


def compares_in_pairs(loss: Loss, outputs: Tensor, targets: Tensor) -> bool:
    """Tell whether a loss compares output i with target i, rather than with every target.

    A loss that subtracts (N, 1) and (N,) broadcasts them to (N, N). The mean over all of these does
    not depend on the targets' order. Nor does any loss of a single target, or if they are all
    equal: then every other one counts as 0, or as 1 in place of 0. Outputs are drawn from 0 to 1,
    and from the targets' own range, as an absolute error between numbers far apart is no pair's.
    """
    if len(targets) < 2:
        return True
    if bool((targets == targets[0]).all()):
        targets = targets.clone()
        targets[::2] = torch.where(targets[::2] == 0, 1, 0).to(targets)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(outputs.shape, generator=generator, device="cpu").to(outputs)
    low, high = targets.min().to(outputs), targets.max().to(outputs)
    return any(_in_pairs(loss, each, targets) for each in (drawn, low + drawn * (high - low)))


def _in_pairs(loss: Loss, outputs: Tensor, targets: Tensor) -> bool:
    """Tell whether a loss of these depends on the targets' order."""
    losses = [loss(outputs, targets.roll(shift, 0)) for shift in range(3)]
    if not all(bool(torch.isfinite(each).all()) for each in losses):
        return False
    return any(not torch.allclose(losses[0], other, rtol=1e-4) for other in losses[1:])


def not_tensors(outputs: Any, targets: Any) -> str:
    """Return why a batch that is not two tensors does not fit a built-in loss or metric."""
    types = f"{type(outputs).__name__} and {type(targets).__name__}"
    words = f"compares two tensors, but outputs and targets are {types}"
    if not isinstance(outputs, Tensor) and _has_loss(outputs):
        words = f"{words}; loss: own takes the loss that the model returns"
    return words


def _has_loss(outputs: Any) -> bool:
    return hasattr(outputs, "loss") or (isinstance(outputs, Mapping) and "loss" in outputs)


def shapes(outputs: Any, targets: Any) -> str:
    """Return "; outputs (64, 10) float32, targets (64,) int64"; "" unless both are tensors."""
    parts = (("outputs", outputs), ("targets", targets))
    if not all(isinstance(tensor, Tensor) for _, tensor in parts):
        return ""
    return "; " + ", ".join(f"{what} {tuple(t.shape)} {str(t.dtype)[6:]}" for what, t in parts)


def _try(loss: Callable[..., Any], outputs: Any, targets: Any) -> str | None:
    try:
        value = loss(outputs, targets)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (torch or the user's function may raise anything)
        return f"failed: {import_path.words(error)}"
    if not isinstance(value, Tensor):
        made = f"; {_NAME_WHAT_IT_MAKES}" if callable(value) else ""
        return f"returned a {type(value).__name__}, not a tensor{made}"
    if value.numel() != 1:
        return f"returned shape {tuple(value.shape)}, not a scalar; take the mean"
    return None


def _mismatch(  # noqa: C901, PLR0911  (a list of rules)
    loss: LossEntry, outputs: Tensor, targets: Tensor, args: Mapping[str, Any]
) -> str | None:
    """Return the first rule of a built-in loss that a batch breaks, or None."""
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
    if args.get("log_target"):  # of kl_div
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
