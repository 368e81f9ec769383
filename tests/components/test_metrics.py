"""Metrics against scikit-learn, NumPy and by hand, on batches of uneven sizes."""

import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_batches import build, classes, random
from sklearn import metrics as sk

from lrtool.components.losses import LOSSES
from lrtool.components.metrics import METRICS, higher_is_better, key
from lrtool.errors import ConfigError, LrtoolWarning, UserError

LOGITS = "binary_cross_entropy_with_logits"
CLASSES = ["accuracy", "precision", "recall", "f1", "auroc", "average_precision"]
VALUES = ["mae", "mse", "rmse", "r2"]


def coins(*shape, seed=1):
    return classes(2, *shape, seed=seed).float()


def feed(metric, outputs, targets, size=16):
    for start in range(0, len(targets), size):
        metric.update(outputs[start : start + size], targets[start : start + size])
    return metric.compute()


def values(names, loss, outputs, targets, size=16, *, directories=(), **loss_args):
    built = build(names, loss, outputs[:size], targets[:size], directories=directories, **loss_args)
    assert list(built) == [key(name) for name in names]
    return {name: feed(metric, outputs, targets, size) for name, metric in built.items()}


def value(name, loss, outputs, targets, size=16, *, directories=(), **loss_args):
    built = values([name], loss, outputs, targets, size, directories=directories, **loss_args)
    [found] = built.values()
    return found


def problems(names, loss, outputs, targets, directories=()):
    with pytest.raises(ConfigError) as error:
        build(names, loss, outputs, targets, directories)
    return {problem.path: problem.message for problem in error.value.problems}


def problem(name, loss, outputs, targets, directories=()):
    found = problems([name], loss, outputs, targets, directories)
    assert list(found) == [("metrics", 0)]
    return found["metrics", 0]


def expected(true, predicted, scores, average, **ovr):
    """What scikit-learn says of labels and scores."""
    common = {"average": average, "zero_division": 0}
    return {
        "accuracy": np.mean(true == predicted),
        "precision": sk.precision_score(true, predicted, **common),
        "recall": sk.recall_score(true, predicted, **common),
        "f1": sk.f1_score(true, predicted, **common),
        "auroc": sk.roc_auc_score(true, scores, **ovr),
        "average_precision": sk.average_precision_score(true, scores),
    }


# --- Values


@pytest.mark.parametrize("loss", ["cross_entropy", "nll_loss", "multi_margin_loss"])
def test_classes_against_scikit_learn(loss):
    outputs, targets = random(50, 4), classes(4, 50)
    if loss == "nll_loss":
        outputs = outputs.log_softmax(1)
    scores = outputs.double().softmax(1).numpy()
    wanted = expected(targets.numpy(), scores.argmax(1), scores, "macro", multi_class="ovr")
    assert values(CLASSES, loss, outputs, targets) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("scale", [0.01, 1, 30])
@pytest.mark.parametrize("loss", [LOGITS, "binary_crossentropy", "soft_margin_loss"])
def test_one_output_for_two_classes_against_scikit_learn(loss, scale):
    outputs, targets = random(50, 1) * scale, coins(50, 1)
    true = targets.int().numpy().ravel()
    wanted = expected(true, (outputs > 0).int().numpy().ravel(), outputs.numpy(), "binary")
    shown = targets * 2 - 1 if loss == "soft_margin_loss" else targets
    assert values(CLASSES, loss, outputs, shown) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("loss", [LOGITS, "multilabel_soft_margin_loss", "soft_margin_loss"])
def test_labels_against_scikit_learn(loss):
    outputs, targets = random(50, 3), coins(50, 3)
    true, predicted = targets.int().numpy(), (outputs > 0).int().numpy()
    wanted = expected(true, predicted, outputs.numpy(), "macro")
    shown = targets * 2 - 1 if loss == "soft_margin_loss" else targets
    assert values(CLASSES, loss, outputs, shown) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("width", [1, 3])
def test_probabilities_are_cut_at_one_half_and_ranked_as_they_are(width):
    outputs, targets = random(50, width).sigmoid(), coins(50, width)
    true, predicted = targets.int().numpy(), (outputs > 0.5).int().numpy()
    average = "binary" if width == 1 else "macro"
    wanted = expected(true, predicted, outputs.numpy(), average)
    found = values(CLASSES, "binary_cross_entropy", outputs, targets)
    assert found == pytest.approx(wanted, abs=1e-6)


def test_logits_between_0_and_1_are_no_probabilities():
    # each batch lies within [0, 1], where torchmetrics alone would cut at one half
    outputs, targets = torch.tensor([[0.1], [0.4], [0.2], [0.3]]), torch.ones(4, 1)
    assert value("accuracy", LOGITS, outputs, targets, 2) == 1


def test_large_logits_keep_their_order():
    # a sigmoid in single precision is 1 for all of these
    outputs = torch.tensor([[40.0], [60.0], [50.0], [70.0]])
    targets = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    assert value("auroc", LOGITS, outputs, targets, 2) == 1
    assert value("auroc", LOGITS, outputs, 1 - targets, 2) == 0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(-(10**6), 10**6), st.booleans()), min_size=2, max_size=40))
def test_auroc_is_the_share_of_pairs_in_order(rows):
    outputs = torch.tensor([[score / 1000] for score, _ in rows])
    targets = torch.tensor([[float(label)] for _, label in rows])
    if targets.min() == targets.max():
        targets[0] = 1 - targets[0]
    high, low = outputs[targets == 1], outputs[targets == 0]
    ties = (high[:, None] == low).double() / 2
    wanted = ((high[:, None] > low) + ties).mean().item()
    assert value("auroc", LOGITS, outputs, targets, 7) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_accuracy_is_torchmetrics_to_the_last_bit(count):
    from torchmetrics.classification import (
        BinaryAccuracy,
        MulticlassAccuracy,
        MultilabelAccuracy,
    )

    outputs, targets = random(count, 6), classes(6, count)
    wanted = float(MulticlassAccuracy(6, average="micro")(outputs, targets))
    assert value("accuracy", "cross_entropy", outputs, targets) == wanted
    for width, theirs in ((1, BinaryAccuracy()), (3, MultilabelAccuracy(3, average="micro"))):
        outputs, targets = random(count, width), coins(count, width)
        wanted = float(theirs(outputs, targets.int()))
        assert value("accuracy", LOGITS, outputs, targets) == wanted


@pytest.mark.parametrize("count", [1, 7, 1000])
@pytest.mark.parametrize(
    ("name", "theirs"), [("precision", "Precision"), ("recall", "Recall"), ("f1", "F1Score")]
)
def test_scores_of_classes_are_torchmetrics_to_the_last_bit(name, theirs, count):
    from torchmetrics import classification

    def wanted(task, outputs, targets, **width):
        metric = getattr(classification, task + theirs)(**width)
        for start in range(0, count, 16):
            metric.update(outputs[start : start + 16], targets[start : start + 16].long())
        return metric.compute()

    outputs, targets = random(count, 6), classes(6, count)
    found = value(name, "cross_entropy", outputs, targets)
    each = wanted("Multiclass", outputs, targets, num_classes=6, average=None)
    assert found == float(each[torch.cat([outputs.argmax(1), targets]).unique()].mean())
    outputs, targets = random(count, 3, 2), coins(count, 3, 2)
    outputs[0], targets[0] = 1.0, 1.0  # so that each label occurs
    found = value(name, LOGITS, outputs, targets)
    each = wanted("Multilabel", outputs.sigmoid(), targets, num_labels=3, average=None)
    assert found == float(each.mean())
    outputs, targets = outputs[:, :1], targets[:, :1]
    found = value(name, LOGITS, outputs, targets)
    assert found == float(wanted("Binary", outputs.sigmoid(), targets))


def test_top_5_accuracy_against_scikit_learn():
    outputs, targets = random(50, 9), classes(9, 50)
    wanted = sk.top_k_accuracy_score(targets.numpy(), outputs.numpy(), k=5, labels=range(9))
    assert 0.3 < wanted < 0.8
    assert value("top_5_accuracy", "cross_entropy", outputs, targets) == pytest.approx(wanted)


def test_top_5_accuracy_over_tokens_by_hand():
    # of the classes 0 … 6 the five largest scores are those of 2 … 6, at each of three places
    outputs = torch.arange(7.0).reshape(1, 7, 1).expand(2, 7, 3)
    targets = torch.tensor([[0, 2, -100], [6, 1, 4]])
    found = value("top_5_accuracy", "cross_entropy", outputs, targets)
    assert found == pytest.approx(3 / 5)


@pytest.mark.parametrize("outputs_k", [1, 3])
@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "smooth_l1"])
def test_values_against_scikit_learn(loss, outputs_k):
    outputs, targets = random(50, outputs_k), random(50, outputs_k, seed=1)
    true, predicted = targets.double().numpy(), outputs.double().numpy()
    wanted = {
        "mae": np.abs(true - predicted).mean(),
        "mse": sk.mean_squared_error(true, predicted),
        "rmse": math.sqrt(sk.mean_squared_error(true, predicted)),
        "r2": sk.r2_score(true, predicted),
    }
    assert values(VALUES, loss, outputs, targets) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(("scale", "offset"), [(1e-4, 0), (1, 1e4), (1e6, -1e6)])
def test_values_of_any_scale(scale, offset):
    targets = random(50, 2, seed=1) * scale + offset
    outputs = targets + random(50, 2) * scale / 3
    true, predicted = targets.double().numpy(), outputs.double().numpy()
    found = values(["r2", "mse"], "mse", outputs, targets)
    assert found["r2"] == pytest.approx(sk.r2_score(true, predicted), rel=1e-9)
    assert found["mse"] == pytest.approx(sk.mean_squared_error(true, predicted), rel=1e-12)
    assert 0.7 < found["r2"] < 0.99


def test_sums_over_many_samples_stay_exact():
    # in single precision a sum of 60,000 times 0.1² comes out too low in its sixth digit
    targets = torch.full((60_000, 1), 0.1)
    found = values(["mse", "mae"], "mse", torch.zeros_like(targets), targets, 32)
    exact = float(np.float32(0.1))
    assert found == pytest.approx({"mse": exact**2, "mae": exact}, rel=1e-12)


def test_counts_of_poisson_are_compared_with_rates():
    outputs, targets = random(20, 1), classes(5, 20, 1).float()
    wanted = (outputs.double().exp() - targets).abs().mean().item()
    assert value("mae", "poisson_nll_loss", outputs, targets) == pytest.approx(wanted)
    plain = (outputs.double() - targets).abs().mean().item()
    found = value("mae", "poisson_nll_loss", outputs, targets, log_input=False)
    assert found == pytest.approx(plain)


def test_tokens_against_scikit_learn_without_those_to_be_ignored():
    outputs, targets = random(10, 4, 7), classes(4, 10, 7)
    targets[:, 5:] = -100
    targets[3] = -100
    flat, true = outputs.movedim(1, -1).reshape(-1, 4), targets.flatten()
    flat, true = flat[true >= 0], true[true >= 0]
    scores = flat.double().softmax(1).numpy()
    wanted = expected(true.numpy(), scores.argmax(1), scores, "macro", multi_class="ovr")
    wanted["perplexity"] = math.exp(sk.log_loss(true.numpy(), scores))
    found = values([*CLASSES, "perplexity"], "cross_entropy", outputs, targets, 3)
    assert found == pytest.approx(wanted, rel=1e-6)


def test_the_losss_own_class_to_be_ignored():
    outputs = torch.tensor([[2.0, 1, 0], [0, 2, 1], [0, 2, 1]])
    targets = torch.tensor([0, 1, 2])
    found = values(["accuracy", "perplexity"], "cross_entropy", outputs, targets, ignore_index=0)
    e = math.e
    of_two = (math.log(1 + e**2 + e) * 2 - 2 - 1) / 2
    assert found == pytest.approx({"accuracy": 1 / 2, "perplexity": math.exp(of_two)}, rel=1e-6)


def test_perplexity_of_even_odds_is_the_number_of_classes():
    outputs, targets = torch.zeros(6, 65, 4), classes(65, 6, 4)
    assert value("perplexity", "cross_entropy", outputs, targets, 4) == pytest.approx(65)


def test_perplexity_where_a_softmax_is_zero_in_single_precision():
    outputs, targets = torch.tensor([[0.0, 200.0]]), torch.tensor([0])
    found = value("perplexity", "cross_entropy", outputs, targets)
    assert found == pytest.approx(math.exp(200))


def test_perplexity_beyond_all_numbers_is_infinite():
    outputs, targets = torch.tensor([[0.0, 2000.0]]), torch.tensor([0])
    assert value("perplexity", "cross_entropy", outputs, targets) == math.inf


def test_probabilities_as_targets_count_by_the_largest():
    outputs, targets = random(50, 4), random(50, 4, seed=1).softmax(1)
    hard = values(CLASSES, "cross_entropy", outputs, targets.argmax(1))
    assert values(CLASSES, "categorical_crossentropy", outputs, targets) == hard
    assert values(CLASSES, "kl_div", outputs.log_softmax(1), targets) == pytest.approx(hard)


def test_rows_of_classes_are_ranked_up_to_their_end():
    outputs = random(20, 3)
    rows = torch.tensor([[0, 2, -1], [1, -1, 0], [2, 0, -1], [1, 2, -1]] * 5)
    has = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1], [0, 1, 1]] * 5)
    found = value("auroc", "multilabel_margin_loss", outputs, rows)
    assert found == pytest.approx(sk.roc_auc_score(has, outputs), abs=1e-6)


def test_distances_rank_the_other_way_round():
    distances, signs = random(20, 1).abs(), coins(20, 1) * 2 - 1
    found = value("auroc", "hinge_embedding_loss", distances, signs)
    assert found == pytest.approx(sk.roc_auc_score(signs, -distances), abs=1e-6)


@pytest.mark.parametrize("loss", ["cross_entropy", LOGITS])
def test_pixels_count_alike(loss):
    outputs = random(6, 3, 4, 5)
    if loss == LOGITS:
        targets = coins(6, 3, 4, 5)
        predicted, true = (outputs > 0).float(), targets
    else:
        targets = true = classes(3, 6, 4, 5)
        predicted = outputs.argmax(1)
    found = values(CLASSES, loss, outputs, targets, 4)
    assert found["accuracy"] == pytest.approx((predicted == true).double().mean().item())
    if loss == LOGITS:
        rows = [t.movedim(1, -1).reshape(-1, 3).numpy() for t in (true, predicted, outputs)]
        assert found == pytest.approx(expected(*rows, "macro"), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("loss", "names"),
    [("cross_entropy", [*CLASSES, "top_5_accuracy", "perplexity"]), (LOGITS, CLASSES)],
)
def test_half_precision(loss, names, dtype):
    outputs = random(50, 6).to(dtype)
    targets = classes(6, 50) if loss == "cross_entropy" else coins(50, 6)
    wanted = values(names, loss, outputs.float(), targets)
    assert values(names, loss, outputs, targets) == pytest.approx(wanted, rel=1e-6)


def test_half_precision_of_values():
    outputs, targets = random(50, 2).bfloat16(), random(50, 2, seed=1)
    wanted = values(VALUES, "mse", outputs.float(), targets)
    assert values(VALUES, "mse", outputs, targets) == wanted


@pytest.mark.parametrize("size", [1, 7, 50])
def test_the_size_of_batches_changes_nothing(size):
    outputs, targets = random(50, 6), classes(6, 50)
    names = [*CLASSES, "top_5_accuracy", "perplexity"]
    whole = values(names, "cross_entropy", outputs, targets, 50)
    assert values(names, "cross_entropy", outputs, targets, size) == pytest.approx(whole, rel=1e-6)
    true = random(50, 2)
    whole = values(VALUES, "mse", outputs[:, :2], true, 50)
    assert values(VALUES, "mse", outputs[:, :2], true, size) == pytest.approx(whole, rel=1e-12)


def test_a_reset_forgets_everything_and_the_first_batch_does_not_count():
    outputs, targets = random(50, 6), classes(6, 50)
    names = [*CLASSES, "top_5_accuracy", "perplexity"]
    first = build(names, "cross_entropy", outputs, targets)
    for metric in first.values():
        again = feed(metric, outputs[20:], targets[20:])
        metric.reset()
        feed(metric, outputs[:20], targets[:20])
        metric.reset()
        assert feed(metric, outputs[20:], targets[20:]) == again
    wanted = values(names, "cross_entropy", outputs[20:], targets[20:])
    assert {name: metric.compute() for name, metric in first.items()} == wanted


def test_a_value_can_be_read_between_batches():
    built = build(["accuracy"], "cross_entropy", random(4, 3), classes(3, 4))
    metric = built["accuracy"]
    metric.update(torch.eye(3), torch.tensor([0, 1, 2]))
    assert metric.compute() == 1
    metric.update(torch.eye(3), torch.tensor([1, 2, 0]))
    assert metric.compute() == 0.5


def test_metrics_take_outputs_with_gradients_and_hold_no_graph():
    outputs, targets = random(20, 2).requires_grad_(), random(20, 2, seed=1)
    for metric in build(VALUES, "mse", outputs, targets).values():
        metric.update(outputs, targets)
        assert math.isfinite(metric.compute())
        held = [v for v in vars(metric._totals).values() if isinstance(v, torch.Tensor)]
        assert held
        assert not any(tensor.requires_grad for tensor in held)


def test_metrics_work_in_inference_mode():
    outputs, targets = random(20, 6), classes(6, 20)
    names = [*CLASSES, "perplexity"]
    with torch.inference_mode():
        inside = values(names, "cross_entropy", outputs, targets)
    assert inside == values(names, "cross_entropy", outputs, targets)


# --- No value


def test_one_class_has_no_auroc_and_one_warning_says_so():
    both = torch.tensor([[0.0], [1.0]])
    metric = build(["auroc"], LOGITS, random(2, 1), both)["auroc"]
    metric.update(random(5, 1), torch.zeros(5, 1))
    with pytest.warns(LrtoolWarning) as caught:
        assert math.isnan(metric.compute())
    assert [str(w.message) for w in caught] == [
        "the metric auroc has no value: it needs two classes, and the targets hold one"
    ]
    metric.reset()
    metric.update(random(5, 1), torch.ones(5, 1))
    assert math.isnan(metric.compute())  # said once
    metric.update(random(5, 1), torch.zeros(5, 1))
    assert 0 <= metric.compute() <= 1


@pytest.mark.parametrize("name", ["auroc", "average_precision"])
def test_a_first_batch_of_one_class_is_no_mistake(name):
    outputs, targets = random(20, 3), classes(3, 20)
    metric = build([name], "cross_entropy", outputs, torch.zeros(20).long())[name]
    assert 0 < feed(metric, outputs, targets) < 1


@pytest.mark.parametrize(("name", "score"), [("auroc", "roc_auc"), ("average_precision", "ap")])
def test_classes_that_no_sample_has_do_not_count(name, score):
    outputs, targets = random(40, 4), classes(3, 40)
    scores = outputs.double().softmax(1).numpy()
    function = sk.roc_auc_score if score == "roc_auc" else sk.average_precision_score
    wanted = np.mean([function(targets.numpy() == k, scores[:, k]) for k in range(3)])
    assert value(name, "cross_entropy", outputs, targets) == pytest.approx(wanted, abs=1e-6)


def test_labels_that_never_occur_do_not_count():
    outputs, targets = random(40, 3), coins(40, 3)
    outputs[:, 2], targets[:, 2] = -1, 0
    names = ["precision", "recall", "f1", "auroc", "average_precision"]
    wanted = values(names, LOGITS, outputs[:, :2], targets[:, :2])
    assert values(names, LOGITS, outputs, targets) == pytest.approx(wanted)


def test_a_class_of_which_nothing_is_found_counts_as_0():
    outputs, targets = torch.eye(3)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 2])
    found = values(["precision", "recall", "f1"], "cross_entropy", outputs, targets)
    assert found == pytest.approx({"precision": 1.5 / 3, "recall": 2 / 3, "f1": (1 + 2 / 3) / 3})


@pytest.mark.parametrize(
    ("name", "outputs", "targets", "why"),
    [
        ("precision", [-1, -2], [1, 0], "no prediction is class 1"),
        ("recall", [1, -2], [0, 0], "no target is class 1"),
        ("f1", [-1, -2], [0, 0], "neither a target nor a prediction is class 1"),
    ],
)
def test_shares_of_nothing_have_no_value(name, outputs, targets, why):
    outputs, targets = (torch.tensor(x, dtype=torch.float)[:, None] for x in (outputs, targets))
    with pytest.warns(LrtoolWarning, match=f"^the metric {name} has no value: {why}$"):
        assert math.isnan(value(name, LOGITS, outputs, targets))


def test_nothing_found_is_an_f1_of_0():
    outputs, targets = torch.tensor([[-1.0], [-1]]), torch.tensor([[1.0], [0]])
    assert value("f1", LOGITS, outputs, targets) == 0
    assert value("recall", LOGITS, outputs, targets) == 0


@pytest.mark.parametrize("constant", [0.1, 0.0, 1e8])
def test_targets_that_are_all_the_same_have_no_variance_to_explain(constant):
    targets = torch.full((50, 1), constant)
    with pytest.warns(LrtoolWarning, match="r2 has no value: the targets are all the same$"):
        assert math.isnan(value("r2", "mse", random(50, 1), targets))
    outputs, targets = random(50, 2), torch.cat([targets, random(50, 1, seed=1)], 1)
    wanted = sk.r2_score(targets[:, 1].double(), outputs[:, 1].double())
    assert value("r2", "mse", outputs, targets) == pytest.approx(wanted)


@pytest.mark.parametrize("name", METRICS)
def test_no_batches_have_no_value(name):
    outputs, targets, loss = (random(8, 6), classes(6, 8), "cross_entropy")
    if name in VALUES:
        targets, loss = random(8, 6), "mse"
    metric = build([name], loss, outputs, targets)[name]
    with pytest.warns(LrtoolWarning, match=f"^the metric {name} has no value: there was nothing"):
        assert math.isnan(metric.compute())


@pytest.mark.parametrize("name", [*CLASSES, "top_5_accuracy", "perplexity"])
def test_targets_all_to_be_ignored_have_no_value(name):
    outputs, targets = random(8, 6), torch.full((8,), -100)
    with pytest.warns(LrtoolWarning, match=f"^the metric {name} has no value: "):
        assert math.isnan(value(name, "cross_entropy", outputs, targets))


@pytest.mark.parametrize("where", ["one", "all"])
@pytest.mark.parametrize(
    ("loss", "names"),
    [
        ("cross_entropy", [*CLASSES, "top_5_accuracy", "perplexity"]),
        (LOGITS, CLASSES),
        ("binary_cross_entropy", CLASSES),
        ("mse", VALUES),
    ],
)
def test_nan_in_outputs_is_never_a_number(loss, names, where):
    outputs = random(20, 6).sigmoid()
    targets = {"cross_entropy": classes(6, 20), "mse": random(20, 6)}.get(loss, coins(20, 6))
    built = build(names, loss, outputs, targets)
    if where == "one":
        outputs[3, 2] = math.nan
    else:
        outputs[:] = math.nan
    for name, metric in built.items():
        with pytest.warns(
            LrtoolWarning, match=f"^the metric {name} has no value: .*NaN( or infinite)?$"
        ):
            assert math.isnan(feed(metric, outputs, targets)), name
        metric.reset()
        assert math.isfinite(feed(metric, random(20, 6).sigmoid(), targets)), name


def test_nan_where_targets_are_ignored_does_not_matter():
    outputs, targets = random(4, 6, 5), classes(6, 4, 5)
    names = [*CLASSES, "top_5_accuracy", "perplexity"]
    targets[:, 3:] = -100
    wanted = values(names, "cross_entropy", outputs, targets)
    outputs[:, :, 3:] = math.nan
    assert values(names, "cross_entropy", outputs, targets) == wanted


def test_infinite_outputs_have_infinite_errors():
    outputs, targets = random(8, 1), random(8, 1, seed=1)
    outputs[3] = math.inf
    found = values(VALUES, "mse", outputs, targets)
    assert found == {"mae": math.inf, "mse": math.inf, "rmse": math.inf, "r2": -math.inf}


def test_infinite_logits_are_ranked_first_and_last():
    outputs = torch.tensor([[-math.inf], [60.0], [1.0], [math.inf]])
    targets = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    assert values(["auroc", "accuracy"], LOGITS, outputs, targets) == {"auroc": 1, "accuracy": 0.75}


# --- What does not fit


def test_all_problems_at_once():
    found = problems(["mae", "accuracy", "top_5_accuracy"], "cross_entropy", *three_classes())
    shapes = "outputs (8, 3) float32, targets (8,) int64"
    fit = "metrics that fit: accuracy, precision, recall, f1, auroc, average_precision, perplexity"
    assert found == {
        ("metrics", 0): f"mae compares values, and cross_entropy is for classes; {shapes}; {fit}",
        ("metrics", 2): "top_5_accuracy needs five classes or more, and the outputs have 3; "
        f"{shapes}; {fit}",
    }


def three_classes():
    return random(8, 3), classes(3, 8)


@pytest.mark.parametrize(
    ("name", "loss", "outputs", "targets", "words"),
    [
        (
            "accuracy",
            "mse",
            random(8, 2),
            random(8, 2),
            (
                "accuracy compares classes, and mse_loss is for values; outputs (8, 2) float32, "
                "targets (8, 2) float32; metrics that fit: mae, mse, rmse, r2"
            ),
        ),
        (
            "perplexity",
            LOGITS,
            random(8, 1),
            coins(8, 1),
            (
                "perplexity takes scores of classes, and binary_cross_entropy_with_logits is for "
                "two classes; outputs (8, 1) float32, targets (8, 1) float32; metrics that fit: "
                "accuracy, precision, recall, f1, auroc, average_precision"
            ),
        ),
        (
            "perplexity",
            "multi_margin_loss",
            *three_classes(),
            (
                "perplexity takes logits, and multi_margin_loss takes scores that are not logits; "
                "outputs (8, 3) float32, targets (8,) int64; metrics that fit: accuracy, "
                "precision, recall, f1, auroc, average_precision"
            ),
        ),
        (
            "f1",
            "hinge_embedding_loss",
            random(8, 1),
            torch.ones(8, 1),
            (
                "f1 needs a threshold between yes and no, and hinge_embedding_loss has none; "
                "outputs (8, 1) float32, targets (8, 1) float32; metrics that fit: auroc, "
                "average_precision"
            ),
        ),
        (
            "auroc",
            "cross_entropy",
            random(2, 5000),
            classes(5000, 2),
            (
                "auroc is for 4096 classes at most, and the outputs have 5000; outputs (2, 5000) "
                "float32, targets (2,) int64; metrics that fit: accuracy, top_5_accuracy, "
                "precision, recall, f1, perplexity"
            ),
        ),
        (
            "accuracy",
            "cross_entropy",
            random(8, 1),
            torch.zeros(8).long(),
            (
                "accuracy needs two classes or more, and the outputs have one; outputs (8, 1) "
                "float32, targets (8,) int64"
            ),
        ),
        (
            "accuracy",
            "cross_entropy",
            random(8, 3),
            classes(3, 7),
            (
                "accuracy takes one class index for each prediction; outputs (8, 3) float32, "
                "targets (7,) int64"
            ),
        ),
        (
            "mae",
            "mse",
            random(8, 1),
            random(8),
            "mae takes targets of the outputs' shape; outputs (8, 1) float32, targets (8,) float32",
        ),
        (
            "accuracy",
            "cross_entropy",
            classes(3, 8, 3),
            classes(3, 8),
            "accuracy takes outputs that are floats; outputs (8, 3) int64, targets (8,) int64",
        ),
        (
            "accuracy",
            "cross_entropy",
            {"logits": random(8, 3)},
            classes(3, 8),
            (
                "accuracy compares two tensors, but outputs and targets are dict and Tensor; "
                "give the import path of a metric for them"
            ),
        ),
    ],
)
def test_what_does_not_fit(name, loss, outputs, targets, words):
    assert problem(name, loss, outputs, targets) == words


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_has_metrics_that_fit(loss):
    outputs = random(12, 6)
    if loss in {"nll_loss", "kl_div"}:
        outputs = outputs.log_softmax(1)
    if loss == "binary_cross_entropy":
        outputs = outputs.sigmoid()
    targets = {
        "values": random(12, 6, seed=1).abs(),
        "classes": classes(6, 12),
        "probabilities": random(12, 6, seed=1).softmax(1).round(decimals=0),
        "signs": coins(12, 6) * 2 - 1,
        "label sets": classes(6, 12, 6),
    }[LOSSES[loss].takes]
    words = problem("mae" if LOSSES[loss].takes != "values" else "f1", loss, outputs, targets)
    fitting = words.rpartition("metrics that fit: ")[2].split(", ")
    assert len(fitting) >= 2
    assert list(build(fitting, loss, outputs, targets)) == fitting


def test_an_own_loss_is_read_by_its_targets():
    outputs, targets = three_classes()
    found = values(["accuracy", "perplexity"], "torch.nn:CrossEntropyLoss", outputs, targets)
    assert found == values(["accuracy", "perplexity"], "cross_entropy", outputs, targets)
    assert value("mse", "torch.nn:MSELoss", outputs, outputs + 2) == pytest.approx(4)
    assert problem("f1", "own:loss", outputs, outputs).startswith(
        "f1 compares classes, and own:loss is for values; "
    )


# --- Import paths


def test_a_function_is_a_mean_weighted_by_samples():
    # means 1, 1 and 7 of batches with 4, 4 and 2 samples
    outputs = torch.tensor([1.0] * 8 + [7.0] * 2)[:, None]
    found = value("torch.nn.functional:l1_loss", "mse", outputs, torch.zeros(10, 1), 4)
    assert found == pytest.approx((8 * 1 + 2 * 7) / 10)


def test_the_mean_of_a_function_over_many_batches_stays_exact():
    targets = torch.full((60_000, 1), 0.1)
    found = value("torch.nn.functional:l1_loss", "mse", torch.zeros_like(targets), targets, 8)
    assert found == pytest.approx(0.1, rel=1e-7)


def test_a_class_of_torchmetrics():
    outputs, targets = random(50, 2), random(50, 2, seed=1)
    wanted = (outputs - targets).abs().mean().item()
    name = "torchmetrics:MeanAbsoluteError"
    assert value(name, "mse", outputs, targets) == pytest.approx(wanted)
    assert key(name) == "MeanAbsoluteError"


def test_an_object_and_a_plain_class_of_the_users(module, tmp_path):
    users = module(
        """
        from torchmetrics.classification import MulticlassAccuracy

        top_2 = MulticlassAccuracy(num_classes=3, top_k=2, average="micro")
        top_2.update(__import__("torch").eye(3), __import__("torch").tensor([0, 1, 2]))

        def share(outputs, targets):
            return (outputs.argmax(1) == targets).double().mean().item()

        class Worst:
            def __init__(self): self.reset()
            def reset(self): self.worst = 0.0
            def update(self, outputs, targets): self.worst = max(self.worst, outputs.max().item())
            def compute(self): return self.worst
        """
    )
    outputs, targets = random(50, 3), classes(3, 50)
    top = outputs.topk(2).indices == targets[:, None]
    found = values(
        [f"{users}:top_2", f"{users}:share", f"{users}:Worst"],
        "cross_entropy",
        outputs,
        targets,
        directories=[tmp_path],
    )
    assert found == pytest.approx(
        {
            "top_2": top.any(1).double().mean().item(),
            "share": (outputs.argmax(1) == targets).double().mean().item(),
            "Worst": outputs.max().item(),
        }
    )


def test_own_metrics_get_half_precision_as_float32_and_no_gradient(module, tmp_path):
    users = module(
        """
        import torch

        def strict(outputs, targets):
            assert outputs.dtype == torch.float32 and not outputs.requires_grad
            return outputs.sum() * 0 + 3
        """
    )
    outputs = random(8, 1).bfloat16().requires_grad_()
    found = value(f"{users}:strict", "mse", outputs, random(8, 1), directories=[tmp_path])
    assert found == 3


def test_own_metrics_take_what_is_no_tensor(module, tmp_path):
    users = module("def first(outputs, targets): return (outputs['a'] - targets).abs().mean()")
    targets = torch.zeros(4, 1)
    [metric] = build(
        [f"{users}:first"], "own:loss", {"a": targets + 2}, targets, [tmp_path]
    ).values()
    metric.update({"a": targets + 5}, targets)
    assert metric.compute() == 5


def test_own_metrics_that_fail(module, tmp_path):
    users = module(
        """
        def breaks(outputs, targets):
            raise RuntimeError("no luck")
        def vector(outputs, targets): return outputs.mean(0)
        def words(outputs, targets): return "good"
        number = 3
        class Needs:
            def __init__(self, classes): pass
        class Table:
            def reset(self): pass
            def update(self, outputs, targets): pass
            def compute(self): return {"a": 1}
        """
    )
    names = ["breaks", "vector", "words", "number", "Needs", "Table", "nowhere"]
    shapes = "; outputs (8, 3) float32, targets (8,) int64"
    found = problems(
        [f"{users}:{name}" for name in names], "cross_entropy", *three_classes(), [tmp_path]
    )
    path = tmp_path / f"{users}.py"
    assert [found["metrics", i] for i in range(7)] == [
        f"{users}:breaks failed: RuntimeError: no luck ({path}:3){shapes}",
        f"{users}:vector gives shape (3,), not a scalar{shapes}",
        f"{users}:words gives a str, not a number{shapes}",
        f"{users}:number is a int; it cannot be called",
        (
            f"{users}:Needs failed: TypeError: Needs.__init__() missing 1 required positional "
            "argument: 'classes'"
        ),
        f"{users}:Table gives a dict, not a number{shapes}",
        f"module '{users}' has no attribute 'nowhere'",
    ]


def test_a_function_needs_samples_to_weigh_by(module, tmp_path):
    users = module("def f(outputs, targets): return 1.0")
    words = problem(f"{users}:f", "own:loss", {"a": 1}, {"b": 2}, [tmp_path])
    assert words == (
        f"{users}:f is a function, and its mean is weighted by samples, but neither targets nor "
        "outputs hold a tensor with samples; make it a class with update, compute and reset"
    )


def test_a_function_of_mappings_is_weighted_by_their_samples(module, tmp_path):
    users = module("def f(outputs, targets): return targets['a'].mean()")
    numbers = torch.tensor([1.0] * 4 + [7.0] * 2)
    [metric] = build([f"{users}:f"], "own:loss", {}, {"a": numbers}, [tmp_path]).values()
    for rows in numbers.split(4):
        metric.update({}, {"a": rows})
    assert metric.compute() == pytest.approx((4 * 1 + 2 * 7) / 6)


def test_an_own_metric_that_fails_later_is_named(module, tmp_path):
    users = module("def f(outputs, targets): return 1 / (len(targets) - 1)")
    [metric] = build([f"{users}:f"], "mse", random(8, 1), random(8, 1), [tmp_path]).values()
    with pytest.raises(UserError, match=f"^{users}:f failed: ZeroDivisionError: .*{users}.py:1"):
        metric.update(random(1, 1), random(1, 1))


def test_what_torchmetrics_says_of_an_own_metric_is_said_once(module, tmp_path):
    users = module(
        """
        from torchmetrics.classification import BinaryAUROC
        class Ranks(BinaryAUROC): pass
        """
    )
    outputs, targets = random(8, 1), torch.zeros(8, 1).long()
    [metric] = build([f"{users}:Ranks"], "own:loss", outputs, targets, [tmp_path]).values()
    metric.update(outputs, targets)
    with pytest.warns(LrtoolWarning) as caught:
        metric.compute()
    [warning] = caught
    assert str(warning.message).startswith(
        f"the metric {users}:Ranks says: No positive samples in targets"
    )
    metric.reset()
    metric.update(outputs, targets)
    metric.compute()


def test_an_own_metric_without_batches_has_no_value():
    name = "torch.nn.functional:l1_loss"
    [metric] = build([name], "mse", random(8, 1), random(8, 1)).values()
    with pytest.warns(LrtoolWarning, match="l1_loss has no value: there was nothing to compare$"):
        assert math.isnan(metric.compute())


def test_nan_of_a_function_stays_nan():
    outputs, targets = random(8, 1), random(8, 1, seed=1)
    [metric] = build(["torch.nn.functional:l1_loss"], "mse", outputs, targets).values()
    outputs[2] = math.nan
    assert math.isnan(feed(metric, outputs, targets, 2))


# --- Names


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("f1", "f1"), ("own.module:loss", "loss"), ("own:Class.method", "method")],
)
def test_keys(name, wanted):
    assert key(name) == wanted


def test_which_way_is_better():
    lower = {name for name in METRICS if higher_is_better(name) is False}
    assert lower == {"mae", "mse", "rmse", "perplexity"}
    assert all(higher_is_better(name) for name in METRICS.keys() - lower)
    assert higher_is_better("torchmetrics:MeanAbsoluteError") is False
    assert higher_is_better("torchmetrics.classification:BinaryAUROC") is True
    assert higher_is_better("torch.nn.functional:l1_loss") is None
    with pytest.raises(UserError, match="no module named 'nowhere_at_all'"):
        higher_is_better("nowhere_at_all:f")


def test_every_built_in_metric_fits_somewhere():
    found = build([*CLASSES, "top_5_accuracy", "perplexity"], "ce:f", random(8, 6), classes(6, 8))
    found |= build(VALUES, "mse", random(8, 6), random(8, 6))
    assert found.keys() == METRICS.keys()


def test_torchmetrics_is_imported_only_when_a_metric_needs_it():
    script = """
import sys
import torch
from lrtool.components import catalogue, check, metrics

def loaded():
    return "torchmetrics" in sys.modules

batch = {"outputs": torch.eye(4), "targets": torch.arange(4), "device": torch.device("cpu")}
seen = [loaded()]
metrics.higher_is_better("accuracy")
metrics.build_metrics([], loss="cross_entropy", directories=(), **batch)
path = "torch.nn.functional:cross_entropy"
metrics.build_metrics([path], loss="cross_entropy", directories=(), **batch)
seen.append(loaded())
metrics.build_metrics(["accuracy", "f1"], loss="cross_entropy", directories=(), **batch)
seen.append(loaded())
metrics.build_metrics(["auroc"], loss="cross_entropy", directories=(), **batch)
print(*seen, loaded(), {"torchvision", "pandas"} & sys.modules.keys())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["False", "False", "False", "True", "set()"]


def test_building_and_computing_leave_the_filters_of_warnings_alone():
    before = list(warnings.filters)
    values(CLASSES, "cross_entropy", *three_classes())
    assert list(warnings.filters) == before
