"""A training yields plain rows and returns how it ended; it raises nothing."""

import json
import sys
from itertools import groupby
from pathlib import Path

import pytest
from small import NET

from lrtool.errors import InterruptedRunError, UserError
from lrtool.report import metrics_log
from lrtool.report.records import EpochRow, StepRow
from lrtool.training.epochs import Ending, train

METRICS = Path("run/metrics.jsonl")


def ended(events):
    """Everything that a training yields, and how it ends."""
    seen = []
    while True:
        try:
            seen.append(next(events))
        except StopIteration as end:
            return seen, end.value


def steps_of(events):
    return [row for event in events if isinstance(event, list) for row in event]


def test_its_rows_are_those_of_the_log_and_it_leaves_no_report(begin):
    session = begin()
    events, ending = ended(train(session))
    assert ending == Ending("completed")
    assert steps_of(events) == list(metrics_log.read(METRICS, StepRow))
    assert [row.step for row in steps_of(events)] == list(range(1, 10))  # 3 epochs of 3 updates
    ends = [event for event in events if isinstance(event, EpochRow)]
    assert ends == list(metrics_log.read(METRICS, EpochRow))
    assert [event for event in events if isinstance(event, int)] == [8, 16, 20] * 3  # evaluated
    assert {path.name for path in Path("run").iterdir()} == {
        *("metrics.jsonl", "model.safetensors", "checkpoints")
    }
    assert (session.saved, session.watch.steps) == (9, 9)


def test_early_stopping_is_the_reason(begin):
    never = "train.early_stopping={patience: 1, metric: validation_loss, min_delta: 1e9}"
    _, ending = ended(train(begin(never)))
    words = "early stopping: validation_loss has not improved for 1 epoch"
    assert ending == Ending("completed", words)


def test_an_interruption_saves_a_checkpoint_to_go_on_from(begin):
    _, whole = ended(train(begin())), Path("run/model.safetensors").read_bytes()
    Path("run/model.safetensors").unlink()
    session = begin()
    events = train(session)
    next(events)
    with pytest.raises(StopIteration) as end:
        events.throw(InterruptedRunError("stopped by SIGTERM"))
    assert end.value.value == Ending("interrupted", "stopped by SIGTERM")
    assert 0 < session.saved == session.position.step < 9
    assert not Path("run/model.safetensors").exists()
    _, ending = ended(train(begin(resume=True)))
    assert ending == Ending("completed")
    assert Path("run/model.safetensors").read_bytes() == whole
    assert [row.step for row in metrics_log.read(METRICS, StepRow)] == list(range(1, 10))


def test_an_error_is_part_of_the_ending_with_the_rows_before_it(begin):
    fails = "if next(reads) == 64: raise LookupError('no such picture')\n        "
    broken = "from itertools import count\nreads = count()\n" + NET.replace(
        "noise =", f"{fails}noise ="
    )
    events, ending = ended(train(begin(net=broken)))  # an update reads 24 samples
    assert (ending.status, ending.reason) == ("failed", None)
    assert isinstance(ending.error, LookupError)
    assert str(ending.error) == "no such picture"
    assert [row.step for row in steps_of(events)] == [1]
    assert steps_of(events) == list(metrics_log.read(METRICS, StepRow))


def test_a_divergence_names_its_step_and_the_last_good_checkpoint(begin):
    events, ending = ended(train(begin("train.checkpoint_every=1", rate=1e30)))
    last = steps_of(events)[-1].step if steps_of(events) else 0
    assert (ending.status, ending.error) == ("diverged", None)
    logged = [json.loads(line) for line in METRICS.read_text().splitlines()]
    failed = [line for line in logged if line["kind"] == "step"][-1]["step"]
    assert failed == last + 1  # the row that failed is logged, and not shown
    assert ending.reason.startswith(f"step {failed} of epoch 1, rate ")
    assert "; try a lower rate (--lr 1e29), or --lr auto, which finds one, or " in ending.reason
    assert ending.reason.endswith(f"; the checkpoint of step {last} has finite weights")


def test_data_that_are_not_finite_are_to_be_looked_at(begin):
    broken = NET.replace("(self.x[index] + noise)", "(self.x[index] * float('nan'))")
    _, ending = ended(train(begin(net=broken)))
    assert ending.reason == (
        "step 1 of epoch 1, rate 0.0033: the data of this step hold NaN or infinity; "
        "look at what data.source net:data yields; no checkpoint had been saved yet"
    )


def test_a_log_that_cannot_be_opened_is_said_in_words(begin):
    session = begin()
    METRICS.mkdir()
    events, ending = ended(train(session))
    assert (events, ending.status) == ([], "failed")
    assert isinstance(ending.error, UserError)
    assert str(ending.error) == (
        "run/metrics.jsonl: cannot be written: Is a directory; no checkpoint had been saved yet"
    )


def test_whoever_closes_it_early_keeps_what_was_logged(begin):
    events = train(begin())
    shown = next(events)
    events.close()
    assert list(metrics_log.read(METRICS, StepRow)) == shown


MODED = f"""{NET}
class Moded(torch.optim.SGD):
    training = False
    calls = []

    def train(self):
        self.training = True

    def eval(self):
        self.training = False
        Moded.calls.append("eval")

    def step(self, closure=None):
        assert self.training
        Moded.calls.append("step")
        return super().step(closure)
"""


@pytest.mark.parametrize(("every", "turns"), [("~", 3), ("1", 9)])
def test_an_optimizer_with_modes_is_told_when_it_trains_and_when_not(begin, every, turns):
    """Weights are evaluated, and saved, in its evaluation mode."""
    sets = ("optimizer={name: 'net:Moded'}", f"train.checkpoint_every={every}")
    session = begin(*sets, net=MODED)
    sys.modules["net"].Moded.calls.clear()  # of what the checks of a configuration have done
    _, ending = ended(train(session))
    assert ending == Ending("completed")
    calls = sys.modules["net"].Moded.calls
    assert calls.count("step") == 9
    assert [call for call, _ in groupby(calls)] == ["step", "eval"] * turns
