"""A race on a whole task: real trainings, in turns, measured alike."""

import gc
import math
import sys
import weakref
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from small import CONFIG, NET

from lrtool.curve import trials
from lrtool.data import batches
from lrtool.engine.stopwatch import Stopwatch
from lrtool.errors import ConfigError, InterruptedRunError
from lrtool.experiment.experiment import build, open_experiment, training_steps
from lrtool.experiment.reading import read_config
from lrtool.report.records import FullTrialRow, LearningRate, SweepRow, TrialRow
from lrtool.search import candidates
from lrtool.search.experiment_subject import ExperimentSubject, plan_of
from lrtool.search.search import _level, search
from lrtool.training.epochs import train
from lrtool.training.session import begin

IRIS = """
data: {source: iris, batch_size: 30}
model: {name: mlp, args: {hidden: [16]}}
optimizer: adam
find: {start: 1e-5, end: 10, steps: 60, repeats: 1, verify: true}
train: {epochs: 20, schedule: cosine}
runtime: {device: cpu}
"""


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Open the task of a configuration in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "net", raising=False)

    def opened(text, *sets, net=NET):
        Path("net.py").write_text(net)
        Path("a.yaml").write_text(text)
        return open_experiment(*read_config(Path("a.yaml"), sets))

    yield opened
    sys.modules.pop("net", None)


def seed_of(attempt, seed=3):
    return int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])


def open_race(task):
    samples = task.data.batch_size * task.config.train.accumulate
    return candidates.open_race(ExperimentSubject(task), 2, samples, training_steps(task))


def open_trials(task):
    samples = task.data.batch_size * task.config.train.accumulate
    return candidates.open_trials(ExperimentSubject(task), 1, samples, training_steps(task))


def raced(task, centre=-2.0, prior=None):
    contest = open_race(task)
    watch = Stopwatch()
    rows = list(candidates.run_race(contest, centre, prior, watch))
    return contest, rows, watch, *candidates.judge(contest)


def losses_of_a_training(task, lr):
    directory = Path("out")
    directory.mkdir(exist_ok=True)
    session = begin(task, LearningRate(value=lr, origin="flag", run=None), directory, None)
    events = [event for event in train(session) if isinstance(event, list)]
    return tuple(row.loss for rows in events for row in rows)


def test_a_candidate_trains_as_lrtool_train_does_to_the_last_bit(opened):
    """Dropout, batch norm, a dataset that draws numbers, accumulation, several epochs, warm-up."""
    sets = ("train.epochs=~", "train.max_steps=400", "train.early_stopping=~")
    task = opened(CONFIG, *sets, "train.schedule={name: cosine, warmup: 40}")
    contest, *_, race, _ = raced(task)
    assert contest.steps == 100
    seed = seed_of(2)  # after those of one sweep and of the trials
    assert race.seed == seed
    finished = [racer for racer in race.candidates if racer.final_loss is not None]
    assert len(finished) >= 2
    for racer in finished:
        sets = ("train.epochs=~", "train.max_steps=100", "train.early_stopping=~", f"seed={seed}")
        trained = opened(CONFIG, *sets, "train.schedule={name: cosine, warmup: 10}")
        assert losses_of_a_training(trained, racer.lr) == racer.loss


def test_all_start_from_the_same_weights_over_the_same_batches(opened):
    _, rows, watch, race, choice = raced(opened(IRIS), prior=-1.75)
    origins = [racer.origin for racer in race.candidates]
    assert origins[:4] == ["lower", "suggestion", "higher", "prior"]
    assert [racer.lr for racer in race.candidates[:4]] == pytest.approx(
        10.0 ** np.array([-2.5, -2.0, -1.5, -1.75])
    )
    assert len({racer.loss[0] for racer in race.candidates}) == 1
    assert len({racer.loss[1] for racer in race.candidates}) == len(race.candidates)
    for number, racer in enumerate(race.candidates):
        own = [row for row in rows if row.candidate == number]
        assert tuple(row.loss for row in own) == racer.loss
        assert [row.step for row in own] == list(range(1, len(own) + 1))
        assert {row.lr for row in own} == {racer.lr}
    assert watch.steps == len(rows)
    won = [racer for racer in race.candidates if racer.outcome == "won"]
    assert won == [race.candidates[choice.best]]
    assert won[0].final_loss == min(r.final_loss for r in race.candidates if r.final_loss)
    assert won[0].standard_error == 0


def test_first_half_way_in_turns_then_to_the_end(opened):
    _, rows, _, race, _ = raced(opened(IRIS))
    steps = race.steps
    turns = [(a.candidate, a.step) for a, b in pairwise(rows) if a.candidate != b.candidate]
    assert turns[:3] == [(0, steps // 2), (1, steps // 2), (2, steps // 2)]
    assert all(step == steps for _, step in turns[3:])


def test_what_is_measured_and_what_it_costs(opened):
    contest, rows = open_race(opened(IRIS)), []
    models = {}
    for row in candidates.run_race(contest, -2.0, None, Stopwatch()):
        rows.append(row)
        models |= {
            e.runner.number: e.runner.trainee.model for e in contest.entries if e.runner.trainee
        }
    race, _ = candidates.judge(contest)
    assert (race.measure, race.examples, race.steps) == ("validation", 30, 80)
    assert [len(batch[0]) for batch in contest.held_out] == [2] * 15  # 16 chunks, or almost
    seen = torch.cat([batch[0] for batch in contest.held_out]).sum(0)
    assert torch.allclose(seen, contest.subject.experiment.data.validation.inputs.sum(0), atol=1e-5)
    measured = 1 + sum(r.half_loss is not None for r in race.candidates)
    measured += sum(r.final_loss is not None for r in race.candidates)
    assert race.steps_spent == pytest.approx(len(rows) + measured * 30 / 30 / 3)
    # the loss is that of the whole part, in evaluation mode
    model, part = models[1].eval(), contest.subject.experiment.data.validation
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model(part.inputs), part.targets).item()
    assert race.candidates[1].final_loss == pytest.approx(loss, rel=1e-5)
    assert race.untrained_loss == pytest.approx(math.log(3), rel=0.5)


def test_no_more_than_1024_examples_in_chunks_of_64(opened):
    task = opened(
        IRIS.replace("source: iris, batch_size: 30", 'source: "net:data", batch_size: 100'),
        net="import torch\ndef data():\n    x = torch.randn(4000, 4)\n"
        "    y = (x.sum(1) > 0).long()\n    return (x[:2000], y[:2000]), (x[2000:], y[2000:])\n",
    )
    contest = open_race(task)
    assert [len(batch[0]) for batch in contest.held_out] == [64] * 16
    again = open_race(task)
    assert all(
        torch.equal(a[0], b[0]) for a, b in zip(contest.held_out, again.held_out, strict=True)
    )


def whole(task):
    """All batches of the training set, in their order."""
    return batches.epoch(
        task.data.train, batch_size=30, seed=1, epoch=0, device=torch.device("cpu")
    )


def loss_of(model, x, y):
    return float(torch.nn.functional.cross_entropy(model(x), y))


def test_without_a_validation_part_the_last_training_losses_are_compared(opened):
    task = opened(IRIS, "data.validation=0", "train.epochs=61")  # 305 steps, the last one short
    contest, rows, _, race, choice = raced(task)
    assert contest.held_out is None
    assert (race.measure, race.steps) == ("training", 100)
    assert race.steps_spent == pytest.approx(len(rows) + 5 / 3)  # five batches before training
    assert race.examples == 25 * 30
    fresh = build(task, race.seed).model
    with torch.no_grad():
        parts = [(loss_of(fresh, x, y), len(y)) for x, y in whole(task)]
    level = sum(loss * count for loss, count in parts) / 150
    assert race.untrained_loss == pytest.approx(level, rel=1e-5)
    for racer in race.candidates:
        assert racer.half_loss == pytest.approx(np.mean(racer.loss[38:50]))
        if racer.final_loss is not None:
            assert racer.final_loss == pytest.approx(np.mean(racer.loss[75:]))
    best = race.candidates[choice.best]
    for racer in race.candidates:
        if racer.outcome == "lost":
            paired = np.array(racer.loss[75:]) - best.loss[75:]
            assert racer.standard_error == pytest.approx(paired.std(ddof=1) / 5)


def test_the_error_of_a_descent_is_that_of_its_own_differences(opened):
    """By chunk, before and after training; the other trial has diverged and tells nothing."""
    task = opened(IRIS, "optimizer=sgd")
    contest = open_trials(task)
    models = []
    for _ in candidates.run_trials(contest, (-2.0, 4.0), Stopwatch()):
        models += [e.runner.trainee.model for e in contest.entries[:1] if e.runner.trainee]
    race, _ = candidates.judge(contest)
    lower, higher = race.candidates
    assert (higher.outcome, higher.descent_error) == ("diverged", None)
    assert lower.standard_error == 0
    fresh = build(task, race.seed).model.eval()
    with torch.no_grad():
        each = [
            (loss_of(fresh, x, y) - loss_of(models[0].eval(), x, y)) for x, y in contest.held_out
        ]
    assert len(each) == 15
    assert np.mean(each) == pytest.approx(race.untrained_loss - lower.final_loss, rel=1e-4)
    assert lower.descent_error == pytest.approx(np.std(each, ddof=1) / math.sqrt(15), rel=1e-4)
    assert trials.fell(race)


def test_chunks_of_other_sizes_are_alike_where_losses_are_sums(opened):
    """An untrained network is as bad everywhere; the last chunk is no better for being small."""
    found = {}
    for reduction in ("mean", "sum"):
        loss = f"loss={{name: 'torch.nn:CrossEntropyLoss', args: {{reduction: {reduction}}}}}"
        task = opened(IRIS, "data.source=digits", "data.validation=360", loss)
        contest = open_trials(task)
        candidates._measure_untrained(contest)
        found[reduction] = contest.before
    mean, total = found["mean"], found["sum"]
    assert total.mean == pytest.approx(360 * mean.mean, rel=1e-5)
    assert total.sizes.sum() == mean.sizes.sum() == 360
    assert total.sizes[-1] < total.sizes[0]
    assert total.losses == pytest.approx(total.mean, rel=0.05)


def test_three_differences_do_not_tell_their_spread(opened):
    for chunks, known in ((3, False), (4, True)):
        contest = open_trials(opened(IRIS))
        contest.held_out = contest.held_out[:chunks]
        for _ in candidates.run_trials(contest, (-3.0, -2.0), Stopwatch()):
            pass
        race, _ = candidates.judge(contest)
        assert [one.descent_error is not None for one in race.candidates] == [known] * 2


def test_rates_that_diverge_are_out(opened):
    *_, race, choice = raced(opened(IRIS, "optimizer=sgd"), centre=3.0)
    assert [racer.outcome for racer in race.candidates] == ["diverged"] * 3
    assert choice.log_lr is None
    *_, race, choice = raced(opened(IRIS, "optimizer=sgd"), centre=1.0)
    higher = race.candidates[2]
    assert (higher.outcome, higher.final_loss) == ("diverged", None)
    assert not math.isfinite(higher.loss[-1])
    assert len(higher.loss) < 40
    assert choice.log_lr < 1.0


def test_the_best_at_the_edge_brings_in_one_more(opened):
    *_, race, choice = raced(opened(IRIS), centre=-3.5)
    assert race.candidates[-1].origin == "outward"
    assert race.candidates[-1].lr == pytest.approx(10**-2.5)
    assert [racer.origin for racer in race.candidates].count("outward") == 1
    if choice.best == 3:
        assert "is also its highest" in choice.doubts[0].reason


def test_at_any_moment_there_is_a_judgement(opened):
    """Whatever row the race stops after."""
    contest = open_race(opened(IRIS, "optimizer=sgd"))
    rows = candidates.run_race(contest, 1.0, None, Stopwatch())
    seen = []
    for row in rows:
        race, choice = candidates.judge(contest)
        assert race.interrupted
        outcomes = {racer.outcome for racer in race.candidates}
        halves = [racer.half_loss for racer in race.candidates]
        if row.step < 80 and row.candidate < 3 and None in halves:
            assert (choice.log_lr, outcomes) == (None, {"unfinished"})
        elif choice.log_lr is not None:
            seen.append((race.candidates[choice.best].final_loss is None, outcomes))
            assert choice.doubts[0].reason == "the race was interrupted"
    half_way = (True, {"unfinished", "diverged"})
    at_the_end = (False, {"won", "lost", "diverged", "unfinished"})  # one more is under way
    assert [seen[0], seen[-1]] == [half_way, at_the_end]
    race, choice = candidates.judge(contest)
    assert not race.interrupted
    assert "unfinished" not in {racer.outcome for racer in race.candidates}


# Trials


def test_trials_train_as_lrtool_train_does_to_the_last_bit(opened):
    sets = ("train.epochs=~", "train.max_steps=300", "train.early_stopping=~")
    task = opened(CONFIG, *sets, "train.schedule={name: cosine, warmup: 40}")
    contest, watch = open_trials(task), Stopwatch()
    rows = list(candidates.run_trials(contest, np.log10([0.003, 0.03]), watch))
    tried, _ = candidates.judge(contest)
    assert tried.seed == seed_of(1)  # which no sweep had
    assert (tried.steps, tried.interrupted, watch.steps) == (75, False, 150)
    assert [trial.origin for trial in tried.candidates] == ["lower", "higher"]
    assert [row.trial for row in rows] == [0] * 75 + [1] * 75
    assert [row.step for row in rows] == [*range(1, 76)] * 2
    assert [row.loss for row in rows] == [loss for t in tried.candidates for loss in t.loss]
    for trial, lr in zip(tried.candidates, (0.003, 0.03), strict=True):
        assert trial.lr == pytest.approx(lr)
        assert trial.half_loss is None
        length = ("train.epochs=~", "train.max_steps=75", "train.early_stopping=~")
        schedule = "train.schedule={name: cosine, warmup: 10}"
        trained = opened(CONFIG, *length, schedule, f"seed={tried.seed}")
        assert losses_of_a_training(trained, trial.lr) == trial.loss


def test_models_go_when_their_trial_or_their_race_is_over(opened):
    models = []

    def seen(entries):
        for entry in entries:
            trainee = entry.runner.trainee
            if trainee and all(ref() is not trainee.model for ref in models):
                models.append(weakref.ref(trainee.model))
        return sum(ref() is not None for ref in models)

    gc.disable()  # nothing may wait for it
    try:
        contest = open_trials(opened(IRIS))
        alive = [
            seen(contest.entries) for _ in candidates.run_trials(contest, (-2.0, -1.5), Stopwatch())
        ]
        assert set(alive) == {1}
        assert (len(models), seen(contest.entries)) == (2, 0)
        contest = open_race(opened(IRIS))
        alive = [
            seen(contest.entries) for _ in candidates.run_race(contest, -2.0, None, Stopwatch())
        ]
        assert max(alive) == 3
        assert (len(models) >= 5, seen(contest.entries)) == (True, 0)
    finally:
        gc.enable()


# The schedule


def factors(schedule, steps):
    return [schedule.factor(step, 0) for step in range(steps)]


def plan(opened, schedule, steps=600):
    task = opened(IRIS, "train.epochs=~", f"train.max_steps={steps}", f"train.schedule={schedule}")
    return open_race(task).schedule


def test_what_a_training_would_refuse_a_race_refuses_in_the_same_words(opened):
    words = "a warm-up of 600 steps must be shorter than the training of 600"
    with pytest.raises(ConfigError, match=words):
        plan(opened, "{name: linear, warmup: 600}")


def test_a_race_has_the_schedule_of_its_training_compressed(opened):
    """600 steps are 150 epochs of 4; in 100 steps one and a half pass with each step."""
    found = plan(opened, "{name: step, warmup: 60, args: {step_size: 50}}")
    assert factors(found, 34) == pytest.approx([n / 11 for n in range(1, 11)] + [1.0] * 24)
    assert factors(found, 100)[34:] == pytest.approx([0.1] * 33 + [0.01] * 33)


def test_a_training_of_unknown_length_is_raced_with_its_schedule_as_it_is(opened):
    endless = (
        "import torch\nfrom torch.utils.data import IterableDataset\n"
        "class Stream(IterableDataset):\n"
        "    classes = [0, 1]\n"
        "    def __iter__(self):\n"
        "        generator = torch.Generator().manual_seed(0)\n"
        "        for _ in range(90):\n"
        "            x = torch.randn(4, generator=generator)\n"
        "            yield x, (x.sum() > 0).long()\n"
        "def data():\n    return Stream(), Stream()\n"
    )
    text = IRIS.replace("source: iris", 'source: "net:data"')
    task = opened(text, "train.schedule={name: constant, warmup: 20}", net=endless)
    assert (open_race(task).steps, open_trials(task).steps) == (100, 75)
    schedule = open_race(task).schedule
    assert [schedule.factor(step, 0) for step in (0, 19, 20)] == pytest.approx([1 / 21, 20 / 21, 1])
    assert _level(open_trials(task)) == 1  # only the warm-up might be seen
    *_, race, choice = raced(task)
    assert choice.log_lr is not None
    assert {len(r.loss) for r in race.candidates if r.final_loss is not None} == {100}
    sys.modules.pop("net")
    with pytest.raises(ConfigError, match="cosine needs the length of the training"):
        open_race(opened(text, net=endless))


# The search


def searched(task):
    rows, finder = [], search(ExperimentSubject(task), plan_of(task), Stopwatch())
    while True:
        try:
            rows.append(next(finder))
        except StopIteration as end:
            return rows, end.value


def test_a_search_leaves_no_file_and_returns_all(opened, tmp_path):
    task = opened(IRIS)
    before = sorted(path.name for path in tmp_path.iterdir())
    rows, found = searched(task)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert len(found.sweeps) == 1
    assert found.race is not None
    said, named = found.finding.suggestion, found.finding.suggestions
    assert said.lr == named["race"].lr
    assert named["auto"].lr != said.lr
    assert (said.method, said.for_steps) == ("auto", 80)
    assert "by racing" in said.reason
    assert found.finding.centre == pytest.approx(found.race.candidates[1].lr)
    made = sum(len(sweep.lr) for sweep in found.sweeps)
    raced = [*found.trials.candidates, *found.race.candidates]
    trained = sum(len(racer.loss) for racer in raced) + len(found.full_trial.loss)
    assert len(rows) == made + trained
    assert found.timing["steps"] >= len(rows)


def overfitting(*sets):
    """A training of 40 noisy samples that a wide network learns by heart."""
    return ("data.source=net:few", "model.args={hidden: [256]}", "loss=mse", *sets)


FEW = """
import torch
def few():
    x = torch.randn(240, 20, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(240, 1, generator=torch.Generator().manual_seed(1))
    y = x[:, :1] + 0.7 * noise
    half = torch.utils.data.TensorDataset(x[:40], y[:40])
    return half, torch.utils.data.TensorDataset(x[40:], y[40:])
"""


def test_a_whole_training_where_trials_overfit(opened):
    sets = overfitting("find.verify=false", "train.epochs=100", "data.batch_size=20")
    task = opened(IRIS, *sets, net=FEW)
    rows, found = searched(task)
    full, whole = found.full_trial, [row for row in rows if isinstance(row, FullTrialRow)]
    assert (full.steps, full.step, full.examples) == (200, tuple(range(20, 201, 20)), 200)
    assert [row.step for row in whole] == list(range(1, 201))
    assert {row.lr for row in whole} == {full.lr}
    assert tuple(row.loss for row in whole) == full.loss
    assert rows[-1] is whole[-1]
    # 11 measurements of 10 updates' samples, each a third of a step
    assert full.steps_spent == pytest.approx(200 + 11 * 200 / 20 / 3)
    factors = [(1 + math.cos(math.pi * step / 200)) / 2 for step in range(200)]  # cosine
    assert full.share == pytest.approx([sum(factors[:end]) / sum(factors) for end in full.step])
    lowest = int(np.argmin(full.validation))
    assert 0 < lowest < 9, "the task overfits in another way"
    assert found.finding.suggestion.lr == pytest.approx(full.lr * full.share[lowest])

    seed = seed_of(3, 0)  # after those of one sweep, the trials and a race
    assert full.seed == seed
    again = opened(IRIS, *sets, f"seed={seed}", net=FEW)
    assert losses_of_a_training(again, full.lr) == full.loss


@pytest.mark.parametrize("rows", [60, 100])
def test_a_rate_without_all_of_its_trials_is_in_doubt(opened, rows):
    """After the sweep of 60 steps, and within the first trial."""
    task = opened(IRIS, "find.verify=false", "train.epochs=30")
    assert searched(task)[1].finding.suggestion.verdict == "confident"
    finder = search(ExperimentSubject(task), plan_of(task), Stopwatch())
    for _ in range(rows):
        next(finder)
    with pytest.raises(StopIteration) as end:
        finder.throw(InterruptedRunError("enough"))
    said = end.value.value.finding.suggestion
    assert said.verdict == "uncertain"
    assert "the trials did not come to an end" in said.reason.lower()


def stopped_at(task, last):
    """Interrupt a search at the first row for which `last(row)` holds; return its result."""
    finder = search(ExperimentSubject(task), plan_of(task), Stopwatch())
    next(row for row in finder if last(row))
    with pytest.raises(StopIteration) as end:
        finder.throw(InterruptedRunError("enough"))
    return end.value.value


def test_a_rate_without_the_end_of_its_third_or_full_trial_is_in_doubt(opened):
    sets = "optimizer=sgd", "model.args.hidden=[64,64,64]"
    outwards = opened(IRIS, "find.verify=false", "train.epochs=30", *sets)
    whole = searched(outwards)[1]
    assert whole.finding.suggestion.verdict == "confident"
    assert len(whole.trials.candidates) == 3
    third = stopped_at(outwards, lambda row: isinstance(row, TrialRow) and row.trial == 2)
    assert len(third.trials.candidates) == 3
    sys.modules.pop("net", None)
    sets = overfitting("find.verify=false", "train.epochs=100", "data.batch_size=20")
    full = stopped_at(opened(IRIS, *sets, net=FEW), lambda row: isinstance(row, FullTrialRow))
    assert (full.stage, full.full_trial) == ("full trial", None)  # before its first measurement
    for found in (third, full):
        said = found.finding.suggestion
        assert said.lr is not None
        assert said.verdict == "uncertain"
        assert "the trials did not come to an end" in said.reason.lower()


def test_an_interrupted_one_changes_nothing(opened):
    sets = overfitting("find.verify=false", "train.epochs=100", "data.batch_size=20")
    task = opened(IRIS, *sets, net=FEW)
    finder = search(ExperimentSubject(task), plan_of(task), Stopwatch())
    row = next(row for row in finder if isinstance(row, FullTrialRow) and row.step == 50)
    with pytest.raises(StopIteration) as end:
        finder.throw(InterruptedRunError("enough"))
    found = end.value.value
    assert (found.interrupted, found.stage) == ("enough", "full trial")
    assert found.full_trial.interrupted
    assert found.full_trial.step == (20, 40)
    assert found.finding.suggestion.lr == pytest.approx(row.lr)
    assert found.finding.suggestion.verdict == "uncertain"
    assert "the trials did not come to an end" in found.finding.suggestion.reason.lower()


def test_without_verify_there_is_no_race_but_trials(opened):
    task = opened(IRIS, "find.verify=false")
    rows, found = searched(task)
    assert found.race is None
    assert "race" not in found.finding.suggestions
    named, tried = found.finding.suggestions, found.trials
    assert found.finding.suggestion.lr == named["auto"].lr != named["sweep"].lr
    lower, higher = (trial.lr for trial in tried.candidates)
    assert lower < named["sweep"].lr * 1.5
    assert higher > named["sweep"].lr
    assert [type(row) for row in rows[-230:]] == [TrialRow] * 150 + [FullTrialRow] * 80
    assert isinstance(rows[-231], SweepRow)
    assert found.first_update.steps > 2
    assert found.timing["steps"] >= len(rows) + 1


def test_no_trials_for_a_training_of_3000_steps_or_a_rule(opened):
    long = ("train.epochs=~", "train.max_steps=3000")
    # 120 samples, one in each update: 25 times each, or 30 times and more in larger batches
    once = "data.batch_size=1"
    for sets, tried in (((*long, once), False), (("find.method=valley",), False), (long, True)):
        _, found = searched(opened(IRIS, "find.verify=false", *sets))
        assert (found.trials is not None) == tried
        assert found.finding.trial_rates is None
        assert found.finding.suggestion.lr is not None


def test_the_level_of_a_schedule_is_its_mean(opened):
    for schedule, level in (
        ("{name: constant}", 1.0),
        ("{name: cosine}", 0.5),
        ("{name: constant, warmup: 0.5}", 0.75),
        ("{name: wsd}", 0.87),
        ("{name: step, args: {step_size: 10}}", 0.55),
    ):
        contest = open_trials(opened(IRIS, "train.epochs=20", f"train.schedule={schedule}"))
        assert _level(contest) == pytest.approx(level, abs=0.02)


def test_passes_over_the_data_are_known(opened):
    # 120 samples in batches of 30
    assert plan_of(opened(IRIS, "train.epochs=7")).passes == 7
    assert plan_of(opened(IRIS, "train.epochs=~", "train.max_steps=10")).passes == 2.5


@pytest.mark.parametrize(("steps", "races"), [(4029, False), (4030, True)])
def test_auto_races_where_that_is_a_tenth_of_the_training_at_most(opened, steps, races):
    task = opened(IRIS, "find.verify=auto", "train.epochs=~", f"train.max_steps={steps}")
    _, found = searched(task)
    assert (found.race is not None) == races
    if not races:
        assert found.finding.suggestions["race"].lr is None
        assert "more than 10% of the training" in found.finding.suggestions["race"].reason


def test_nothing_to_race_around(opened):
    _, found = searched(opened(IRIS, "find.start=1e-9", "find.end=1e-7"))
    assert found.race is None
    assert found.finding.suggestion.verdict == "none"
    reason = "there is no suggestion to race around"
    assert found.finding.suggestions["race"].reason == reason
