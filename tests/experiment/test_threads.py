"""The number of threads: measured, chosen by the user, or that of an earlier run."""

from dataclasses import replace

import pytest
import torch

from lrtool.config.schema import Config
from lrtool.experiment import threads
from lrtool.experiment.experiment import build, open_experiment, resolved_config
from lrtool.experiment.threads import with_threads
from lrtool.ranks import Ranks
from lrtool.training.resume import with_threads_of

IRIS = "data: {source: iris, batch_size: 50}\n"


@pytest.fixture(autouse=True)
def _many(monkeypatch):
    """A machine with four cores, where nobody has chosen a number."""
    before = torch.get_num_threads()
    for name in threads.CHOSEN:
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def timed(monkeypatch, one, every):
    """Steps that take so many seconds, with one thread and with all; return those that are made."""
    made = []

    def seconds(_step, _group, _lr, number):
        made.append(number)
        return {1: one, 4: every}[number]

    monkeypatch.setattr(threads, "_seconds_of_a_step", seconds)
    return made


@pytest.mark.parametrize(
    ("one", "every", "chosen"),
    [
        (0.001, 0.001, 1),  # equal
        (0.001, 0.00085, 1),  # not by much
        (0.001, 0.0008, 4),
        (0.001, 0.03, 1),  # they wait for a core that another process holds
    ],
)
def test_all_threads_must_be_clearly_faster(monkeypatch, opened, one, every, chosen):
    timed(monkeypatch, one, every)
    experiment = with_threads(opened("", IRIS))
    assert resolved_config(experiment)["runtime"]["threads"] == chosen
    assert torch.get_num_threads() == chosen


def test_the_mean_counts_not_the_best_moment(monkeypatch, opened):
    """Fast steps between waits are slow steps."""
    made = []

    def seconds(_step, _group, _lr, number):
        made.append(number)
        waits = made.count(4) % 10 == 0
        return 0.001 if number == 1 else 0.05 if waits else 0.0005

    monkeypatch.setattr(threads, "_seconds_of_a_step", seconds)
    assert with_threads(opened("", IRIS)).config.runtime.threads == 1


def test_long_steps_are_not_measured_with_one_thread(monkeypatch, opened):
    made = timed(monkeypatch, one=3.0, every=0.3)
    assert with_threads(opened("", IRIS)).config.runtime.threads == 4
    assert made == [4]


def test_it_takes_few_steps(monkeypatch, opened):
    made = timed(monkeypatch, one=0.02, every=0.02)
    with_threads(opened("", IRIS))
    assert len(made) == 2 + 2 * threads.ROUNDS


def test_real_steps_leave_a_training_as_it_is(opened):
    experiment = opened("", IRIS)
    before = [p.clone() for p in build(experiment, 0).model.parameters()]
    experiment = with_threads(experiment)
    assert experiment.config.runtime.threads == torch.get_num_threads()
    assert all(map(torch.equal, before, build(experiment, 0).model.parameters()))


@pytest.mark.parametrize("name", threads.CHOSEN)
def test_the_environment_wins_over_auto(monkeypatch, opened, name):
    made = timed(monkeypatch, one=0.001, every=0.03)
    monkeypatch.setenv(name, "4")
    assert with_threads(opened("", IRIS)).config.runtime.threads == 4
    assert made == []


def test_a_number_of_the_configuration_wins_over_all(monkeypatch, opened):
    made = timed(monkeypatch, one=0.001, every=0.03)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    experiment = with_threads(opened("", IRIS + "runtime: {threads: 3}\n"))
    assert (experiment.config.runtime.threads, torch.get_num_threads(), made) == (3, 3, [])


def test_a_batch_that_can_be_used_once_only_is_not_measured(monkeypatch, opened):
    def seconds(*_):
        raise RuntimeError("trying to backward through the graph a second time")

    monkeypatch.setattr(threads, "_seconds_of_a_step", seconds)
    assert with_threads(opened("", IRIS)).config.runtime.threads == 4


def test_the_number_is_no_part_of_the_digest():
    one, other = (Config.model_validate({"runtime": {"threads": n}}) for n in (1, "auto"))
    assert one.digest() == other.digest()
    assert one.digest() != Config.model_validate({"runtime": {"compile": True}}).digest()


@pytest.mark.parametrize("wrong", [0, -1, 1.0, True, "all", 100_000])
def test_what_is_no_number_of_threads(wrong):
    with pytest.raises(ValueError, match="must be a whole number from 1 to 1024, or auto"):
        Config.model_validate({"runtime": {"threads": wrong}})


@pytest.mark.parametrize(
    ("stored", "own", "expected"),
    [
        ("runtime: {threads: 3}\n", "auto", 3),
        ("runtime: {threads: 3}\n", 2, 2),
        ("runtime: {threads: auto}\n", "auto", "auto"),
        ("seed: 1\n", "auto", "auto"),  # of an earlier version
        ("runtime: 3\n", "auto", "auto"),
        ("runtime: {threads: many}\n", "auto", "auto"),
        ("{", "auto", "auto"),
        (None, "auto", "auto"),
    ],
)
def test_auto_is_the_number_of_the_run_that_goes_on(tmp_path, stored, own, expected):
    if stored is not None:
        (tmp_path / "config.yaml").write_text(stored)
    config = Config.model_validate({"runtime": {"threads": own}, "seed": 5})
    taken = with_threads_of(tmp_path, config)
    assert (taken.runtime.threads, taken.seed) == (expected, 5)


def of_ranks(monkeypatch, experiment, world_size, fewest):
    """An experiment of so many ranks on one machine, of which another one has fewer threads."""
    ranks = Ranks(world_size=world_size)
    monkeypatch.setattr(Ranks, "highest", lambda _, values: [max(*values, -fewest)])
    return replace(experiment, runtime=replace(experiment.runtime, ranks=ranks))


@pytest.mark.parametrize(
    ("on_this_machine", "fewest", "expected"),
    [("2", 9, 2), ("", 9, 1), ("8", 9, 1), ("1", 9, 4), ("2", 1, 1)],
)
def test_each_rank_has_its_part_of_the_threads(
    monkeypatch, opened, on_this_machine, fewest, expected
):
    made = timed(monkeypatch, one=0.001, every=0.03)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", on_this_machine)
    experiment = with_threads(of_ranks(monkeypatch, opened("", IRIS), 4, fewest))
    assert (experiment.config.runtime.threads, torch.get_num_threads()) == (expected, expected)
    assert made == []


def test_the_environment_wins_for_ranks_too(monkeypatch, opened):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    experiment = with_threads(of_ranks(monkeypatch, opened("", IRIS), 2, 9))
    assert experiment.config.runtime.threads == 4


@pytest.mark.parametrize(("before", "now", "expected"), [(1, 1, 3), (2, 2, 3), (1, 2, "auto")])
def test_another_number_of_ranks_does_not_take_the_threads_of_a_run(
    tmp_path, before, now, expected
):
    (tmp_path / "config.yaml").write_text("runtime: {threads: 3}\n")
    last = tmp_path / "checkpoints" / "last"
    last.mkdir(parents=True)
    torch.save({"ranks": [{}] * before if before > 1 else []}, last / "state.pt")
    assert with_threads_of(tmp_path, Config(), now).runtime.threads == expected


def test_a_find_and_the_training_after_it_have_the_same_number(monkeypatch, opened):
    """The number is decided once, before either."""
    timed(monkeypatch, one=0.001, every=0.03)
    experiment = with_threads(opened("", IRIS))
    timed(monkeypatch, one=0.03, every=0.001)
    again = open_experiment(experiment.config, experiment.document)
    assert with_threads(again).config.runtime.threads == 1
