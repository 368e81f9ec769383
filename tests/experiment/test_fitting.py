import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from lrtool.components.losses import build_loss, compares_in_pairs
from lrtool.config.schema import DataConfig, LossConfig, RuntimeConfig
from lrtool.data import batches
from lrtool.data.load import load
from lrtool.engine.device import open_runtime
from lrtool.experiment.fitting import fitted_shape, fitted_types

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
Y = X.sum(1)


class Samples(Dataset):
    def __init__(self, targets, inputs=X):
        self.inputs, self.numbers = inputs, targets

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, index):
        return self.inputs[index], self.numbers[index]


class Mapped(Samples):
    def __getitem__(self, index):
        return {"inputs": self.inputs[index], "y": self.numbers[index]}


class Flat(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs).squeeze(1)


def squeezing(outputs, targets):
    return (outputs.squeeze(-1) - targets).square().mean()


def subtracting(outputs, targets):
    return (outputs - targets).square().mean()


def fit(made, model, loss="mse", loss_fn=None):
    """Return the shape and type of targets and inputs in the first batch after the fitting."""
    runtime = open_runtime(RuntimeConfig(device="cpu"))
    data = DataConfig(source="mine:make", validation=0, batch_size=8)
    if isinstance(made, DataLoader):
        data = DataConfig(source="mine:make", validation=0)
    loaded = load(data, seed=0, factory=lambda: made, directories=[])
    loss_fn = loss_fn or build_loss(LossConfig(name=loss), [])
    data = fitted_shape(fitted_types(loaded, model), model, loss_fn, loss, runtime)
    return data, next(
        batches.epoch(data.train, batch_size=8, seed=0, epoch=0, device=runtime.device)
    )


SOURCES = [lambda y: (X, y), Samples, lambda y: DataLoader(Samples(y), 8)]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("targets", [Y, Y[:, None], Y.double(), Y.double()[:, None].numpy()])
def test_targets_take_the_shape_of_the_outputs(source, targets):
    for model, shape in ((nn.Linear(4, 1), (8, 1)), (Flat(4, 1), (8,))):
        data, (x, y) = fit(source(targets), model)
        assert y.shape == shape == model(x).shape
        assert y.dtype == torch.float32
        assert torch.allclose(x.sum(1), y.flatten())
        assert data.shapes["targets"] == shape[1:]


@pytest.mark.parametrize("source", SOURCES)
def test_a_loss_of_the_users_own_gets_what_it_can_compare(source):
    for targets in (Y, Y[:, None]):
        _, (_, y) = fit(source(targets), nn.Linear(4, 1), "mine:loss", subtracting)
        assert y.shape == (8, 1)
        _, (_, y) = fit(source(targets), nn.Linear(4, 1), "mine:loss", squeezing)
        assert y.shape == (8,)
        _, (_, y) = fit(source(targets), Flat(4, 1), "mine:loss", subtracting)
        assert y.shape == (8,)


def gaussian(outputs, targets):
    mean, log_variance = outputs[:, 0], outputs[:, 1]
    return (log_variance + (targets - mean) ** 2 / log_variance.exp()).mean()


def quantiles(outputs, targets):
    over = targets - outputs
    return torch.maximum(0.9 * over, -0.1 * over).mean()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("targets", [Y, Y[:, None]])
def test_several_outputs_for_one_number_are_compared_in_pairs_too(source, targets):
    cases = (gaussian, (8,)), (quantiles, (8, 1)), (lambda o, t: quantiles(o, t[:, None]), (8,))
    for loss, shape in cases:
        _, (_, y) = fit(source(targets), nn.Linear(4, 2), "mine:loss", loss)
        assert y.shape == shape


def test_mappings():
    _, batch = fit(Mapped(Y.double()), nn.Linear(4, 1))
    assert (batch["inputs"].dtype, batch["y"].dtype) == (torch.float32, torch.float32)
    assert batch["y"].shape == (8, 1)


@pytest.mark.parametrize("source", SOURCES)
def test_classes_in_a_column(source):
    labels = (Y > 0).long()
    for targets in (labels, labels[:, None], labels.to(torch.int16)[:, None]):
        _, (_, y) = fit(source(targets), nn.Linear(4, 2), "cross_entropy")
        assert (y.shape, y.dtype) == ((8,), torch.int64)


@pytest.mark.parametrize("source", SOURCES)
def test_integers_are_never_subtracted_from_each_output(source):
    whole = torch.arange(24) % 7
    for targets in (whole, whole[:, None], whole.to(torch.int16)):
        for model, shape in ((nn.Linear(4, 1), (8, 1)), (Flat(4, 1), (8,))):
            _, (_, y) = fit(source(targets), model, "mine:loss", subtracting)
            assert (y.shape, y.dtype) == (shape, torch.int64)
    _, (_, y) = fit(source(whole), nn.Linear(4, 1), "mine:loss", squeezing)
    assert y.shape == (8,)
    for several in (whole, whole[:, None]):  # (8, 7) and (8, 1) would broadcast
        _, (_, y) = fit(source(several), nn.Linear(4, 7), "mine:loss", subtracting)
        assert y.shape == several[:8].shape
        _, (_, y) = fit(source(several), nn.Linear(4, 7), "mine:loss", F.cross_entropy)
        assert y.shape == (8,)


def test_floats_take_the_type_of_the_model():
    for inputs in (X.double(), X, X.half()):
        made = [(inputs, Y.double()), Samples(Y.double(), inputs)]
        for source in made:
            for dtype in (torch.float64, torch.float32):
                model = nn.Linear(4, 1).to(dtype)
                _, (x, y) = fit(source, model)
                assert x.dtype == y.dtype == dtype
    exact = X.double() / 3
    _, (x, _) = fit((exact, Y), nn.Linear(4, 1).double())
    assert all((row == exact).all(1).any() for row in x)


def test_where_nothing_fits_the_targets_stay():
    _, (_, y) = fit((X, Y), nn.Linear(4, 3))
    assert y.shape == (8,)
    _, (_, y) = fit((X, Y), nn.Linear(5, 1))
    assert y.shape == (8,)


@pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")
def test_losses_that_compare_in_pairs():
    outputs, targets = torch.zeros(6, 1), torch.arange(6.0)
    for loss in (F.l1_loss, F.mse_loss, subtracting):
        assert not compares_in_pairs(loss, outputs, targets)
        assert compares_in_pairs(loss, outputs, targets[:, None])
    assert compares_in_pairs(squeezing, outputs, targets)


@pytest.mark.parametrize("scale", [1.0, 90.0, 2e5])
def test_targets_far_from_0_are_compared_in_pairs_too(scale):
    """An absolute error between numbers far apart is the same in any order."""
    outputs, targets = torch.zeros(32, 1), scale * (1 + torch.arange(32.0) / 32)
    for loss in (F.l1_loss, F.mse_loss, F.poisson_nll_loss):

        def flat(outputs, targets, loss=loss):
            return loss(outputs.squeeze(1), targets)

        assert compares_in_pairs(flat, outputs, targets)
    assert not compares_in_pairs(subtracting, outputs, targets)


def test_a_single_target_has_no_other_order():
    assert compares_in_pairs(subtracting, torch.zeros(1, 1), torch.ones(1))


@pytest.mark.parametrize("value", [0, 1, 2, 0.0, 1.0, 0.37])
def test_equal_targets_do_not_hide_what_broadcasts(value):
    """As in a batch without a sample of a rare class."""
    outputs, targets = torch.randn(8, 1), torch.full((8,), value)
    assert not compares_in_pairs(subtracting, outputs, targets)
    assert compares_in_pairs(subtracting, outputs, targets[:, None])
    assert compares_in_pairs(squeezing, outputs, targets)
    assert bool((targets == value).all())  # of the caller
