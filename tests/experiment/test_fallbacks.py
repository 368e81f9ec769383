"""What lrtool does of its own accord gives way; what the user asked for, or got wrong, is said."""

import warnings

import pytest
import torch
from odd_models import MODELS

from lrtool.errors import ConfigError, LrtoolWarning, OutOfMemoryError, UserError
from lrtool.experiment.experiment import build, resolved_config
from lrtool.experiment.preflight import metrics_of, run_preflight

IMAGES = """
def images():
    g = torch.Generator().manual_seed(0)
    return torch.randn(40, 3, 8, 8, generator=g), torch.randint(4, (40,), generator=g)
class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 5, 3), nn.Linear(5 * 36, 4)
    def forward(self, x):
        return self.out(self.flat(self.conv(x)))
    def flat(self, x):
        return x.reshape(len(x), -1)
class Viewing(Flat):
    def flat(self, x):
        return x.view(len(x), -1)
class ViewingInputs(Flat):
    def forward(self, x):
        x.view(-1)
        return super().forward(x)
class ViewingInEvaluation(Flat):
    def flat(self, x):
        return x.reshape(len(x), -1) if self.training else x.view(len(x), -1)
class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()
    @staticmethod
    def backward(ctx, gradient):
        return gradient.view(-1).view_as(gradient)
class ViewingInBackward(Flat):
    def flat(self, x):
        return super().flat(Backward.apply(x).relu())
class Strided(Flat):
    def flat(self, x):
        return x.as_strided((len(x), 180), (180, 1))
class Noisy(Flat):
    def forward(self, x):
        return super().forward(x + torch.randn_like(x))
class Broken(Flat):
    def flat(self, x):
        return x.view(-1, 7)
class ViewingWithGradients(Viewing):
    def forward(self, x):
        return super().forward(x) + torch.autograd.grad(
            self.conv(x.requires_grad_()).sum(), x, create_graph=True)[0].mean()
"""
CNN = "data: {{source: 'mine:images', batch_size: 8}}\nmodel: 'mine:{}'\n"
INPUTS = (
    MODELS
    + """
import collections
g = torch.Generator().manual_seed(0)
X = torch.randn(40, 6, generator=g)
def forces(): return X, -X
def classes(): return X, torch.arange(40) % 3
def tokens(): return torch.arange(160).reshape(40, 4) % 9, torch.arange(40) % 3
def lazy():
    norm = nn.LazyBatchNorm1d()
    return nn.Sequential(nn.LazyLinear(7), nn.ReLU(), norm, nn.LazyLinear(3))
"""
)


def settled(experiment):
    """The experiment after the preflight, and what was said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        experiment, _ = run_preflight(experiment)
    return experiment, [str(warning.message) for warning in said]


@pytest.mark.parametrize(
    "model",
    ["Viewing", "ViewingInputs", "ViewingInEvaluation", "ViewingInBackward", "Strided"],
)
def test_what_cannot_take_channels_last_has_contiguous_memory(opened, model):
    experiment, [said] = settled(opened(IMAGES, CNN.format(model)))
    assert said.startswith("channels_last fails here (RuntimeError: ")
    assert said.endswith("): memory stays contiguous (runtime.memory_format: contiguous)")
    assert resolved_config(experiment)["runtime"]["memory_format"] == "contiguous"
    assert experiment.data.train.inputs.is_contiguous()
    assert all(p.is_contiguous() for p in build(experiment, 0).model.parameters())


def test_so_has_a_loss_of_ones_own_that_views_the_outputs(opened):
    source = IMAGES + (
        "class Masks(nn.Conv2d):\n"
        "    def __init__(self):\n"
        "        super().__init__(3, 5, 3, padding=1)\n"
        "def masks():\n"
        "    x, _ = images()\n"
        "    return x, torch.rand(40, 5, 8, 8)\n"
        "def dice(outputs, targets):\n"
        "    shares = outputs.sigmoid().view(len(outputs), -1)\n"
        "    return 1 - (shares * targets.reshape(len(targets), -1)).mean()\n"
    )
    text = CNN.format("Masks").replace("images", "masks") + "metrics: ['mine:dice']\n"
    own = opened(source, text + "loss: 'mine:dice'\n")
    experiment, [said] = settled(own)
    assert said.startswith("channels_last fails here (")
    assert ":dice failed: RuntimeError: view size is not compatible" in said
    assert said.endswith("): memory stays contiguous (runtime.memory_format: contiguous)")
    assert resolved_config(experiment)["runtime"]["memory_format"] == "contiguous"
    # a metric alone costs nothing: it gets contiguous outputs
    experiment, said = settled(opened(source, text + "loss: mse\n"))
    assert said == []
    metrics_of(experiment)


@pytest.mark.parametrize("model", ["Flat", "Noisy"])
def test_what_can_take_channels_last_keeps_it(opened, model):
    experiment, said = settled(opened(IMAGES, CNN.format(model)))
    assert said == []
    assert resolved_config(experiment)["runtime"]["memory_format"] == "auto"
    assert not experiment.data.train.inputs.is_contiguous()
    assert not build(experiment, 0).model.conv.weight.is_contiguous()


def test_channels_last_by_name_that_fails_is_an_error_of_the_configuration(opened):
    chosen = CNN.format("Viewing") + "runtime: {memory_format: channels_last}\n"
    with pytest.raises(ConfigError) as caught:
        run_preflight(opened(IMAGES, chosen))
    assert ":3:26: runtime.memory_format: channels_last fails here" in str(caught.value)
    assert "without it all goes well: RuntimeError: view size is not compat" in str(caught.value)


def test_a_model_that_fails_both_ways_is_the_users_to_mend(opened):
    with pytest.raises(UserError) as caught:
        run_preflight(opened(IMAGES, CNN.format("Broken")))
    assert "Broken failed on a batch of inputs (8, 3, 8, 8): RuntimeError: " in str(caught.value)
    assert "shape '[-1, 7]' is invalid" in str(caught.value)


def test_what_the_plain_way_raises_is_told(opened):
    """Not the failure that our own way adds before it."""
    source = IMAGES + (
        "class Late(Viewing):\n"
        "    def forward(self, x):\n"
        "        super().forward(x)\n"
        "        raise ValueError('mine')\n"
    )
    with pytest.raises(UserError, match=r"ValueError: mine \(.*py:53\)"):
        run_preflight(opened(source, CNN.format("Late")))


def test_two_things_may_give_way_at_once(opened):
    experiment, said = settled(opened(IMAGES, CNN.format("ViewingWithGradients")))
    assert [line.partition(" fails")[0] for line in said] == [
        "evaluation without gradients",
        "channels_last",
    ]
    assert experiment.runtime.gradients
    assert experiment.runtime.memory_format == "contiguous"


FORCES = "data: {source: 'mine:forces', batch_size: 8}\nmodel: 'mine:Forces'\nloss: mse\n"


def test_a_model_that_differentiates_is_evaluated_with_gradients(opened):
    experiment, [said] = settled(opened(INPUTS, FORCES + "metrics: [mae]\n"))
    assert said.startswith("evaluation without gradients fails here (RuntimeError: ")
    assert said.endswith("): the model is evaluated with gradients switched on")
    assert set(metrics_of(experiment)) == {"mae"}


TOKENS = "data: {source: 'mine:tokens', batch_size: 8}\nmodel: 'mine:Sparse'\n"


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "torch.optim:SGD"])
def test_sparse_gradients_have_the_plain_optimizer(opened, optimizer):
    experiment, [said] = settled(opened(INPUTS, TOKENS + f"optimizer: '{optimizer}'\n"))
    assert said.startswith(f"the fused {optimizer} fails here (")
    assert said.endswith("): its plain implementation is used (optimizer.args.fused: false)")
    assert resolved_config(experiment)["optimizer"]["args"]["fused"] is False
    assert build(experiment, 0).optimizer.defaults["fused"] is False


def test_a_fused_optimizer_by_name_that_fails_is_an_error_of_the_configuration(opened):
    chosen = TOKENS + "optimizer: {name: sgd, args: {fused: true}}\n"
    with pytest.raises(ConfigError, match=r":3:38: optimizer\.args\.fused: the fused sgd fails"):
        run_preflight(opened(INPUTS, chosen))


def test_sparse_adam_is_for_sparse_gradients_alone(opened):
    source = INPUTS + (
        "class Table(Sparse):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.table, self.out = nn.Embedding(9, 3, sparse=True), nn.Identity()\n"
    )
    sparse = TOKENS + "optimizer: sparseadam\n"
    _, said = settled(opened(source, sparse.replace("Sparse", "Table")))
    assert said == []
    with pytest.raises(UserError, match=r"a step of sparseadam .*consider Adam instead"):
        run_preflight(opened(INPUTS, sparse))


def test_adam_takes_no_sparse_gradients_in_any_way(opened):
    with pytest.raises(UserError, match=r"a step of adam .*consider SparseAdam instead"):
        run_preflight(opened(INPUTS, TOKENS + "optimizer: adam\n"))


def test_lazy_layers_have_weights_before_the_optimizer(opened):
    configuration = (
        "data: {source: 'mine:classes', batch_size: 8}\nmodel: 'mine:lazy'\n"
        "optimizer: {decay_norm_and_bias: false, args: {weight_decay: 0.1}}\n"
    )
    experiment, said = settled(opened(INPUTS, configuration))
    assert said == []
    one, other = (build(experiment, 3) for _ in range(2))
    assert [tuple(p.shape) for p in one.model.parameters()][:2] == [(7, 6), (7,)]
    assert all(map(torch.equal, one.model.parameters(), other.model.parameters()))
    # biases and norms, which are known by their dimensions
    assert [len(group["params"]) for group in one.optimizer.param_groups] == [2, 4]
    # nothing but the weights has been touched
    assert one.model[2].num_batches_tracked == 0
    assert one.model.training


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        ("MemoryError()", "MemoryError"),
        ("MemoryError('no room for 7 GB')", "no room for 7 GB"),
        ("torch.OutOfMemoryError('CUDA out of memory')", "CUDA out of memory"),
        (
            'RuntimeError("DefaultCPUAllocator: can\'t allocate memory")',
            "DefaultCPUAllocator: can't allocate memory",
        ),
    ],
)
@pytest.mark.parametrize("what", ["model", "optimizer", "data"])
def test_memory_that_runs_out_while_something_is_built(opened, what, raised, words):
    source = INPUTS + (f"def fails(*a, **k): raise {raised}\ndef net(): return nn.Linear(6, 3)\n")
    names = {"data": "classes", "model": "net", "optimizer": "torch.optim:SGD"}
    names[what] = "fails"
    configuration = (
        f"data: {{source: 'mine:{names['data']}', batch_size: 8}}\nmodel: 'mine:{names['model']}'\n"
        f"optimizer: {'mine:fails' if what == 'optimizer' else 'sgd'}\n"
    )
    with pytest.raises(OutOfMemoryError) as caught:
        opened(source, configuration)
    assert str(caught.value).startswith(f"out of memory while the {what}")
    assert "; make it smaller: " in str(caught.value)
    assert str(caught.value).endswith(words)


def test_another_failure_to_build_is_no_lack_of_memory(opened):
    with pytest.raises(ConfigError, match="cannot be built: ValueError: no"):
        opened("def net(): raise ValueError('no')\n", "model: 'mine:net'\ndata: {source: iris}\n")


def test_warnings_of_lrtool_are_its_own(opened):
    with pytest.warns(LrtoolWarning, match="channels_last fails here"):
        run_preflight(opened(IMAGES, CNN.format("Viewing")))
