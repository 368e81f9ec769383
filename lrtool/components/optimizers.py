"""Optimizers: the classes of torch.optim by their lower-case names, or an import path."""

from __future__ import annotations

import copy
import inspect
import re
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lrtool.components import import_path
from lrtool.components.layers import depth_ratios
from lrtool.components.muon import Muon, split
from lrtool.curve import constants as c
from lrtool.errors import ConfigError, LrtoolWarning, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from lrtool.config.schema import ComponentConfig, OptimizerConfig

# Classes that lrtool's step cannot use, and why.
UNUSABLE = {
    "lbfgs": "lbfgs evaluates the loss several times within a step; lrtool's step does it once",
}
OPTIMIZERS: dict[str, type[Optimizer]] = {
    name.lower(): cls
    for name, cls in sorted(vars(torch.optim).items())
    if inspect.isclass(cls)
    and issubclass(cls, Optimizer)
    and cls is not Optimizer
    and name.lower() not in UNUSABLE
}
if "muon" in OPTIMIZERS:  # torch's refuses a model with a bias
    OPTIMIZERS["muon"] = Muon

# Those whose update of a sharded tensor is that of the whole one: they go element by element.
SHARDABLE = (
    *("adadelta", "adagrad", "adam", "adamax", "adamw", "asgd", "nadam", "radam", "rmsprop"),
    "sgd",
)

# Forms of an optimizer, by bitsandbytes, apex, DeepSpeed, torchao and timm: the same update in
# other numbers, or computed elsewhere. Many need a GPU, so they cannot be measured.
FORM = re.compile(r"_?(?:paged|fused|deepspeedcpu|hybrid|cpu)?(.+?)(?:8bit|4bit|32bit|fp8|legacy)*")
VARIANTS = {"nadamw": "nadam", "radamw": "radam", "sgdw": "sgd"}  # the weight decay aside
SAME = 0.01  # relative difference of updates, as by rounding

STEADY = 500  # updates after which moving averages have settled

# What is asked of an optimizer, whatever its class.
PROTOCOL = ("param_groups", "step", "zero_grad", "state_dict", "load_state_dict")
# With one of these among the arguments, the user has chosen the implementation.
_IMPLEMENTATION = {"fused", "foreach", "differentiable", "capturable"}


def default_rate(cls: Callable[..., Any]) -> float | None:
    """Return a class's default learning rate, or None."""
    known = import_path.signature(cls)
    default = known.parameters["lr"].default if known and "lr" in known.parameters else None
    if isinstance(default, Tensor):
        default = default.item()
    return float(default) if isinstance(default, int | float) else None


def build_optimizer(
    spec: OptimizerConfig,
    model: nn.Module,
    loss_fn: object = None,
    *,
    lr: float | None,
    directories: Sequence[Path],
) -> Optimizer:
    """Return the optimizer of the trainable parameters of a model, and of its loss if it has any.

    The first group has the parameters that no `groups.match` finds; then come the groups in the
    configuration's order. `layer_decay` divides each by the depth of the parameters, but those that
    have an `lr_ratio`. Without `decay_norm_and_bias`, a group without a weight decay of its own
    is split: parameters of fewer than two dimensions, such as biases and norms, go into a group
    with weight decay 0 (as in timm and nanoGPT). The fused implementation is used where there is
    one: the same numbers up to rounding, in fewer kernels. A wrapper, such as Lookahead, gets the
    optimizer inside it as its first argument.

    Args:
        spec: name, arguments and parameter groups.
        model: on its device.
        loss_fn: a module may have parameters; their names begin with `loss.`.
        lr: the base rate; None: the one among the arguments, or the class's default.
        directories: where modules of import paths are looked for.

    Raises:
        ConfigError: an argument is wrong, a group matches nothing or sets a weight decay that the
            class does not have, or the model has no trainable parameter.
        UserError: the import path leads nowhere.

    Warns:
        LrtoolWarning: `decay_norm_and_bias` is false, but there is no weight decay; or no parameter
            has a rate that follows from `layer_decay`.
    """
    rated = spec.inner or spec
    cls = _class(rated, directories)
    args = dict(rated.args)
    if lr is None:
        given = args.get("lr", default_rate(cls))
        if not isinstance(given, int | float):
            problem = f"{rated.name} has no default rate; give args.lr"
            raise ConfigError(Problem(("optimizer", "args"), problem))
        lr = float(given)
    args["lr"] = lr
    groups = _groups(spec, model, _trainable(model, loss_fn), lr)
    if cls is Muon:
        groups = split(groups, model)
    with _building(rated.name):
        optimizer = _fused(cls, groups, args) or cls(groups, **args)
    if spec.inner is not None:
        with _building(spec.name):
            optimizer = _class(spec, directories)(optimizer, **spec.args)
    if not all(hasattr(optimizer, name) for name in PROTOCOL):  # a wrapper may have no base class
        problem = f"{spec.name} made a {type(optimizer).__name__}, not a torch.optim.Optimizer"
        raise ConfigError(Problem(("optimizer", "name"), problem))
    decays = [i for i, group in enumerate(spec.groups) if group.weight_decay is not None]
    settings = getattr(innermost(optimizer), "defaults", {})
    if decays and "weight_decay" not in settings:
        problem = f"{spec.name} has no weight decay"
        paths = [("optimizer", "groups", i, "weight_decay") for i in decays]
        raise ConfigError(*(Problem(path, problem) for path in paths))
    if not spec.decay_norm_and_bias and not settings.get("weight_decay"):
        warnings.warn(
            f"optimizer.decay_norm_and_bias is ignored: {spec.name} has no weight decay here",
            LrtoolWarning,
            stacklevel=2,
        )
    return optimizer


def _class(spec: ComponentConfig, directories: Sequence[Path]) -> Callable[..., Any]:
    if import_path.is_import_path(spec.name):
        found: Callable[..., Any] = import_path.resolve(spec.name, directories)
        return found
    return OPTIMIZERS[spec.name]


@contextmanager
def _building(name: str) -> Iterator[None]:
    """Name the optimizer that cannot be built."""
    try:
        yield
    except (Exception, SystemExit) as error:
        reason = import_path.words(error) if import_path.is_import_path(name) else error
        problem = f"{name} cannot be built: {reason}"
        raise ConfigError(Problem(("optimizer",), problem)) from error


def _trainable(model: nn.Module, loss_fn: object) -> list[tuple[str, nn.Parameter]]:
    """Return names and trainable parameters; those of the loss come last."""
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trainable:
        problem = "it has no trainable parameter, so there is nothing to optimize"
        raise ConfigError(Problem(("model",), problem))
    if isinstance(loss_fn, nn.Module):
        known = {id(parameter) for _, parameter in trainable}
        frozen = {  # a network that someone put into eval() inside a loss, as for perceptual ones
            id(p) for m in loss_fn.modules() if not m.training for p in m.parameters(recurse=False)
        }
        trainable += [
            (name, p)
            for name, p in loss_fn.named_parameters("loss")
            if p.requires_grad and id(p) not in known | frozen
        ]
    return trainable


def _groups(
    spec: OptimizerConfig,
    model: nn.Module,
    trainable: list[tuple[str, nn.Parameter]],
    lr: float,
) -> list[dict[str, Any]]:
    members: dict[int | None, list[nn.Parameter]] = {None: []}  # by the index of their group
    members |= {index: [] for index in range(len(spec.groups))}
    for name, parameter in trainable:
        matching = (i for i, group in enumerate(spec.groups) if re.search(group.match, name))
        members[next(matching, None)].append(parameter)
    problems = [
        _matches_nothing(index, group.match, [name for name, _ in trainable])
        for index, group in enumerate(spec.groups)
        if not members[index]
    ]
    if problems:
        raise ConfigError(*problems)

    by_depth = {} if spec.layer_decay is None else depth_ratios(model, spec.layer_decay)
    groups = []
    decays_a_rate = False
    for index, parameters in members.items():
        group = None if index is None else spec.groups[index]
        own = None if group is None else group.lr_ratio
        rated: dict[float, list[nn.Parameter]] = {}
        for parameter in parameters:
            ratio = by_depth.get(parameter, 1.0) if own is None else own
            rated.setdefault(ratio, []).append(parameter)
        decays_a_rate |= own is None and any(ratio != 1 for ratio in rated)
        for ratio, alike in sorted(rated.items(), reverse=True):  # from the head down
            if group is not None and group.weight_decay is not None:
                decay = {"weight_decay": group.weight_decay}
                groups.append({"params": alike, "lr": lr * ratio, **decay})
            else:
                groups += _split(spec, alike, lr * ratio)
    if spec.layer_decay not in {None, 1.0} and not decays_a_rate:
        warnings.warn(
            "optimizer.layer_decay is ignored: all that is trained belongs to the model's last "
            "layer, or to optimizer.groups with an lr_ratio of their own",
            LrtoolWarning,
            stacklevel=3,
        )
    return groups


def _split(
    spec: OptimizerConfig, parameters: list[nn.Parameter], lr: float
) -> list[dict[str, Any]]:
    """Return the parameters as one group, or two if norms and biases are not to decay."""
    groups: list[dict[str, Any]] = [{"params": parameters, "lr": lr}]
    if not spec.decay_norm_and_bias:
        matrices = [p for p in parameters if p.ndim >= 2]
        others = [p for p in parameters if p.ndim < 2]
        groups = [
            {"params": matrices, "lr": lr},
            {"params": others, "lr": lr, "weight_decay": 0.0},
        ]
    return [group for group in groups if group["params"]]


def _matches_nothing(index: int, pattern: str, names: list[str]) -> Problem:
    taken = any(re.search(pattern, name) for name in names)
    where = " outside earlier groups" if taken else ""
    examples = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
    message = f"'{pattern}' matches no trainable parameter{where}; the model has {examples}"
    return Problem(("optimizer", "groups", index, "match"), message)


def _fused(
    cls: Callable[..., Any], groups: list[dict[str, Any]], args: dict[str, Any]
) -> Optimizer | None:
    """Return the fused implementation of a torch optimizer, or None if there is none."""
    if not _may_fuse(cls, args):
        return None
    try:
        # Some devices are refused by the constructor, some only by the first step.
        small = [{**group, "params": [_like(p) for p in group["params"][:1]]} for group in groups]
        optimizer = cls(small, fused=True, **args)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    except Exception:  # noqa: BLE001  (the plain implementation then has the better message)
        return None
    fused: Optimizer = cls(groups, fused=True, **args)
    return fused


def fuses(spec: ComponentConfig, directories: Sequence[Path]) -> bool:
    """Tell whether `build_optimizer` takes the fused implementation without being asked to."""
    own = import_path.is_import_path(spec.name)
    cls = import_path.resolve(spec.name, directories) if own else OPTIMIZERS[spec.name]
    return _may_fuse(cls, spec.args)


def _may_fuse(cls: Callable[..., Any], args: Mapping[str, Any]) -> bool:
    if _IMPLEMENTATION & args.keys() or cls not in OPTIMIZERS.values():
        return False
    return "fused" in inspect.signature(cls).parameters


def _like(parameter: Tensor) -> nn.Parameter:
    """Return a small parameter of the same device and type; of a sharded one, a sharded one."""
    return nn.Parameter(parameter.detach().new_ones(2, 2))


def is_known(optimizer: Optimizer) -> bool:
    """Tell whether an optimizer is one of torch's own, or a pair of them."""
    cls = type(optimizer)
    return cls in OPTIMIZERS.values() or cls.__module__.startswith("torch.optim.")


def kind(optimizer: Optimizer) -> str:
    """Return the name of an optimizer in the fitted constants, such as sgd_momentum.

    A wrapper has that of the optimizer inside it. A class of torch's, or one that takes its `step`
    from there, has the name of that. Any other has the name of the class of torch's that makes the
    same updates, if there is one; else its own, without what says in which numbers or on which
    device it computes, unless it is seen to be of another family than that name.
    """
    optimizer = innermost(optimizer)
    name = _of_torch(optimizer) or _named(optimizer)
    if name == "sgd" and _settings(optimizer).get("momentum"):
        return "sgd_momentum"
    return name


def innermost(optimizer: Optimizer) -> Optimizer:
    """Return the optimizer inside wrappers, such as those of Lookahead or accelerate."""
    seen = {id(optimizer)}
    while True:
        inside = list({id(value): value for value in _inside(optimizer)}.values())
        inside = [value for value in inside if id(value) not in seen]
        alike = len({type(value) for value in inside}) == 1  # such as one for each parameter
        if not alike or is_known(optimizer):
            return optimizer
        optimizer = inside[0]
        seen.add(id(optimizer))


def _inside(optimizer: Optimizer) -> Iterator[Optimizer]:
    """Yield the optimizers that an object holds, itself or in a list or a mapping."""
    held = getattr(optimizer, "__dict__", {})  # it may have slots instead
    for value in (*held.values(), getattr(optimizer, "optimizer", None)):
        if isinstance(value, list | tuple):
            yield from filter(_is_optimizer, value)
        elif isinstance(value, dict):
            yield from filter(_is_optimizer, value.values())
        elif _is_optimizer(value):
            yield value


def _is_optimizer(value: Any) -> bool:
    return hasattr(value, "param_groups") and hasattr(value, "step")


def _of_torch(optimizer: Optimizer) -> str | None:
    """Return the name of the class of torch's that makes the same updates, or None."""
    known = {cls: name for name, cls in OPTIMIZERS.items()}
    bases = [cls for cls in type(optimizer).__mro__ if cls in known]
    if bases:
        own = type(optimizer).__mro__[: type(optimizer).__mro__.index(bases[0])]
        if not any("step" in vars(cls) for cls in own):
            return known[bases[0]]
    with torch.random.fork_rng(devices=[]):
        path = _path(optimizer, type(optimizer))
        if path is None:
            return None
        for cls in (*bases, *known):
            other = _path(optimizer, cls)
            if other is not None and (other - path).norm() < SAME * path.norm():
                return known[cls]
    return None


def _path(optimizer: Optimizer, cls: type[Optimizer]) -> Tensor | None:
    """Return the updates that a new optimizer of a class makes with changing gradients, or None.

    The weights are far from 0, for an update may follow their norm, as LAMB's does.
    """
    generator = torch.Generator().manual_seed(0)
    parameter = nn.Parameter(10 * torch.randn(4, 4, generator=generator, device="cpu"))
    places = [parameter.detach().clone()]
    try:
        fresh = _fresh(optimizer, parameter, cls)
        for update in range(8):  # RAdam's first five are those of SGD
            scale = 1 + update % 3
            parameter.grad = scale * torch.randn(4, 4, generator=generator, device="cpu")
            fresh.step()
            places.append(parameter.detach().clone())
    except Exception:  # noqa: BLE001  (the user's class may raise anything)
        return None
    path = torch.stack(places).diff(dim=0)
    return path if bool(path.isfinite().all()) and bool(path.any()) else None


def _named(optimizer: Optimizer) -> str:
    """Return the name that an optimizer's class has or is a form of, in lower case."""
    name = type(optimizer).__name__.lower()
    form = FORM.fullmatch(name)
    known = form[1] if form else name
    known = VARIANTS.get(known, known)
    expected = c.FAMILIES.get(c.ALIKE.get(known, known))
    if expected is None:
        return name
    as_named = family(optimizer) in {None, expected}
    return known if as_named else f"{type(optimizer).__module__}.{name}"


def family(optimizer: Optimizer) -> Literal["adaptive", "proportional"] | None:
    """Measure how an optimizer's update depends on the size of the gradient.

    A new optimizer of the same class and settings takes a few steps with gradients scaled by 1 and
    by 100. The same update means "adaptive", as for Adam; one 100 times as large "proportional", as
    for SGD; anything else, or a class that cannot be built like that, None. The optimizer and
    torch's random state are not changed.
    """
    optimizer = innermost(optimizer)
    try:
        with torch.random.fork_rng(devices=[]):
            # eight updates, for RAdam's first five are those of SGD
            small, large = (_update(optimizer, scale) for scale in (1.0, 100.0))
    except Exception:  # noqa: BLE001  (the user's class may raise anything)
        return None
    if not small or not large:
        return None
    growth = large / small
    if 0.5 < growth < 2:
        return "adaptive"
    return "proportional" if 50 < growth < 200 else None


def opening(optimizer: Optimizer) -> float:
    """Return the size of the first update, divided by that of later ones; at least 1.

    The gradient stays the same. RMSprop's first update is 10 times as large, because its average of
    squares starts at 0 without a correction; Adam's is as large as the others. 1 where it cannot be
    measured. The optimizer and torch's random state are not changed.
    """
    optimizer = innermost(optimizer)
    try:
        with torch.random.fork_rng(devices=[]):
            first, later = (_update(optimizer, 1.0, updates) for updates in (1, STEADY))
    except Exception:  # noqa: BLE001  (the user's class may raise anything)
        return 1.0
    return max(1.0, first / later) if later else 1.0


def _update(optimizer: Optimizer, scale: float, updates: int = 8) -> float:
    """Return the size of the last of several updates by a new optimizer with the same settings."""
    generator = torch.Generator().manual_seed(0)
    parameter = nn.Parameter(torch.zeros(4, 4, device="cpu"))
    fresh = _fresh(optimizer, parameter, type(optimizer))
    parameter.grad = scale * torch.randn(4, 4, generator=generator, device="cpu")
    before = parameter.detach().clone()
    for _ in range(updates):
        before.copy_(parameter.detach())
        fresh.step()
    return float((parameter.detach() - before).norm())


def _fresh(optimizer: Optimizer, parameter: nn.Parameter, cls: type[Optimizer]) -> Optimizer:
    """Return a new optimizer of a class, with the settings of `optimizer` but no weight decay.

    A class that wants more than parameters and settings is made without its constructor, and gets
    the numbers and words of `optimizer`, but no object of it: a step must change nothing else.
    """
    on_cpu = {"fused": None, "foreach": None, "capturable": False}
    options = {**_settings(optimizer), **on_cpu, "lr": 1e-3, "weight_decay": 0.0}
    accepted = inspect.signature(cls).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    try:
        fresh = cls([parameter], **{k: v for k, v in options.items() if takes_any or k in accepted})
    except Exception:
        if cls is not type(optimizer):
            raise
        fresh = cls.__new__(cls)
        Optimizer.__init__(fresh, [parameter], options)
        plain = {k: v for k, v in vars(optimizer).items() if isinstance(v, int | float | str)}
        vars(fresh).update({k: v for k, v in plain.items() if k not in vars(fresh)})
    if hasattr(fresh, "train"):  # a schedule-free one begins in evaluation mode
        fresh.train()
    return fresh


def _settings(optimizer: Optimizer) -> dict[str, Any]:
    """Return the settings of the first parameter group."""
    group = next(iter(optimizer.param_groups), {})
    defaults = getattr(optimizer, "defaults", group)
    names = defaults.keys() - {"params"}
    settings = {name: group.get(name, defaults.get(name)) for name in names}
    return copy.deepcopy(settings)
