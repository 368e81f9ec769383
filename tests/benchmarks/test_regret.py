"""The regret of a suggestion, and what is measured of it."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.regret import cells, finders, grid, ours, outcomes, tasks, training
from benchmarks.regret.cells import Cell

CELL = cells.CELLS["friedman1-adamw-cosine-300"]


def _grid(*columns):
    """Return a grid over half decades from 1e-3 up; the untrained loss is 2."""
    log_lr = -3 + 0.5 * np.arange(len(columns))
    return grid.Grid(log_lr, np.array(columns, dtype=float).T, np.full(len(columns[0]), 2.0))


def test_the_best_rate_is_judged_by_seeds_that_did_not_choose_it():
    # even seeds prefer the first rate, odd ones the second: each is judged by the others
    found = _grid([0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0])
    seeds = np.arange(4)
    assert found.excess(seeds, np.full(4, 1.25)) == pytest.approx(0.25)
    assert found.excess(seeds, np.zeros(4)) == 0  # a lucky rate is no better than the honest best


def test_where_the_best_rate_fails_with_the_seeds_that_judge():
    # even seeds train at the first rate alone, odd ones at the second alone
    found = _grid([0.0, 2.0, 0.0, 2.0], [2.0, 0.0, 2.0, 0.0])
    seeds = np.arange(4)
    assert found.excess(seeds, np.full(4, 1.0)) == 0
    assert found.excess(seeds, np.full(4, 2.0)) == 1  # no better than not training
    assert found.excess(seeds, np.array([1.0, 2.0, 1.0, 2.0])) == 0.5
    assert found.regrets == pytest.approx([0.5, 0.5])


def test_regret_is_zero_at_the_best_and_one_where_training_diverges():
    found = _grid([1.0] * 4, [0.0] * 4, [1.5] * 4)
    pair = np.array([0, 1])
    assert found.excess(pair, np.zeros(2)) == 0
    assert found.excess(pair, np.full(2, 1.0)) == pytest.approx(0.5)
    assert found.excess(pair, np.full(2, math.inf)) == 1
    assert found.excess(pair, np.array([0.0, math.nan])) == pytest.approx(0.5)
    assert found.excess(pair, np.full(2, 50.0)) == 1


def test_each_finder_seed_has_an_even_and_an_odd_training_seed():
    for finder_seed in finders.SEEDS:
        assert sum(seed % 2 for seed in outcomes.TRAINING_SEEDS[str(finder_seed)]) == 1


def test_a_long_training_has_one_seed_a_finder_and_these_are_even_and_odd():
    long = Cell("friedman1", "adamw", "cosine", outcomes.LONG)
    assert [outcomes.training_seeds(CELL, str(seed)) for seed in finders.SEEDS] == [
        [100, 101],
        [102, 103],
        [101, 104],
    ]
    assert [outcomes.training_seeds(long, str(seed)) for seed in finders.SEEDS] == [
        [100],
        [103],
        [104],
    ]
    assert outcomes.training_seeds(CELL, finders.ANY) == list(grid.SEEDS)
    assert outcomes.training_seeds(long, finders.ANY) == [100, 103, 104]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cell with a grid, and answers of one finder and one constant."""
    for folder in ("grids", "exact", "rates/controls", "rates/lrtool"):
        (tmp_path / folder).mkdir(parents=True)

    def end(place):
        """Return an end that is best at 0.01, and a best epoch that is best at 0.1."""
        return [abs(place + 8) / 8, 1.0, math.nan, abs(place + 4) / 8]

    ends = {p: {s: end(p) for s in grid.SEEDS} for p in range(-12, -3)}
    record = {"cell": CELL.name, "initial": [1.0] * 5, "grid": ends}
    grid.file_of(CELL, tmp_path).write_text(json.dumps(record))
    own = {
        str(seed): {"lrtool find": {"lr": rate, "steps": 90}}
        for seed, rate in enumerate((0.011, 0.02, None))
    }
    finders.file_of(CELL, "lrtool", tmp_path).write_text(json.dumps(own))
    fixed = {finders.ANY: {finders.DEFAULT: {"lr": 0.001, "steps": 0}}}
    finders.file_of(CELL, "controls", tmp_path).write_text(json.dumps(fixed))
    trained = []

    def train(cell, rate, seed):
        assert cell == CELL
        trained.append((rate, seed))
        return [0.25, 0.5, math.nan, 0.125]

    monkeypatch.setattr("benchmarks.regret.training.train", train)
    return tmp_path, trained


def test_only_what_is_missing_trains_and_the_grid_has_trained_at_its_own_rates(cache):
    folder, trained = cache
    outcomes.train(CELL, folder)
    assert sorted(trained) == [(0.011, 100), (0.011, 101), (0.02, 102), (0.02, 103)]  # not 0.001
    outcomes.train(CELL, folder)
    assert len(trained) == 4
    assert outcomes.missing(CELL, folder) == []


def test_an_outcome_holds_regret_and_distance_and_a_missing_rate_counts_one(cache):
    folder, _ = cache
    with pytest.raises(KeyError):
        outcomes.of_cell(CELL, folder)
    outcomes.train(CELL, folder)
    found = {(o.method, o.seed): o for o in outcomes.of_cell(CELL, folder)}
    assert len(found) == 6  # the constant too is paired with each finder's seed
    assert found["lrtool find", "0"].regret == pytest.approx(0.25)
    assert found["lrtool find", "0"].best_regret == pytest.approx(0.125)
    assert found["lrtool find", "0"].decades == pytest.approx(math.log10(1.1), abs=0.02)
    assert found["lrtool find", "2"].regret == found["lrtool find", "2"].best_regret == 1
    assert math.isnan(found["lrtool find", "2"].decades)
    assert found[finders.DEFAULT, "1"].fixed
    assert found[finders.DEFAULT, "1"].regret == pytest.approx(0.5)  # of the grid's own trainings
    table = outcomes.regrets(list(found.values()), [CELL], ["lrtool find"])
    assert table == pytest.approx(np.array([[[0.25, 0.25, 1.0]]]))


def test_a_validation_set_may_name_another_rate_of_the_grid_than_the_test_set(cache, monkeypatch):
    folder, _ = cache
    assert grid.by_validation(CELL, folder) == 0  # there is no test set: the best rate
    record = json.loads(grid.file_of(CELL, folder).read_text())
    before = folder / "before.json"
    before.write_text(json.dumps(record))
    for place, ends in record["grid"].items():
        for end in ends.values():
            end.append(abs(int(place) + 4))  # seen: best at 0.1, where the test set's loss is 0.5
    record["grid"]["0"] = {"100": [1.0, 1.0, math.nan, 1.0, -9.0]}  # of one seed: never chosen
    grid.file_of(CELL, folder).write_text(json.dumps(record))
    data = tasks.samples(CELL.task)
    monkeypatch.setattr(tasks, "samples", lambda _: data._replace(x_test=data.x_validation))
    with monkeypatch.context() as older:
        older.setattr(grid, "file_of", lambda *_: before)
        with pytest.raises(SystemExit, match="lacks the losses of the validation set: delete it"):
            grid.by_validation(CELL, folder)
    assert grid.by_validation(CELL, folder) == pytest.approx(0.5)


def test_a_method_that_lacks_an_answer_is_not_dropped_in_silence(cache):
    folder, _ = cache
    outcomes.train(CELL, folder)
    found = [o for o in outcomes.of_cell(CELL, folder) if o.seed != "1"]
    with pytest.raises(SystemExit, match="lrtool find has no answer for friedman1-adamw"):
        outcomes.regrets(found, [CELL], ["lrtool find"])


def test_a_cell_overfits_where_the_training_loss_wants_a_far_higher_rate():
    found = _grid([1.0] * 4, [0.0] * 4, [0.5] * 4, [1.0] * 4)  # best at 10^−2.5

    def record(lowest):
        places = {-12: 1.0, -10: 0.5, -8: 0.4, -6: 0.3} | {lowest: 0.0}
        return {"grid": {str(p): {"100": [0, loss, 0]} for p, loss in places.items()}}

    assert outcomes.overfits(record(-6), found)
    assert not outcomes.overfits(record(-10), found)


def test_a_step_counts_one_and_an_evaluation_a_third_for_each_batch():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    with finders.counted(batch=4) as spent:
        model(torch.zeros(4, 2)).sum().backward()
        assert spent.steps == 1
        with torch.no_grad():
            model(torch.zeros(8, 2))
        assert spent.steps == pytest.approx(1 + 2 / 3)
        with pytest.raises(RuntimeError):
            model(torch.zeros(4, 9))
        model(torch.zeros(4, 2))
    model(torch.zeros(4, 2))
    assert spent.steps == pytest.approx(1 + 2 / 3 + 2)


def test_no_task_is_both_fitted_on_and_published():
    bases = {
        name: {tasks.TASKS[cell.task].base for cell in chosen}
        for name, chosen in cells.SETS.items()
        if name != "quick"
    }
    assert len(bases["development"]) == 10
    assert len(bases["published"]) == 14
    assert len(set().union(*bases.values())) == sum(map(len, bases.values()))
    assert set(cells.QUICK) <= set(cells.PUBLISHED)


def test_kinds_of_training_and_unseen_optimizers_of_the_sets():
    for name in ("development", "published"):
        assert {tasks.TASKS[cell.task].kind for cell in cells.SETS[name]} == {"scratch"}
    for name in ("development-new", "published-new"):
        assert "scratch" not in {tasks.TASKS[cell.task].kind for cell in cells.SETS[name]}
    for name in ("development", "development-new"):
        assert not {cell.optimizer for cell in cells.SETS[name]} & {"rmsprop", "muon", "nadam"}


@pytest.mark.parametrize(
    ("samples", "batch", "steps", "every"),
    [
        (2000, 64, 300, 32),  # each epoch
        (2000, 64, 3000, 160),  # 94 epochs
        (12, 16, 300, 15),
        (2000, 64, 20, 32),  # before the end of the first epoch: at the end alone
    ],
)
def test_evaluations_of_a_training_lie_whole_epochs_apart(samples, batch, steps, every):
    assert training.evaluated_every(samples, batch, steps) == every
    assert steps / every <= training.EVALUATIONS


def test_the_best_epoch_is_the_lowest_of_those_evaluated(monkeypatch):
    seen = iter([0.5, 0.2, math.nan, 0.4, 0.3])
    monkeypatch.setattr(
        training, "evaluate", lambda *_: training.Evaluation(loss := next(seen), loss, math.nan)
    )
    cell = Cell("friedman1", "adamw", "constant", 5 * 32)
    assert (found := training.train(cell, 1e-3, 100)).best == 0.2
    assert found.validation == 0.3


def test_the_validation_set_chooses_the_best_epoch_and_the_test_set_judges_it(monkeypatch):
    seen = iter([(0.5, 1.0), (0.2, 3.0), (0.1, math.inf), (0.4, 0.5), (0.3, 2.0)])
    monkeypatch.setattr(training, "evaluate", lambda *_: training.Evaluation(*next(seen), 0.25))
    found = training.train(Cell("friedman1", "adamw", "constant", 5 * 32), 1e-3, 100)
    assert (found.validation, found.error, found.best, found.seen) == (2.0, 0.25, 3.0, 0.3)


def test_a_test_set_judges_but_not_where_a_finder_trains(monkeypatch):
    cell, data = CELL, tasks.samples(CELL.task)
    model = tasks.model(CELL.task)
    plain = training.evaluate(CELL.task, model, data)
    assert plain.validation == plain.loss
    other = data._replace(x_test=data.x_validation[:50], y_test=data.y_validation[:50] + 9)
    judged = training.evaluate(CELL.task, model, other)
    assert judged.validation == plain.validation
    expected = tasks.loss(model(other.x_test), other.y_test, task=CELL.task)
    assert judged.loss == pytest.approx(expected.item())
    short = training.train(cell, 1e-3, 100, steps=20)
    monkeypatch.setattr(tasks, "samples", lambda _: other)
    assert training.train(cell, 1e-3, 100, steps=20) == pytest.approx(short, nan_ok=True)


def test_a_training_that_diverges_keeps_its_best_epoch():
    cell = Cell("friedman1", "sgd", "constant", 100)
    assert training.train(cell, 1e4, 100) == (math.inf,) * 5
    evaluated = []

    def evaluate(*_):
        evaluated.append(1)
        loss = 0.5 if len(evaluated) == 1 else math.inf
        return training.Evaluation(loss, loss, math.nan)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "evaluate", evaluate)
        assert training.train(cell, 1e-3, 100) == (math.inf, math.inf, math.inf, 0.5, math.inf)


def test_evaluating_between_epochs_changes_no_training(monkeypatch):
    cell = Cell("friedman1", "adamw", "constant", 70)
    often = training.train(cell, 1e-3, 100)
    monkeypatch.setattr(training, "EVALUATIONS", 1)
    assert training.train(cell, 1e-3, 100)[:2] == often[:2]


def test_what_is_frozen_is_not_given_to_the_optimizer():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).requires_grad_(requires_grad=False)
    model[1].requires_grad_(requires_grad=True)
    (group,) = training.optimizer_of("adamw", model, 0.1).param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in model[1].parameters()]


def test_a_configuration_names_the_cells_own_data_model_and_loss():
    cell = Cell("friedman1_loss_x100", "lion", "one_cycle", 250)
    with ours.opened(cell, seed=5, verify=False) as task:
        assert task.config.seed == 5
        assert task.data.samples == {"train": 2000, "validation": 1000}
        assert task.config.train.max_steps == 250
        assert task.config.train.schedule.name == "one_cycle"
        outputs, targets = torch.zeros(4, 1), torch.full((4, 1), 0.5)
        assert float(task.loss_fn(outputs, targets)) == pytest.approx(100 * 0.25)


@pytest.mark.parametrize("verify", [False, True])
def test_find_lr_gets_what_a_user_of_a_loop_has(monkeypatch, verify):
    class Found:
        lr, interval, verdict = 0.02, (0.01, 0.04), "confident"

    def find_lr(model, optimizer, loss_fn, loader, **options):
        x, y = next(iter(loader))
        (x_validation, _), *_ = options.pop("validation")
        assert len(x) == 64
        assert torch.equal(x_validation, tasks.samples(CELL.task).x_validation[:256])
        assert isinstance(optimizer, torch.optim.AdamW)
        assert options == {"verify": verify, "schedule": "cosine", "for_steps": 300}
        loss_fn(model(x), y).backward()
        drawn.append(x)
        return Found

    drawn = []
    monkeypatch.setattr("lrtool.find_lr", find_lr, raising=False)
    monkeypatch.setitem(finders.SOURCES, "find_lr", [lambda *of: ours.find_lr(*of, verify=verify)])
    said = finders.ask(CELL, "find_lr")
    method = ours.FIND_LR_VERIFY if verify else ours.FIND_LR
    answer = {"lr": 0.02, "low": 0.01, "high": 0.04, "verdict": "confident", "steps": 1.0}
    assert said == {seed: {method: answer} for seed in "012"}
    assert not torch.equal(drawn[0], drawn[1])  # each finder's seed has its own order
    finders.ask(CELL, "find_lr")
    assert torch.equal(drawn[0], drawn[3])


def test_a_find_lr_that_names_no_rate_has_no_interval(monkeypatch):
    class Found:
        lr, interval, verdict = None, None, "none"

    monkeypatch.setattr("lrtool.find_lr", lambda *_, **__: Found, raising=False)
    assert ours.find_lr(CELL, 0, verify=False) == {
        ours.FIND_LR: {"lr": None, "low": None, "high": None, "verdict": "none"}
    }
