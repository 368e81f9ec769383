import math
import subprocess
import sys
from contextlib import closing

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trainings import epoch_rows, step_rows

from lrtool.errors import UserError
from lrtool.report import records
from lrtool.show.trackers.tensorboard import EventFiles, require_tensorboard


def scalars(directory):
    """Each tag with its (step, value) pairs, as TensorBoard reads them."""
    events = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_rows_read_back_as_scalars(tmp_path):
    steps = step_rows(2, 3)
    epochs = epoch_rows(steps)
    with closing(EventFiles(tmp_path / "tensorboard")) as files:
        files.update(steps)
        files.update(64)  # samples evaluated
        for row in epochs:
            files.update(row)
    read = scalars(tmp_path / "tensorboard")
    assert set(read) == {
        "loss/step",
        "loss/training",
        "loss/validation",
        "learning_rate",
        "metric/accuracy",
    }
    assert read["loss/step"] == [(row.step, pytest.approx(row.loss)) for row in steps]
    assert read["learning_rate"] == [(row.step, pytest.approx(row.lr)) for row in steps]
    assert read["loss/training"] == [(row.step, pytest.approx(row.train_loss)) for row in epochs]
    assert [step for step, _ in read["loss/validation"]] == [3, 6]
    assert read["metric/accuracy"] == [
        (row.step, pytest.approx(row.metrics["accuracy"])) for row in epochs
    ]


def test_norms_are_written_where_there_are_any_and_nan_is_not_hidden(tmp_path):
    with closing(EventFiles(tmp_path)) as files:
        files.update([records.StepRow(1, 1, 0.1, math.nan, 64, grad_norm=2.5, skipped=False)])
        row = records.EpochRow(
            epoch=1, step=1, lr=0.1, train_loss=0.5, validation_loss=None, f1=0.25
        )
        files.update(row)
    read = scalars(tmp_path)
    assert read["gradient_norm"] == [(1, 2.5)]
    ((step, loss),) = read["loss/step"]
    assert step == 1
    assert math.isnan(loss)
    assert "loss/validation" not in read
    assert "metric/f1" not in read
    assert read["metric/training_f1"] == [(1, 0.25)]


def test_a_resumed_run_hides_what_was_written_after_its_checkpoint(tmp_path):
    def write(rows, step):
        with closing(EventFiles(tmp_path, step)) as files:
            files.update(rows)

    first, second = step_rows(1, 6), step_rows(1, 6, noise=0.5)
    write(first[:5], 0)
    write(second[3:], 3)
    read = scalars(tmp_path)["loss/step"]
    assert read == [(row.step, pytest.approx(row.loss)) for row in [*first[:3], *second[3:]]]


def test_without_tensorboard_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # blocks its import
    with pytest.raises(UserError) as caught:
        EventFiles(tmp_path)
    assert str(caught.value) == (
        "--tensorboard: TensorBoard is not installed: pip install 'lrtool[tensorboard]'"
    )


def test_it_is_missed_before_anything_is_searched_for(monkeypatch):
    require_tensorboard(wanted=True)
    monkeypatch.setattr("lrtool.show.trackers.tensorboard.find_spec", lambda _: None)
    require_tensorboard(wanted=False)
    with pytest.raises(UserError, match="TensorBoard is not installed: pip install"):
        require_tensorboard(wanted=True)


def test_the_module_itself_needs_neither_torch_nor_tensorboard():
    code = (
        "import sys, lrtool.show.trackers.tensorboard;"
        "print([m for m in ('torch', 'tensorboard') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
