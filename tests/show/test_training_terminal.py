import math
from pathlib import Path
from time import perf_counter

import pytest
from terminals import on_a_terminal
from trainings import epoch_rows, step_rows

from lrtool.report.records import EpochRow, LearningRate, StepRow
from lrtool.show.terminal import train as terminal
from lrtool.show.terminal.train import TrainProgress

DIRECTORY, CONFIG = Path("runs/digits/now-train"), Path("configs/digits.yaml")
METRICS = {"accuracy": 0.91234, "top_5_accuracy": 1.0}


def printed(report, capsys, config=CONFIG):
    terminal.print_training(report, directory=DIRECTORY, config=config)
    out, err = capsys.readouterr()
    assert err == ""
    return [line.rstrip() for line in out.splitlines()]


def test_the_table(train, capsys):
    lines = printed(train(), capsys)
    assert lines == [
        "Best           accuracy 0.9847 in epoch 10",
        "Last loss      training 0.1083, validation 0.1568",
        "Last metrics   accuracy 0.9847",
        "Learning rate  0.0032, given by --lr",
        "Schedule       one cycle schedule, warm-up 0.05",
        "Trained        epoch 10 of 10, step 230",
        "Status         completed",
        "Took           12.5 s, 230 steps at 1,200 steps/s",
        "",
        "Checkpoint: runs/digits/now-train/checkpoints/last",
        "Page, report and plots: runs/digits/now-train",
    ]


def test_an_interrupted_run_says_how_to_go_on(odd_training_named, capsys):
    lines = printed(odd_training_named("interrupted"), capsys, Path("my configs/a.yaml"))
    assert "Status         interrupted" in lines
    assert "Why            interrupted by SIGTERM" in lines
    assert "Next           lrtool train 'my configs/a.yaml' --resume runs/digits/now-train" in lines


def test_without_a_checkpoint_there_is_nothing_to_resume(odd_training_named, capsys):
    lines = printed(odd_training_named("nothing"), capsys)
    assert lines == [
        "Schedule  one cycle schedule, warm-up 0.05",
        "Trained   epoch 0 of 10, step 0",
        "Status    failed",
        "Why       out of memory",
        "Took      12.5 s, 230 steps at 1,200 steps/s",
        "",
        "Page, report and plots: runs/digits/now-train",
    ]


def test_a_diverged_run_says_why_and_keeps_its_best(odd_training_named, capsys):
    lines = printed(odd_training_named("diverged"), capsys)
    assert lines[0] == "Best           accuracy 0.9844 in epoch 9"
    assert "Status         diverged" in lines
    assert any(line.startswith("Why            the loss is NaN at step 230") for line in lines)
    assert not any("--resume" in line for line in lines)


def test_metrics_of_the_training_part_are_called_so(odd_training_named, capsys):
    lines = printed(odd_training_named("metrics without validation"), capsys)
    assert lines[:3] == [
        "Best           training accuracy 0.9847 in epoch 10",
        "Last loss      training 0.1083",
        "Last metrics   training accuracy 0.9847",
    ]


def test_what_is_no_number_is_not_hidden(odd_training_named, capsys):
    lines = printed(odd_training_named("diverged after an epoch at once"), capsys)
    assert lines[1].endswith(", validation NaN or infinite")
    assert lines[2] == "Last metrics   f1 NaN or infinite"


def test_an_optimizers_default_rate_is_told_and_a_better_one_offered(train, capsys):
    rate = LearningRate(value=0.001, origin="optimizer", run=None)
    lines = printed(train(learning_rate=rate), capsys)
    assert "Learning rate  0.001, adamw's own default" in lines
    assert "Next           find a rate first: lrtool train configs/digits.yaml --lr auto" in lines


@pytest.mark.parametrize("width", [40, 80, 200])
def test_odd_reports_fit_every_width(odd_training, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    *lines, last = printed(odd_training, capsys)
    assert last == f"Page, report and plots: {DIRECTORY}"
    table = lines[: lines.index("")]
    assert max(map(len, table)) <= width
    assert not any("\x1b" in line for line in lines)


def test_text_of_the_user_is_no_markup(odd_training_named, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = "\n".join(printed(odd_training_named("odd text"), capsys))
    assert "see [red]notes[/red] \\[x] $y^2$ :smile: 100%" in out


def test_a_terminal_gets_colour_and_no_color_takes_every_escape_away(train, monkeypatch):
    def work():
        terminal.print_training(train(), directory=DIRECTORY, config=CONFIG)

    assert "\x1b[1;32mcompleted" in on_a_terminal("stdout", monkeypatch, work)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in on_a_terminal("stdout", monkeypatch, work)


def test_a_terminal_that_knows_only_ascii(train, monkeypatch):
    def work():
        report = train(status="failed", reason="déjà vu – 3 × 2 …")
        terminal.print_training(report, directory=Path("läufe"), config=CONFIG)

    sent = on_a_terminal("stdout", monkeypatch, work, encoding="ascii")
    assert "d\\xe9j\\xe0 vu - 3 x 2 ..." in sent
    assert "Checkpoint: l\\xe4ufe/checkpoints/last" in sent


def row(step, epoch=1, loss=0.5):
    return StepRow(
        step=step, epoch=epoch, lr=3.2e-4, loss=loss, samples=64, grad_norm=None, skipped=False
    )


def end(epoch, step, validation=0.31, metrics=METRICS):
    losses = {"train_loss": 0.25, "validation_loss": validation}
    return EpochRow(epoch=epoch, step=step, lr=3.2e-4, **losses, **metrics)


def test_without_a_terminal_a_line_now_and_then_and_one_at_each_epochs_end(clock, capsys):
    with TrainProgress(epochs=2, steps=40) as progress:
        for step in range(1, 41, 2):
            clock(0.25)
            progress.update([row(step, (step - 1) // 20 + 1), row(step + 1, (step - 1) // 20 + 1)])
            if step == 19:
                progress.update(64)
                clock(10)
                progress.update(end(1, 20))
        progress.update(end(2, 40, None, {"accuracy": 0.91234}))
    out, err = capsys.readouterr()
    assert out == ""
    # 16 steps in 2 s: 24 more take 3 s; 16 × 64 samples in 2 s. With evaluation, 20 take 12.5 s
    done = "epoch 1/2 done, step 20/40, training loss 0.25, validation loss 0.31, "
    done += "accuracy 0.9123, top 5 accuracy 1, rate 0.00032, 0:12 left"
    assert err.splitlines() == [
        "epoch 1/2, step 16/40, loss 0.5, rate 0.00032, 512 samples/s, 0:03 left",
        done,
        "epoch 2/2 done, step 40/40, training loss 0.25, training accuracy 0.9123, rate 0.00032",
    ]


def test_evaluation_does_not_count_as_training_speed(clock, capsys):
    with TrainProgress(epochs=None, steps=None) as progress:
        progress.update([row(1)])
        clock(1)
        progress.update(64)
        clock(9)
        progress.update(end(1, 1, math.nan, {}))
        clock(2)
        progress.update([row(2, 2)])
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1 done, step 1, training loss 0.25, validation loss nan, rate 0.00032",
        "epoch 2, step 2, loss 0.5, rate 0.00032, 32 samples/s, validation loss nan",
    ]


def test_steps_of_unknown_number_are_estimated_from_the_epochs(clock, capsys):
    with TrainProgress(epochs=4, steps=None) as progress:
        clock(10)
        progress.update([row(10)])
        progress.update(end(1, 10, None, {}))
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1/4, step 10, loss 0.5, rate 0.00032, 6.4 samples/s",
        "epoch 1/4 done, step 10, training loss 0.25, rate 0.00032, 0:30 left",
    ]


def test_steps_before_a_resume_do_not_count_as_speed(clock, capsys):
    with TrainProgress(epochs=None, steps=1020, done_steps=1000) as progress:
        clock(60)
        progress.update([row(1010)])
    assert "step 1010/1020, loss 0.5, rate 0.00032, 1.1 samples/s, 1:00 left" in (
        capsys.readouterr().err
    )


def test_an_exception_leaves_the_last_row_and_passes_through(capsys):
    with pytest.raises(KeyError), TrainProgress(epochs=1, steps=9) as progress:  # noqa: PT012
        progress.update([row(1), row(2, loss=math.nan)])
        raise KeyError
    assert capsys.readouterr().err.startswith("epoch 1/1, step 2/9, loss nan, rate 0.00032, ")


def test_nothing_happened_nothing_is_said(capsys):
    with TrainProgress(epochs=1, steps=9) as progress:
        progress.update([])
        progress.update(64)
    assert capsys.readouterr().err == ""


def test_quiet_is_quiet(clock, capsys, monkeypatch):
    def work():
        with TrainProgress(epochs=1, steps=9, quiet=True) as progress:
            clock(10)
            progress.update([row(2)])
            progress.update(64)
            progress.update(end(1, 2))

    work()
    assert capsys.readouterr().err == ""
    assert on_a_terminal("stderr", monkeypatch, work) == ""


def test_a_terminal_shows_a_live_bar_and_clears_it(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def work():
        with TrainProgress(epochs=2, steps=100) as progress:
            clock(0.2)
            progress.update([row(49), row(50, loss=math.inf)])
            progress.update([row(51)])
            clock(0.01)
            progress.update(64)
            progress.update(end(1, 51))
            clock(0.2)
            progress.update([row(99, 2)])

    sent = on_a_terminal("stderr", monkeypatch, work)
    assert "epoch 1/2, step 50/100, loss inf, rate 0.00032, 640 samples/s, 0:00 left" in sent
    assert "step 51/100, loss" not in sent
    assert "epoch 1/2, step 51/100, evaluating" in sent
    assert "epoch 2/2, step 99/100, loss 0.5" in sent
    assert "validation loss 0.31, accuracy 0.9123" in sent
    assert "done" not in sent
    assert "━" in sent
    assert sent.endswith("\x1b[2K")


def test_a_dumb_terminal_gets_plain_lines(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")

    def work():
        with TrainProgress(epochs=1, steps=9) as progress:
            clock(3)
            progress.update([row(2)])

    (line,) = on_a_terminal("stderr", monkeypatch, work).splitlines()
    assert line.startswith("epoch 1/1, step 2/9, loss 0.5")


def test_calls_cost_next_to_nothing():
    rows = step_rows(1, 20_000)
    epochs = epoch_rows(step_rows(1, 1)) * 1000
    seconds = []
    for _ in range(3):
        with TrainProgress(epochs=1, steps=20_000, quiet=True) as progress:
            started = perf_counter()
            for each in rows:
                progress.update([each])
            for each in epochs:
                progress.update(64)
                progress.update(each)
            seconds.append(perf_counter() - started)
    assert min(seconds) / (len(rows) + 2 * len(epochs)) < 5e-6
