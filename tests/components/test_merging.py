"""Metrics over batches shared by ranks: on every rank the value of one rank over all batches."""

import math
import warnings

import pytest
import torch
from metric_batches import build, classes, random

from lrtool.components.losses import LOSSES
from lrtool.components.metrics import METRICS, key
from lrtool.errors import LrtoolWarning

LOGITS = "binary_cross_entropy_with_logits"
SIZES = [7, 16, 1, 16, 5, 3, 2]  # of batches; two ranks have four and three of them


def over_two_ranks(in_ranks, names, loss, outputs, targets, **args):
    """Return each rank's values and warnings."""
    batches = list(zip(outputs.split(SIZES), targets.split(SIZES), strict=True))

    def run(ranks):
        metrics = build(names, loss, *batches[0], **args)
        found = {}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", LrtoolWarning)
            for name, metric in metrics.items():
                assert metric.merges
                for batch in batches[ranks.rank :: ranks.world_size]:
                    metric.update(*batch)
                metric.merge(ranks)
                found[name] = metric.compute()
        return found, [str(each.message) for each in caught]

    return in_ranks(2, run)


def alone(names, loss, outputs, targets, **args):
    batches = list(zip(outputs.split(SIZES), targets.split(SIZES), strict=True))
    metrics = build(names, loss, *batches[0], **args)
    for metric in metrics.values():
        for batch in batches:
            metric.update(*batch)
    return {name: metric.compute() for name, metric in metrics.items()}


def check(in_ranks, names, loss, outputs, targets, **more):
    expected = alone(names, loss, outputs, targets, **more)
    assert not any(math.isnan(value) for value in expected.values())
    assert set(expected) == {key(name) for name in names}
    ends = over_two_ranks(in_ranks, names, loss, outputs, targets, **more)
    assert ends == [ends[0]] * 2, "the same bits on every rank"
    assert ends[0] == (pytest.approx(expected, rel=1e-12), [])


TASKS = {
    "classes": (
        ["accuracy", "top_5_accuracy", "precision", "recall", "f1", "auroc", "average_precision"],
        ("cross_entropy", random(50, 6), classes(6, 50)),
    ),
    "ignored": (
        ["accuracy", "f1", "perplexity"],
        ("cross_entropy", random(50, 6, 3), classes(7, 50, 3) - 1),
    ),
    "two classes": (
        ["accuracy", "precision", "recall", "f1", "auroc", "average_precision"],
        (LOGITS, random(50, 1), classes(2, 50, 1).float()),
    ),
    "labels": (
        ["accuracy", "precision", "recall", "f1", "auroc", "average_precision"],
        (LOGITS, random(50, 4), classes(2, 50, 4).float()),
    ),
    "values": (
        ["mae", "mse", "rmse", "r2"],
        ("mse_loss", random(50, 3), 1e4 + 10 * random(50, 3, seed=1)),
    ),
}


def test_every_metric_is_tried():
    assert {name for names, _ in TASKS.values() for name in names} == set(METRICS)
    assert {task[0] for _, task in TASKS.values()} <= set(LOSSES)


@pytest.mark.parametrize("task", TASKS)
def test_two_ranks_have_the_value_of_one(in_ranks, task):
    names, data = TASKS[task]
    more = {"ignore_index": -1} if task == "ignored" else {}
    check(in_ranks, names, *data, **more)


def test_a_rank_without_a_batch_adds_nothing(in_ranks, module, tmp_path):
    name = module(
        """
        import torchmetrics.classification

        def wrong(outputs, targets):
            return (outputs.argmax(1) != targets).float().mean()

        def kappa():
            return torchmetrics.classification.MulticlassCohenKappa(6)

        cohen = kappa()
        """
    )
    outputs, targets = random(9, 6), classes(6, 9)
    names = [*TASKS["classes"][0], "perplexity", f"{name}:wrong", f"{name}:cohen"]

    def run(ranks):
        metrics = build(names, "cross_entropy", outputs, targets, directories=[tmp_path])
        for metric in metrics.values():
            if ranks.first:
                metric.update(outputs, targets)
            metric.merge(ranks)
        return {name: metric.compute() for name, metric in metrics.items()}

    first, second = in_ranks(2, run)
    assert first == second
    expected = build(names, "cross_entropy", outputs, targets, directories=[tmp_path])
    for metric in expected.values():
        metric.update(outputs, targets)
    assert first == pytest.approx({name: metric.compute() for name, metric in expected.items()})


def test_the_variance_of_two_ranks_is_around_one_mean(in_ranks):
    targets = torch.tensor([[0.0], [2.0], [1000.0], [1002.0]])

    def run(ranks):
        part = slice(2 * ranks.rank, 2 * ranks.rank + 2)
        [metric] = build(["r2"], "mse_loss", targets, targets).values()
        metric.update(targets[part] + 1, targets[part])
        metric.merge(ranks)
        return metric.compute()

    # errors: 4 · 1²; around the mean 501: 501² + 499² + 499² + 501²
    assert in_ranks(2, run) == [pytest.approx(1 - 4 / 1_000_004, rel=1e-12)] * 2


def test_nan_on_one_rank_is_that_of_all(in_ranks):
    outputs, targets = random(50, 6), classes(6, 50)
    outputs[10] = math.nan  # in the second rank's first batch
    ends = over_two_ranks(in_ranks, ["accuracy"], "cross_entropy", outputs, targets)
    words = "the metric accuracy has no value: some outputs or targets are NaN or infinite"
    for found, said in ends:
        assert math.isnan(found["accuracy"])
        assert said == [words]


@pytest.mark.parametrize("ignored", [slice(None), slice(7, 23)])
def test_there_is_nothing_to_compare_where_no_rank_has_anything(in_ranks, ignored):
    outputs, targets = random(50, 6), classes(6, 50)
    targets[ignored] = -100
    ends = over_two_ranks(in_ranks, ["accuracy", "perplexity"], "cross_entropy", outputs, targets)
    for found, said in ends:
        nothing = ignored == slice(None)
        assert [math.isnan(value) for value in found.values()] == [nothing] * 2
        assert len(said) == 2 * nothing
        words = ("there was nothing to compare", "no target counts, or scores are NaN")
        assert all(map(str.endswith, said, words))


OWN = """
    import torch
    import torchmetrics
    from torchmetrics.classification import MulticlassF1Score

    f1 = MulticlassF1Score(6)

    class Largest(torchmetrics.Metric):
        full_state_update = False

        def __init__(self):
            super().__init__()
            self.add_state("highest", torch.tensor(-torch.inf), dist_reduce_fx="max")
            self.add_state("lowest", torch.tensor(torch.inf), dist_reduce_fx="min")
            self.add_state("seen", [], dist_reduce_fx="cat")

        def update(self, outputs, targets):
            self.highest = torch.maximum(self.highest, outputs.max())
            self.lowest = torch.minimum(self.lowest, outputs.min())
            self.seen.append(outputs.mean(1))

        def compute(self):
            seen = torch.cat(self.seen)
            return self.highest - self.lowest + len(seen) + (seen.double() ** 2).mean()

    def wrong(outputs, targets):
        return (outputs.argmax(1) != targets).float().mean()

    def plain(outputs, targets):
        return float(outputs.sum() / len(targets))
"""


@pytest.mark.parametrize("name", ["f1", "Largest", "wrong", "plain"])
def test_an_own_metric_is_merged(in_ranks, module, tmp_path, name):
    data = ("cross_entropy", random(50, 6), classes(6, 50))
    check(in_ranks, [f"{module(OWN)}:{name}"], *data, directories=[tmp_path])


OTHERS = """
    import torch
    import torchmetrics
    from torchmetrics.classification import MulticlassAccuracy

    class Last:
        def reset(self): self.seen = []
        def update(self, outputs, targets): self.seen.append(outputs.sum().item())
        def compute(self): return sum(value / (1 + n) for n, value in enumerate(self.seen))

    class Holds(Last):
        def __init__(self): self.inner = torchmetrics.SumMetric()
        def reset(self): self.inner.reset()
        def update(self, outputs, targets): self.inner.update(outputs.sum())
        def compute(self): return self.inner.compute()

    class Average(torchmetrics.Metric):
        def __init__(self):
            super().__init__()
            self.add_state("value", torch.tensor(0.0), dist_reduce_fx="mean")
        def update(self, outputs, targets): self.value = 0.9 * self.value + outputs.mean()
        def compute(self): return self.value

    both = MulticlassAccuracy(6) + MulticlassAccuracy(6, average="micro")
    pearson = torchmetrics.PearsonCorrCoef()
"""


@pytest.mark.parametrize("name", ["Last", "Holds", "Average", "both"])
def test_what_cannot_be_merged_is_not_and_does_not_meet_the_other_ranks(
    in_ranks, module, tmp_path, name
):
    outputs, targets = random(50, 6), classes(6, 50)
    own = f"{module(OTHERS)}:{name}"
    built = build([own], "cross_entropy", outputs, targets, directories=[tmp_path])
    [metric] = built.values()
    assert not metric.merges
    metric.update(outputs, targets)
    expected = metric.compute()

    def run(ranks):
        metric.merge(ranks)
        return metric.compute() if ranks.first else None  # torchmetrics would wait for the other

    assert in_ranks(2, run) == [expected, None]


def test_states_that_torchmetrics_leaves_apart_are_not_merged(module, tmp_path):
    outputs, targets = random(50), random(50, seed=1)
    own = f"{module(OTHERS)}:pearson"
    [metric] = build([own], "mse_loss", outputs, targets, directories=[tmp_path]).values()
    assert not metric.merges
