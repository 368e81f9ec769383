"""What `find_lr` takes, and what it refuses in words."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import lrtool
from lrtool.errors import LrtoolWarning, UserError
from lrtool.search.arguments import check_loader, check_loss, check_optimized, one_optimizer

X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(X, X[:, :1])


def model():
    torch.manual_seed(0)
    return nn.Linear(4, 1)


def adam(of):
    return torch.optim.Adam(of.parameters(), 0.01)


def rate(**given):
    own = model()
    arguments = {
        "model": own,
        "optimizer": adam(own),
        "loss_fn": F.mse_loss,
        "loader": DataLoader(DATA, 16),
    }
    return lrtool.find_lr(**{**arguments, **given}, steps=60).lr


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": nn.Linear}, "model is the class Linear; give an object: Linear(…)"),
        ({"model": lambda x: x}, "model must be a torch.nn.Module, not a function"),
        (
            {"optimizer": torch.optim.Adam},
            "optimizer is the class Adam; give an object: Adam(model.parameters())",
        ),
        ({"optimizer": None}, "optimizer must be a torch.optim.Optimizer, not None"),
        ({"optimizer": "adam"}, "optimizer must be a torch.optim.Optimizer, not a str"),
        (
            {"optimizer": [adam(model()), adam(model())]},
            (
                "2 optimizers, as for a GAN: find_lr finds the rate of one. Call it once for each, "
                "with the loss that it lowers; or give one optimizer with several groups"
            ),
        ),
        (
            {"optimizer": adam(model())},
            "the optimizer has no parameter of this model; build it from this model's",
        ),
        ({"loss_fn": nn.MSELoss}, "loss_fn is the class MSELoss; give an object: MSELoss(…)"),
        (
            {"loss_fn": 0.5},
            "loss_fn must be a function loss(outputs, targets), or None, not a float",
        ),
        (
            {"loss_fn": "msee"},
            "no loss is called 'msee' (did you mean 'mse'?); give a function or a name",
        ),
        (
            {"loader": None},
            (
                "loader is None; find_lr trains on batches: give an iterable of them, such as a "
                "DataLoader. Data that a training makes as it goes, as in reinforcement learning, "
                "may come from a generator"
            ),
        ),
        (
            {"loader": DATA},
            (
                "loader is a TensorDataset, which yields samples, not batches; give "
                "DataLoader(data, batch_size=64, shuffle=True), or with batch_size=None if its "
                "items are batches"
            ),
        ),
        (
            {"validation": DATA},
            (
                "validation is a TensorDataset, which yields samples, not batches; give "
                "DataLoader(data, batch_size=64, shuffle=True), or with batch_size=None if its "
                "items are batches"
            ),
        ),
        (
            {"loader": (X, X)},
            (
                "loader is a tuple, not batches; give DataLoader(TensorDataset(inputs, targets), "
                "batch_size=64, shuffle=True)"
            ),
        ),
        ({"loader": DataLoader}, "loader is the class DataLoader; give an object: DataLoader(…)"),
        ({"loader": 3}, "loader must yield batches, as a DataLoader does; it is an int"),
    ],
)
def test_mistakes(given, words):
    with pytest.raises(UserError) as caught:
        rate(**given)
    assert str(caught.value) == words


def test_a_loader_that_is_a_data_module_or_a_tensor():
    module = type("Digits", (), {"train_dataloader": None, "__iter__": None})()
    with pytest.raises(UserError, match="is a Digits; give what its train_dataloader"):
        check_loader("loader", module)
    with pytest.raises(UserError, match=r"is a tensor of shape \(64, 4\), not batches"):
        check_loader("loader", X)


def test_an_iterable_data_set_may_yield_batches():
    class Batches(IterableDataset):
        def __iter__(self):
            yield X, X

    check_loader("loader", Batches())


def test_a_name_of_a_loss_and_the_optimizer_in_a_mapping():
    own = model()
    expected = rate()
    assert rate(loss_fn="mse") == expected
    optimizer = adam(own)
    with pytest.warns(LrtoolWarning) as caught:
        found = rate(model=own, optimizer={"optimizer": optimizer, "lr_scheduler": object()})
    assert found == expected
    assert [str(warning.message) for warning in caught] == [
        (
            "the schedule beside the optimizer is ignored: say which one it is, such as "
            'schedule="cosine"'
        )
    ]
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    assert one_optimizer(([optimizer], [schedule]), "step") is optimizer


def test_optimizers_that_cannot_be_used():
    own = model()
    for optimizer, words in (
        (torch.optim.LBFGS(own.parameters()), "LBFGS evaluates the loss several times"),
        (Needs(own.parameters()), "Needs evaluates the loss several times within a step"),
        (Asserts(own.parameters()), "Asserts evaluates the loss several times within a step"),
        (
            torch.optim.SGD(own.parameters(), 0.1, maximize=True),
            "SGD has maximize=True, so it raises the loss; give the loss with the other sign",
        ),
    ):
        with pytest.raises(UserError, match=words):
            rate(model=own, optimizer=optimizer)


class Needs(torch.optim.SGD):
    def step(self, closure):
        closure()


class Asserts(torch.optim.SGD):
    def step(self, closure=None):
        assert closure is not None, "Sharpness Aware Minimization requires closure"


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, outputs, targets):
        return F.mse_loss(outputs * self.scale.sum(), targets)


def test_the_weights_of_a_loss():
    own, loss = model(), Scaled()
    before = [p.detach().clone() for p in (*own.parameters(), *loss.parameters())]
    both = torch.optim.Adam([*own.parameters(), *loss.parameters()], 0.01)
    assert rate(model=own, optimizer=both, loss_fn=loss) is not None
    for old, new in zip(before, (*own.parameters(), *loss.parameters()), strict=True):
        assert torch.equal(old, new)
    with pytest.warns(LrtoolWarning) as caught:
        check_optimized(own, adam(own), loss)
    assert str(caught[0].message) == (
        "Scaled has 2 trainable parameters that the optimizer does not have, so they are not "
        "trained"
    )
    check_optimized(own, adam(own), loss.requires_grad_(requires_grad=False))


def test_an_optimizer_without_a_rate_is_refused():
    class Adafactor(torch.optim.SGD):
        """As that of transformers is by default."""

        def __init__(self, params):
            super().__init__(params, 0.1)
            self.param_groups[0]["lr"] = None

    words = (
        "the lr of Adafactor is None: it sets its own rate, and there is none to find; give it a "
        "number, and for Adafactor relative_step=False"
    )
    own = model()
    with pytest.raises(UserError, match=f"^{words}$"):
        rate(model=own, optimizer=Adafactor(own.parameters()))


def test_a_models_own_loss_that_is_not_used():
    own = model()
    own.training_step = lambda batch: batch
    with pytest.warns(LrtoolWarning) as caught:
        check_loss(F.mse_loss, own)
    assert str(caught[0].message) == (
        "the training_step of Linear is not used, for loss_fn is given; None takes it"
    )
    assert check_loss(None, own) is None
