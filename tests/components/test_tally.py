"""What predictions add up to, by hand and against scikit-learn."""

import math

import numpy as np
import pytest
import torch
from metric_batches import classes, random
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from lrtool.components import tally as tallies
from lrtool.components.metric_inputs import Units
from lrtool.components.tally import Tally
from lrtool.ranks import ALONE

LOGITS = "binary_cross_entropy_with_logits"
SIZES = [7, 16, 1, 16, 5, 3, 2]


def counted(loss, outputs, targets, sizes=None, loss_args=None, **more):
    tally = Tally(loss, loss_args or {}, **more)
    sizes = sizes or len(outputs)
    for batch in zip(outputs.split(sizes), targets.split(sizes), strict=True):
        tally.update(*batch)
    return tally.facts(ALONE)


def of_scores(predicted, width):
    return torch.nn.functional.one_hot(torch.tensor(predicted), width).float()


def test_classes_by_hand():
    """Three of class a, of which one is taken for b; one of c, taken for a; none of b."""
    targets = torch.tensor([0, 0, 0, 2])
    facts = counted("cross_entropy", of_scores([0, 1, 0, 0], 3), targets, names=["a", "b", "c"])
    assert facts.samples == 4
    assert facts.matrix == ((2, 1, 0), (0, 0, 0), (1, 0, 0))
    a, b, c = facts.classes
    assert (a.name, a.support, a.predicted, a.right) == ("a", 3, 3, 2)
    assert (a.precision, a.recall, a.f1) == (2 / 3, 2 / 3, 2 / 3)
    assert (b.support, b.precision, b.recall, b.f1) == (0, 0, None, 0)
    assert (c.precision, c.recall, c.f1) == (None, 0, 0)
    assert facts.values == ()
    assert facts.reason is None


@pytest.mark.parametrize("sizes", [50, SIZES, 1])
def test_classes_are_those_of_scikit_learn(sizes):
    outputs, targets = random(50, 6), classes(6, 50)
    facts = counted("cross_entropy", outputs, targets, sizes)
    predicted = outputs.argmax(1)
    assert np.array_equal(facts.matrix, confusion_matrix(targets, predicted))
    expected = precision_recall_fscore_support(targets, predicted, zero_division=np.nan)
    found = [(c.precision, c.recall, c.f1, c.support) for c in facts.classes]
    found = [[math.nan if each is None else each for each in row] for row in found]
    assert np.allclose(np.transpose(found), expected, equal_nan=True)
    assert [c.name for c in facts.classes] == list("012345")


def test_targets_that_are_ignored_do_not_count():
    outputs = of_scores([0, 0, 0], 2)
    facts = counted("cross_entropy", outputs, torch.tensor([0, -100, 1]))
    assert (facts.samples, facts.matrix) == (2, ((1, 0), (1, 0)))
    facts = counted("nll_loss", outputs, torch.tensor([7, 7, 1]), loss_args={"ignore_index": 7})
    assert (facts.samples, facts.matrix) == (1, ((0, 0), (1, 0)))


@pytest.mark.parametrize(
    ("loss", "outputs"),
    [
        (LOGITS, [[-0.1], [0.2], [3.0], [-4.0]]),
        (LOGITS, [-0.1, 0.2, 3.0, -4.0]),
        ("binary_cross_entropy", [0.4, 0.6, 0.9, 0.1]),
    ],
)
def test_two_classes_of_one_output(loss, outputs):
    outputs = torch.tensor(outputs)
    targets = torch.tensor([0.0, 0.0, 1.0, 1.0]).reshape(outputs.shape)
    facts = counted(loss, outputs, targets, names=["no", "yes"])
    assert facts.matrix == ((1, 1), (1, 1))
    assert [(c.name, c.support, c.precision) for c in facts.classes] == [
        ("no", 2, 0.5),
        ("yes", 2, 0.5),
    ]


def test_labels_have_figures_but_no_matrix():
    outputs, targets = random(40, 3), classes(2, 40, 3).float()
    facts = counted(LOGITS, outputs, targets, [13, 27])
    expected = precision_recall_fscore_support(targets, outputs > 0)
    found = [(c.precision, c.recall, c.f1, c.support) for c in facts.classes]
    assert np.allclose(np.transpose(found), expected)
    assert (facts.samples, facts.matrix) == (40, ())


def test_many_classes_have_no_matrix_and_more_have_nothing():
    facts = counted("cross_entropy", random(90, 51), classes(51, 90))
    assert len(facts.classes) == 51
    assert facts.matrix == ()
    assert facts.reason == ("with 51 classes there is no confusion matrix, which is kept up to 50")
    facts = counted("cross_entropy", random(90, 201), classes(201, 90))
    assert (facts.classes, facts.reason) == ((), "201 classes are more than 200")


def test_values_by_hand():
    """Residuals 1, 0, −2 in the target's units: −1/3 on average, √(5/3) in root mean square."""
    outputs, targets = torch.tensor([[0.5], [1.0], [0.0]]), torch.tensor([[0.0], [1.0], [1.0]])
    facts = counted("mse", outputs, targets, [1, 2], units=Units(10, 2), target="price")
    (price,) = facts.values
    assert price.name == "price"
    assert (price.actual, price.predicted) == ((10, 12, 12), (11, 12, 10))
    assert price.mean_residual == pytest.approx(-1 / 3)
    assert price.rmse == pytest.approx(math.sqrt(5 / 3))
    assert price.edges == pytest.approx((-2, -1.4, -0.8, -0.2, 0.4, 1))
    assert price.counts == (1, 0, 0, 1, 1)
    assert (facts.samples, facts.classes, facts.reason) == (3, (), None)


@pytest.mark.parametrize("shape", [(1000,), (1000, 1)])
def test_of_many_values_a_fixed_sample_is_kept(shape):
    targets = 20 * random(*shape)
    outputs = targets + 1
    facts, again, other = (
        counted("mse", outputs, targets, 64, seed=seed).values[0] for seed in (3, 3, 4)
    )
    assert facts == again != other
    assert len(facts.actual) == 300
    assert set(facts.actual) <= {round(each, 4) for each in targets.flatten().tolist()}
    assert np.allclose(np.subtract(facts.predicted, facts.actual), 1, atol=2e-4)
    assert sum(facts.counts) == 1000


def test_several_values_are_shown_one_by_one():
    outputs, targets = random(20, 6), random(20, 6, seed=1)
    facts = counted("l1_loss", outputs, targets, [13, 7])
    assert len(facts.values) == 4
    assert facts.reason == "the first 4 of 6 outputs are shown"
    errors = (outputs - targets).double()
    for k, value in enumerate(facts.values):
        assert value.mean_residual == pytest.approx(float(errors[:, k].mean()))
        assert value.rmse == pytest.approx(float(errors[:, k].square().mean().sqrt()))
        assert value.name is None


def test_counts_are_predicted_where_outputs_are_their_logarithm():
    facts = counted("poisson_nll_loss", torch.tensor([0.0, math.log(3)]), torch.tensor([1.0, 5]))
    assert facts.values[0].predicted == pytest.approx((1, 3), abs=1e-4)


@pytest.mark.parametrize("error", [0.0, 1e-300, 1e17])
def test_residuals_that_hardly_differ_share_a_bin(error):
    targets = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    (value,) = counted("mse", targets + error, targets).values
    assert sum(value.counts) == 3
    assert value.rmse == pytest.approx(error, abs=1e-15)


NAN = torch.tensor([[1.0, math.nan], [0.0, 1.0]])


@pytest.mark.parametrize(
    ("loss", "outputs", "targets", "reason"),
    [
        ("net:loss", random(4, 2), classes(2, 4), "a loss of your own; a built-in metric"),
        ("cross_entropy", random(4, 5, 3), classes(5, 4, 3), "a sample has many classes: "),
        ("mse", random(4, 1, 8, 8), random(4, 1, 8, 8), "a sample has many outputs: outputs of"),
        ("cross_entropy", NAN, torch.tensor([0, 1]), "some outputs or targets are NaN"),
        ("mse", NAN, NAN.nan_to_num(), "targets of 2 of 4 samples are not finite"),
        ("mse", NAN.nan_to_num(), NAN + math.inf, "targets of 4 of 4 samples"),
        (LOGITS, random(2), torch.tensor([0.3, 1.0]), "some targets lie between 0 and 1"),
        ("cross_entropy", random(2, 2), torch.tensor([[0.3, 0.7], [1, 0]]), "targets lie between"),
        ("hinge_embedding_loss", random(2), torch.tensor([-1.0, 1]), "needs a threshold between"),
        ("mse", random(2, 3), random(2, 2), "takes targets of the outputs' shape"),
        ("mse", {"y": 1}, random(2), "outputs or targets are not a tensor"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_left_out_and_said(loss, outputs, targets, reason):
    tally = Tally(loss, {})
    tally.update(outputs, targets)
    tally.update(outputs, targets)
    facts = tally.facts(ALONE)
    assert (facts.samples, facts.classes, facts.matrix, facts.values) == (0, (), (), ())
    assert reason in facts.reason


def test_an_own_loss_is_read_as_a_built_in_metric_reads_it():
    outputs, targets = of_scores([1, 1], 2), torch.tensor([0, 1])
    facts = counted("net:focal", outputs, targets, metrics=["net:own", "accuracy"])
    assert facts.matrix == ((0, 1), (0, 1))
    assert not counted("net:focal", outputs, targets, metrics=["net:own"]).classes


def test_a_bug_in_it_is_a_reason(monkeypatch):
    monkeypatch.setattr(tallies, "prepare", lambda *_: 1 / 0)
    facts = counted("mse", random(3), random(3))
    assert facts.reason == "division by zero"


def test_more_than_can_be_kept_is_left_out(monkeypatch):
    monkeypatch.setattr(tallies, "MOST_KEPT", 5)
    facts = counted("mse", random(6), random(6, seed=1), 2)
    assert (facts.values, facts.reason) == ((), "there are more than 5 validation samples")


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_outputs_are_read_now_and_then_to_the_same_facts(monkeypatch, loss):
    outputs = random(50, 3)
    targets = classes(3, 50) if loss == "cross_entropy" else random(50, 3, seed=1)
    whole = counted(loss, outputs, targets, SIZES)
    monkeypatch.setattr(tallies, "MOST_HELD", 20)
    assert counted(loss, outputs, targets, SIZES) == whole


def test_what_is_changed_in_place_afterwards_does_not_matter():
    outputs, targets = of_scores([1, 0], 2), torch.tensor([1, 0])
    tally = Tally("cross_entropy", {})
    tally.update(outputs, targets)
    outputs.zero_()
    targets.zero_()
    assert tally.facts(ALONE).matrix == ((1, 0), (0, 1))


def test_batches_that_do_not_fit_each_other_are_a_reason():
    tally = Tally("cross_entropy", {})
    tally.update(random(2, 3), classes(3, 2))
    tally.update(random(2, 4), classes(3, 2))
    facts = tally.facts(ALONE)
    assert facts.classes == ()
    assert "Sizes of tensors must match" in facts.reason


def test_it_can_be_used_again():
    tally = Tally("cross_entropy", {})
    for targets in ([0, 1, 1], [1]):
        tally.reset()
        tally.update(of_scores([1] * len(targets), 2), torch.tensor(targets))
        facts = tally.facts(ALONE)
    assert (facts.samples, facts.matrix) == (1, ((0, 0), (0, 1)))


@pytest.mark.parametrize(
    ("loss", "outputs", "targets"),
    [
        ("cross_entropy", random(50, 6), classes(6, 50)),
        (LOGITS, random(50, 3), classes(2, 50, 3).float()),
        ("mse", random(50, 2), random(50, 2, seed=1)),
        ("net:own", random(50, 2), random(50, 2, seed=1)),
    ],
)
def test_several_ranks_add_up_to_one(in_ranks, loss, outputs, targets):
    """In the same order: of values the same samples are kept."""
    batches = list(zip(outputs.split(SIZES), targets.split(SIZES), strict=True))

    def run(ranks):
        tally = Tally(loss, {}, seed=1)
        for batch in batches[ranks.rank :: ranks.world_size]:
            tally.update(*batch)
        return tally.facts(ranks)

    assert in_ranks(2, run) == [counted(loss, outputs, targets, SIZES, seed=1)] * 2
