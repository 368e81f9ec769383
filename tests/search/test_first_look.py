"""What `find_lr` says of objects that would do something wrong without a word."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import lrtool
from lrtool.curve import verdict
from lrtool.engine.device import Runtime
from lrtool.engine.first_update import first_update
from lrtool.engine.step import make_step
from lrtool.errors import DataError, LrtoolWarning, UserError
from lrtool.search.arguments import followed

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(128, 4, generator=GENERATOR)
Y = X @ torch.randn(4, 1, generator=GENERATOR)


def loader(x=X, y=Y, **options):
    return DataLoader(TensorDataset(x, y), batch_size=32, **options)


def find(loss, *, kind=nn.Linear, model=None, optimizer=None, batches=None, **options):
    torch.manual_seed(0)
    model = model or kind(4, 1)
    optimizer = optimizer or torch.optim.Adam(model.parameters())
    known = {"steps": 40, "for_steps": 20}
    return lrtool.find_lr(model, optimizer, loss, batches or loader(), **(known | options))


def subtracting(outputs, targets):
    return (outputs - targets).square().mean()


def test_a_loss_that_compares_all_with_all():
    words = (
        r"subtracting compares each output with every target: outputs are \(32, 1\), targets \(32,"
    )
    with pytest.warns(LrtoolWarning, match=words):
        find(subtracting, batches=loader(y=Y[:, 0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find(subtracting)


def test_a_loss_that_adds_up_its_samples():
    with pytest.warns(LrtoolWarning, match="<lambda> adds up the samples of a batch"):
        find(lambda outputs, targets: (outputs - targets).square().sum())


def test_parameters_that_the_optimizer_lacks():
    scale = nn.Parameter(torch.ones(3))

    def scaled(outputs, targets):
        return subtracting(outputs * scale.mean(), targets)

    with pytest.warns(LrtoolWarning, match="scaled depends on 3 trainable parameters that are"):
        find(scaled)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.Adam([*model.parameters(), scale])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find(scaled, model=model, optimizer=optimizer)
    assert scale.tolist() == [1, 1, 1]


def test_the_first_update_is_measured_from_all_that_the_optimizer_has():
    """The loss (w · s · x)², with s outside of the model: at rate 0 it is the one before."""
    model, scale = nn.Linear(1, 1, bias=False), nn.Parameter(torch.tensor([2.0]))
    nn.init.constant_(model.weight, 1.0)
    x, y = torch.ones(4, 1), torch.zeros(4, 1)
    optimizer = torch.optim.SGD([*model.parameters(), scale], lr=0.1)
    cpu, seen = Runtime(torch.device("cpu")), []

    def loss(outputs, targets):
        value = (outputs * scale - targets).square().mean()
        seen.append(value.item())
        return value

    step = make_step(model, loss, optimizer, cpu)
    first_update(step, model, loss, [(x, y)], cpu, optimized=[*model.parameters(), scale])
    # the step, and the first look: (1 · 2)² = 4
    assert seen[:2] == pytest.approx([4, 4])


def test_a_schedule_that_the_optimizer_has():
    model = nn.Linear(4, 1)
    optimizer = torch.optim.Adam(model.parameters())
    torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    with pytest.warns(LrtoolWarning, match="the schedule beside the optimizer is ignored"):
        find(F.mse_loss, model=model, optimizer=optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find(F.mse_loss, model=model, optimizer=optimizer, schedule="cosine")


def test_inside_of_autocast_it_is_refused():
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(UserError, match=r"inside of torch.autocast; .* as precision=.bf16"),
    ):
        find(F.mse_loss)


def test_a_scaler_in_fp32():
    scaler = torch.amp.GradScaler("cpu")
    with pytest.warns(LrtoolWarning, match="a gradient scaler is for fp16, and"):
        find(F.mse_loss, scaler=scaler)


class InPlace(nn.Linear):
    def forward(self, x):
        return super().forward(x.mul_(2))


def test_batches_that_a_model_changes_in_place_are_the_callers_as_before():
    batches = list(loader())
    before = [[part.clone() for part in batch] for batch in batches]
    found = find(F.mse_loss, kind=InPlace, batches=batches)
    assert all(torch.equal(a, b) for one, two in zip(batches, before, strict=True)
               for a, b in zip(one, two, strict=True))  # fmt: skip
    assert find(F.mse_loss, kind=InPlace, batches=iter(batches)).lr == found.lr


def test_so_are_batches_that_a_dataset_holds():
    batches = list(loader())
    before = [[part.clone() for part in batch] for batch in batches]
    find(F.mse_loss, kind=InPlace, batches=DataLoader(batches, batch_size=None))
    for one, two in zip(batches, before, strict=True):
        assert all(map(torch.equal, one, two))


class Once:
    """A pass goes on where the one before ended."""

    def __init__(self):
        self.batches = iter(loader())

    def __iter__(self):
        return self.batches


def test_a_loader_that_can_be_gone_through_once():
    words = "a further pass over loader yields no batch: what it goes through is used up"
    with pytest.raises(DataError, match=words):
        find(F.mse_loss, batches=Once())
    assert find(F.mse_loss, batches=iter(loader())).lr


class OwnLoss(nn.Linear):
    def training_loss(self, batch):
        return F.mse_loss(self(batch[0]), batch[1])


def test_own_is_the_models_own_loss_as_in_a_configuration():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rates = [find(loss, kind=OwnLoss).lr for loss in ("own", None)]
    assert rates[0] == rates[1]


def test_what_a_schedule_and_a_loader_do_already_is_no_advice():
    whole = DataLoader(TensorDataset(X, Y), batch_size=128)
    assert followed(loader(), None, "cosine") == set()
    assert followed(whole, None, "one_cycle") == {verdict.WARMUP, verdict.FULL_BATCH}
    assert followed(iter([(X, Y)]), whole, "constant") == {verdict.VALIDATION}
