"""What a loss is a mean over: the loss of many batches is that of all at once."""

import functools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence

from lrtool.batch import Share
from lrtool.components.losses import build_loss
from lrtool.config.schema import ComponentConfig
from lrtool.engine.denominator import IGNORED, LossTotal, Reduction, in_all, reduction_of, shares
from lrtool.engine.device import Runtime
from lrtool.engine.evaluation import evaluate, losses
from lrtool.engine.readout import Readout
from lrtool.engine.step import make_step
from lrtool.engine.sweep import sweep
from lrtool.errors import DataError

CPU = Runtime(torch.device("cpu"))
WEIGHTS = [0.5, 2.0, 0.0, 1.5]


def built(name, **args):
    return build_loss(ComponentConfig(name=name, args=args), [])


class Focal(nn.Module):
    """A loss of the user's, with attributes as torch's losses have."""

    def __init__(self, ignore_index=-100, reduction="mean"):
        super().__init__()
        self.ignore_index, self.reduction = ignore_index, reduction

    def forward(self, outputs, targets):
        losses = F.cross_entropy(outputs, targets, ignore_index=self.ignore_index, reduction="none")
        focal = (1 - torch.exp(-losses)) * losses
        if self.reduction == "sum":
            return focal.sum()
        return focal.sum() / (targets != self.ignore_index).sum()


OF_CLASSES = {
    "built-in": built("cross_entropy"),
    "built-in, weighted": built("cross_entropy", weight=WEIGHTS),
    "built-in, smooth": built("cross_entropy", label_smoothing=0.1, ignore_index=1),
    "built-in, smooth and weighted": built(
        "cross_entropy", label_smoothing=0.1, weight=[0.5, 2, 1, 3]
    ),
    "function": F.cross_entropy,
    "partial": functools.partial(F.cross_entropy, ignore_index=3, weight=torch.tensor(WEIGHTS)),
    "module": nn.CrossEntropyLoss(ignore_index=0),
    "weighted module": nn.CrossEntropyLoss(torch.tensor(WEIGHTS)),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "partial of a sum": functools.partial(F.cross_entropy, reduction="sum", ignore_index=2),
    "own module": Focal(ignore_index=2),
    "own sum": Focal(reduction="sum"),
}


class Around(nn.Module):
    """A loss of the user's, which calls one of torch's."""

    def __init__(self, **args):
        super().__init__()
        self.criterion = nn.CrossEntropyLoss(**args)

    def forward(self, outputs, targets):
        return self.criterion(outputs.flatten(0, 1), targets.flatten())


CRITERION = nn.CrossEntropyLoss(ignore_index=0, weight=torch.tensor([1.0, 2.0, 3.0]))


def around(outputs, targets):
    return CRITERION(outputs.flatten(0, 1), targets.flatten())


def enclosing(criterion):
    return lambda outputs, targets: criterion(outputs.flatten(0, 1), targets.flatten())


def test_a_loss_around_one_of_torchs_counts_as_that():
    labels = torch.tensor([[0, 1, 2, 0], [2, 2, 0, 0]])
    batch = (torch.zeros(2, 4), labels)
    weight = CRITERION.weight
    for loss in (Around(ignore_index=0, weight=weight), around, enclosing(CRITERION)):
        assert reduction_of(loss).denominator(batch) == 2 + 3 * 3
    assert reduction_of(Around(ignore_index=0)).denominator(batch) == 4
    # Of two, or of one that adds up or leaves the mean to the user, nothing is known.
    two = Around(ignore_index=0)
    two.other = nn.MSELoss()
    for loss in (two, Around(ignore_index=0, reduction="none"), Around(reduction="sum")):
        assert reduction_of(loss).denominator(batch) == 8


def test_a_language_model_predicts_no_first_token():
    """As those of transformers: the label of the first token counts nothing."""

    class TinyForCausalLM(nn.Linear):
        pass

    labels = torch.tensor([[5, 1, 2, -100], [-100, 3, -100, -100]])
    batch = {"input_ids": labels, "labels": labels}
    assert reduction_of(None, TinyForCausalLM(2, 2)).denominator(batch) == 3
    assert reduction_of(None, nn.Linear(2, 2)).denominator(batch) == 4
    assert reduction_of(F.cross_entropy, TinyForCausalLM(2, 2)).denominator(batch) == 4


def test_a_function_says_by_an_argument_what_it_ignores():
    labels = torch.tensor([[0, 1, 2, 0], [2, 2, 0, 0]])
    batch = (torch.zeros(2, 4), labels)

    def padded(outputs, targets, ignore_index=0):
        return F.cross_entropy(outputs, targets, ignore_index=ignore_index)

    def told(outputs, targets, ignore_index):
        return padded(outputs, targets, ignore_index)

    assert reduction_of(padded).denominator(batch) == 4
    assert reduction_of(functools.partial(padded, ignore_index=1)).denominator(batch) == 7
    assert reduction_of(functools.partial(told, ignore_index=2)).denominator(batch) == 5
    assert reduction_of(functools.partial(told, ignore_index=2)).ignored == 2
    assert reduction_of(told).denominator(batch) == 8


@st.composite
def labelled(draw, tokens):
    """Inputs, and classes of which some are ignored; and how they are split into batches."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    shape = (sum(sizes), *tokens)
    labels = draw(
        st.lists(
            st.sampled_from([IGNORED, IGNORED, 0, 1, 2, 3]),
            min_size=math.prod(shape),
            max_size=math.prod(shape),
        )
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    x = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    return x, torch.tensor(labels).reshape(shape), sizes


class Classifier(nn.Module):
    """Logits of four classes, in the second dimension."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 4, dtype=torch.float64)

    def forward(self, x):
        return self.layer(x).movedim(-1, 1)


def result(generator):
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def in_double(loss_fn):
    """Return a loss whose class weights are in double precision."""
    if isinstance(loss_fn, nn.Module):
        return loss_fn.double()
    weight = getattr(loss_fn, "keywords", {}).get("weight")
    return loss_fn if weight is None else functools.partial(loss_fn, weight=weight.double())


@pytest.mark.parametrize("name", OF_CLASSES)
@pytest.mark.parametrize("tokens", [(), (3,)])
@settings(max_examples=20)
@given(data=st.data())
def test_batches_have_the_loss_and_the_gradient_of_all_at_once(name, tokens, data):
    x, y, sizes = data.draw(labelled(tokens))
    loss_fn = in_double(OF_CLASSES[name])
    y = torch.where(y == IGNORED, reduction_of(loss_fn).ignored, y)
    batches = list(zip(x.split(sizes), y.split(sizes), strict=True))
    model = Classifier()
    whole = loss_fn(model(x), y)
    found = result(evaluate(model, loss_fn, batches, CPU, {}))
    if reduction_of(loss_fn).denominator((x, y)) == 0:
        assert math.isnan(found.loss)
        return
    assert found.loss == pytest.approx(whole.item(), rel=1e-6)

    expected = torch.autograd.grad(whole, model.layer.weight)[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = model.layer.weight.detach().clone()
    out = make_step(model, loss_fn, optimizer, CPU)(batches, 1.0)
    assert out.loss.item() == pytest.approx(whole.item(), rel=1e-6)
    step = before - model.layer.weight.detach()
    torch.testing.assert_close(step, expected, rtol=1e-5, atol=1e-7)


VALUES = {
    "mse": (built("mse"), (2,)),
    "l1, three-dimensional": (built("l1"), (2, 3)),
    "smooth l1": (nn.SmoothL1Loss(), (2,)),
    "sum": (functools.partial(F.mse_loss, reduction="sum"), (2,)),
    "module of a sum": (nn.L1Loss(reduction="sum"), ()),
    "huber": (nn.HuberLoss(delta=0.5), ()),
    "bce": (built("bce_with_logits", pos_weight=[1.0, 3.0]), (2,)),
    "kl": (built("kl_div"), (2,)),
    "kl over samples": (nn.KLDivLoss(reduction="batchmean"), (2,)),
    "soft targets": (built("cross_entropy", weight=[1.0, 3.0]), (2,)),
    "soft tokens": (F.cross_entropy, (2, 3)),
    "own function": (lambda outputs, targets: (outputs - targets).square().mean(), (2,)),
}


@pytest.mark.parametrize("name", VALUES)
@settings(max_examples=20)
@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6))
def test_values_count_alike_in_batches_and_at_once(name, sizes):
    loss_fn, shape = VALUES[name]
    generator = torch.Generator().manual_seed(len(sizes))
    x, y = torch.rand(2, sum(sizes), *shape, generator=generator)
    batches = list(zip(x.split(sizes), y.split(sizes), strict=True))
    found = result(evaluate(nn.Identity(), loss_fn, batches, CPU, {}))
    assert found.loss == pytest.approx(loss_fn(x, y).item(), rel=1e-5)


def test_sequences_of_unequal_length_count_by_their_elements():
    # errors 1 in the first batch (2 × 1 values), 2 in the second (1 × 4): mean (2·1 + 4·4) / 6
    batches = [(torch.ones(2, 1), torch.zeros(2, 1)), (torch.full((1, 4), 2.0), torch.zeros(1, 4))]
    found = result(evaluate(nn.Identity(), F.mse_loss, batches, CPU, {}))
    assert found.loss == pytest.approx((2 * 1 + 4 * 4) / 6)
    assert found.samples == 3


@pytest.mark.parametrize(
    ("batch", "denominator"),
    [
        ((torch.ones(8, 5, 2), torch.ones(5, 1)), 5),  # time first
        ((pack_sequence([torch.ones(4, 2), torch.ones(2, 2)]), torch.ones(2)), 2),
        ({"x": torch.ones(8, 5), "y": torch.ones(5)}, 5),
        ((torch.ones(2, 3), [{"boxes": torch.ones(4, 4)}, {"boxes": torch.ones(1, 4)}]), 2),
        (torch.ones(6, 2), 6),
    ],
)
def test_an_unknown_loss_counts_samples_by_the_targets(batch, denominator):
    for loss_fn in (None, lambda outputs, _: outputs.mean(), nn.MultiMarginLoss()):
        assert reduction_of(loss_fn).denominator(batch) == denominator


def unknown(outputs, targets):
    return F.cross_entropy(outputs, targets)


def test_an_unknown_loss_counts_labels_but_those_that_torch_would_ignore():
    y = torch.tensor([[0, 1, -100], [2, -100, -100]])
    for loss_fn in (None, unknown):
        assert reduction_of(loss_fn).denominator((None, y)) == 3
        assert reduction_of(loss_fn).denominator({"x": None, "labels": y[:, 2:]}) == 0
    model = Classifier()
    batches = [
        (torch.ones(1, 3, 3, dtype=torch.float64), y[:1]),
        (torch.zeros(1, 3, 3).double(), y[1:]),
    ]
    x, labels = (torch.cat(part) for part in zip(*batches, strict=True))
    found = result(evaluate(model, unknown, batches, CPU, {}))
    assert found.loss == pytest.approx(F.cross_entropy(model(x), labels).item())


class WithLabels(Classifier):
    """A model with a loss of its own, which is NaN where all labels are ignored."""

    def forward(self, x, labels):
        return {"loss": F.cross_entropy(super().forward(x), labels)}


def test_a_models_own_loss_of_nothing_changes_nothing_either():
    weights = []
    for group in ([SOMETHING, NOTHING], [SOMETHING], [NOTHING]):
        model = WithLabels()
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        batches = [{"x": x, "labels": y} for x, y in group]
        out = make_step(model, None, optimizer, CPU)(batches, 1.0)
        assert math.isfinite(out.loss)
        weights.append(model.layer.weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[2], WithLabels().layer.weight)


def test_denominators_by_hand():
    y = torch.tensor([0, 1, 2, 3, -100, 1])
    assert reduction_of(F.cross_entropy).denominator((None, y)) == 5
    assert reduction_of(nn.CrossEntropyLoss(ignore_index=1)).denominator((None, y[:4])) == 3
    weighted = nn.CrossEntropyLoss(torch.tensor(WEIGHTS))
    assert reduction_of(weighted).denominator((None, y)) == 0.5 + 2 + 0 + 1.5 + 2
    assert reduction_of(nn.MSELoss()).denominator((None, torch.ones(4, 3))) == 12
    assert reduction_of(nn.MSELoss(reduction="sum")).denominator((None, y)) is None
    assert reduction_of(F.cross_entropy).denominator((None, torch.ones(4, 3, 5))) == 20
    assert reduction_of(F.cross_entropy).denominator((None, y[:4].byte())) == 4


class Half(nn.CrossEntropyLoss):
    def forward(self, outputs, targets):
        return super().forward(outputs, targets) / 2


def test_losses_are_known_by_what_they_compute():
    assert reduction_of(Half(ignore_index=5)).ignored == 5  # by its attributes
    assert reduction_of(built("sparse_categorical_crossentropy", ignore_index=3)).ignored == 3
    assert reduction_of(built("nll", weight=[1.0, 2.0])).weight.tolist() == [1.0, 2.0]
    assert reduction_of(functools.partial(Half())) == Reduction("classes")
    assert reduction_of(functools.partial(print, reduction="sum")).summed
    assert reduction_of(Focal(ignore_index=None)) == Reduction("samples")  # it ignores nothing
    margins = Focal()
    margins.weight = nn.Parameter(torch.ones(3, 2))  # of its own, not of classes
    assert reduction_of(margins).weight is None


def test_shares_add_up_to_one_and_none_divides_by_zero():
    assert shares([3]) == [1.0]
    assert shares([3, 1, 0]) == [0.75, 0.25, 0.0]
    assert shares([0, 0]) == [0.0, 0.0]
    assert shares([None, None]) == [1.0, 1.0]
    assert [s.item() for s in shares([torch.tensor(3), torch.tensor(1)])] == [0.75, 0.25]
    assert [s.item() for s in shares([torch.tensor(0), torch.tensor(0)])] == [0.0, 0.0]
    assert in_all([1, 2, None]) is None


def test_the_loss_of_all_leaves_out_what_has_no_targets():
    total = LossTotal()
    assert math.isnan(total.mean())
    total.add(math.nan, 0)
    assert math.isnan(total.mean())
    total.add(2.0, 3)
    total.add(math.nan, 0)
    total.add(4.0, 1)
    assert total.mean() == 2.5
    total.add(math.nan, 1)
    assert math.isnan(total.mean())  # NaN of targets that count is not hidden
    sums = LossTotal()
    sums.add(2.0, None)
    sums.add(4.0, None)
    assert sums.mean() == 6.0


NOTHING = (torch.ones(3, 3, dtype=torch.float64), torch.full((3,), IGNORED))
SOMETHING = (torch.ones(2, 3, dtype=torch.float64), torch.tensor([1, IGNORED]))


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize(
    "loss_fn",
    [
        F.cross_entropy,
        nn.CrossEntropyLoss(label_smoothing=0.1),
        nn.CrossEntropyLoss(torch.tensor(WEIGHTS), label_smoothing=0.1).double(),
        nn.CrossEntropyLoss(ignore_index=0),
        Focal(),
    ],
)
def test_a_batch_without_targets_changes_nothing(loss_fn, on_device, monkeypatch):
    if on_device:  # as on an accelerator, where denominators are tensors
        of_host = Reduction.denominator
        monkeypatch.setattr(
            Reduction, "denominator", lambda self, batch: torch.tensor(of_host(self, batch))
        )
    ignored = reduction_of(loss_fn).ignored
    nothing, something = (
        (x, torch.where(y == IGNORED, ignored, y)) for x, y in (NOTHING, SOMETHING)
    )
    weights = []
    for group in ([nothing], [something, nothing], [something]):
        model = Classifier()
        before = model.layer.weight.detach().clone()
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        readout = Readout()
        readout.add(make_step(model, loss_fn, optimizer, CPU, clip_norm=100.0)(group, 1.0))
        [values] = readout.take()
        weights.append(model.layer.weight.detach())
        if len(weights) == 1:
            assert torch.equal(weights[0], before)
            assert math.isnan(values.loss)
            assert (values.denominator, values.grad_norm) == (0, 0)
        else:
            assert values.loss == pytest.approx(
                loss_fn(Classifier()(something[0]), something[1]).item()
            )
    assert torch.equal(weights[1], weights[2])


def test_classes_of_weight_0_are_as_if_ignored():
    loss_fn = nn.CrossEntropyLoss(torch.tensor([0.0, 1.0, 1.0, 1.0]).double())
    model = Classifier()
    before = model.layer.weight.detach().clone()
    batch = (torch.ones(2, 3, dtype=torch.float64), torch.tensor([0, 0]))
    out = make_step(model, loss_fn, torch.optim.SGD(model.parameters(), lr=1.0), CPU)([batch], 1.0)
    assert out.denominator == 0
    assert torch.equal(model.layer.weight, before)


def test_a_model_that_gives_nan_is_not_excused_by_targets_that_are_ignored():
    model = Classifier()
    with torch.no_grad():
        model.layer.weight.fill_(math.nan)
    found = result(evaluate(model, F.cross_entropy, [NOTHING, SOMETHING], CPU, {}))
    assert math.isnan(found.loss)


def test_each_loss_of_held_out_batches_is_plain():
    found = losses(Classifier(), F.cross_entropy, [SOMETHING, NOTHING], CPU)
    assert found[0] == pytest.approx(
        F.cross_entropy(Classifier()(SOMETHING[0]), SOMETHING[1]).item()
    )


def test_a_sweep_leaves_steps_without_targets_out():
    model = Classifier()
    step = make_step(model, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=1.0), CPU)
    groups = [[NOTHING] if i % 3 else [SOMETHING] for i in range(30)]
    rows = list(sweep(step, iter(groups), [1e-3] * 30))
    assert len(rows) == 30
    assert [row.denominator for row in rows] == [0 if i % 3 else 1 for i in range(30)]
    assert all(math.isnan(row.loss) == bool(row.step % 3) for row in rows)


def test_the_error_of_a_part_without_targets():
    with pytest.raises(DataError) as caught:
        raise reduction_of(nn.CrossEntropyLoss(ignore_index=255)).no_targets("the training data")
    assert str(caught.value) == (
        "every target of the training data is 255, which the loss ignores: there is nothing to "
        "learn from"
    )


def test_nothing_is_counted_where_all_targets_count():
    y = torch.tensor([[0, 1], [2, 3]])
    plain, weighted = reduction_of(F.cross_entropy), reduction_of(built("nll", weight=[1.0, 2.0]))
    assert plain.for_all(y).denominator((None, y[:1])) == plain.denominator((None, y[:1])) == 2
    assert plain.for_all(y).over == "elements"
    assert plain.for_all(torch.tensor([0, IGNORED])) is plain
    assert plain.for_all(torch.rand(3, 2)) is plain
    assert weighted.for_all(y) is weighted
    assert reduction_of(nn.CrossEntropyLoss(reduction="sum")).for_all(y).summed


def test_the_denominator_of_a_share_is_that_of_its_own_samples():
    y = torch.tensor([0, IGNORED, 2])
    for name, expected in (("cross_entropy", 2), ("mse", 3)):
        reduction = reduction_of(built(name))
        assert reduction.denominator(Share((None, y), 9)) == expected
        assert reduction.denominator(Share((None, y), 9, counts=False)) == 0
    summed = reduction_of(nn.CrossEntropyLoss(reduction="sum"))
    assert summed.denominator(Share((None, y), 9)) is None
    assert summed.denominator(Share((None, y), 9, counts=False)) == 0


def test_a_share_without_targets_gets_others():
    share = Share((None, torch.tensor([IGNORED])), 9)
    (_, targets) = reduction_of(F.cross_entropy).countable(share, 0).batch
    assert targets.tolist() == [0]
