import xml.etree.ElementTree as ET

import numpy as np
import pytest
from figures import axes_of, boxes, header, legend, lines, overlapping, texts
from trainings import epoch_rows, step_rows

from lrtool.report.records import BestEpoch
from lrtool.show.plots import train as plot
from lrtool.show.plots.canvas import BEYOND


def marks(axes, gid):
    return [line for line in axes.lines if line.get_gid() == gid]


def data(axes, label):
    (line,) = lines(axes, label)
    return np.array(line.get_xdata()), np.array(line.get_ydata())


def test_what_an_ordinary_plot_says(train):
    figure = plot.draw(train())
    assert header(figure) == [
        "Best accuracy 0.9847 in epoch 10",
        "Learning rate 0.0032, given by --lr",
        "One cycle schedule, warm-up 0.05 · epoch 10 of 10, step 230",
        "mlp, 26,122 parameters · adamw · digits, 1,437 samples · batch 64",
    ]
    assert [axes.get_label() for axes in figure.axes] == ["losses", "accuracy", "rate"]
    assert texts(axes_of(figure, "losses"))[0] == "loss"
    assert texts(axes_of(figure, "accuracy")) == ["accuracy", "last 0.9847"]
    assert texts(axes_of(figure, "rate")) == ["learning rate", "last 3e-7"]
    assert axes_of(figure, "losses").get_xlabel() == "epoch"
    assert axes_of(figure, "rate").get_xlabel() == "step"
    assert legend(figure) == [
        "each step",
        "training, mean of an epoch",
        "validation",
        "best: epoch 10",
    ]


def test_losses_stand_where_their_weights_were(train):
    steps = step_rows(2, 4)
    epochs = epoch_rows(steps)
    losses = axes_of(plot.draw(train(steps=steps, epochs=epochs)), "losses")
    x, y = data(losses, "each step")
    assert x.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]  # updates made before
    assert y.tolist() == [row.loss for row in steps]
    x, y = data(losses, "training, mean of an epoch")
    assert x.tolist() == [1.5, 5.5]  # the middle of 0 … 3 and of 4 … 7
    assert y.tolist() == [row.train_loss for row in epochs]
    x, y = data(losses, "validation")
    assert x.tolist() == [4, 8]
    assert y.tolist() == [row.validation_loss for row in epochs]


def test_epochs_are_counted_under_the_losses_and_steps_under_the_rate(train):
    figure = plot.draw(train())
    figure.draw_without_rendering()
    losses, rate = axes_of(figure, "losses"), axes_of(figure, "rate")
    assert [t.get_text() for t in losses.get_xticklabels()] == [str(n) for n in range(11)]
    assert losses.get_xticks().tolist() == [23 * n for n in range(11)]
    shown = [t.get_text() for t in rate.get_xticklabels()]
    assert {"0", "30", "60", "210"} <= set(shown)
    assert losses.get_xlim() == rate.get_xlim()


def test_each_updates_rate_is_a_level(train):
    steps = step_rows(1, 3, rate=lambda p: 0.1 - 0.09 * p)
    (line,) = axes_of(plot.draw(train(steps=steps)), "rate").lines[:1]
    assert line.get_xdata().tolist() == [0, 1, 2, 3]
    assert line.get_ydata() == pytest.approx([0.1, 0.07, 0.04, 0.04])
    assert line.get_drawstyle() == "steps-post"


def test_the_best_epoch_is_ringed_in_its_panel_and_ruled_in_all(odd_training_named):
    report = odd_training_named("an epoch is a step")
    figure = plot.draw(report)
    rule, ring = marks(axes_of(figure, "losses"), "best")
    assert list(rule.get_xdata()) == [report.best.step] * 2
    assert list(ring.get_xdata()) == [report.best.step]
    assert list(ring.get_ydata()) == [report.best.value]
    assert len(marks(axes_of(figure, "rate"), "best")) == 1


def test_the_ring_of_a_training_loss_is_in_its_epochs_middle(odd_training_named):
    report = odd_training_named("no validation")
    assert report.best.epoch == 10
    _, ring = marks(axes_of(plot.draw(report), "losses"), "best")
    assert list(ring.get_xdata()) == [(207 + 229) / 2]


def test_a_diverged_run_is_marked_and_does_not_squash_the_descent(odd_training_named):
    figure = plot.draw(odd_training_named("diverged"))
    losses = axes_of(figure, "losses")
    (rule,) = marks(losses, "diverged")
    assert list(rule.get_xdata()) == [230, 230]
    assert header(figure)[0] == "Diverged at step 230"
    assert "Best accuracy 0.9844 in epoch 9" in header(figure)
    assert "diverged at step 230" in legend(figure)
    bottom, top = losses.get_ylim()
    assert bottom < 0.1
    assert 2.3 < top < 4
    beyond = np.concatenate([line.get_xdata() for line in lines(losses, BEYOND)])
    assert 229 in beyond


def test_every_step_is_drawn_inside_or_at_the_edge(odd_training):
    losses = axes_of(plot.draw(odd_training), "losses")
    inside = [y for line in lines(losses, "each step") for y in line.get_ydata()]
    edges = [line for line in lines(losses, BEYOND) if line.get_color() == plot.RAW]
    assert len(inside) == len(odd_training.steps.step)
    assert sum(np.isnan(inside)) == sum(len(line.get_xdata()) for line in edges)


def test_a_training_that_diverges_at_once_shows_its_rise(odd_training_named):
    report = odd_training_named("diverged at once")
    assert report.steps.loss[1] > 1e6
    figure = plot.draw(report)
    losses = axes_of(figure, "losses")
    assert losses.get_yscale() == "log"
    x, y = data(losses, "each step")
    finite = [loss for loss in report.steps.loss if np.isfinite(loss)]
    assert len(finite) > 1
    assert y[: len(finite)].tolist() == finite
    bottom, top = losses.get_ylim()
    assert bottom < min(finite) <= max(finite) < top
    (edge,) = lines(losses, BEYOND)
    assert edge.get_xdata().tolist() == x[len(finite) :].tolist()
    (rule,) = marks(losses, "diverged")
    assert header(figure)[0] == "Diverged at step 6"
    assert list(rule.get_xdata()) == [6, 6]
    assert losses.get_xlim()[1] > 6


def test_a_first_loss_below_all_others_is_on_the_axis(train):
    steps = step_rows(4, 100, loss=lambda p: np.where(p == 0, 2.3, 450.0), noise=0.01)
    losses = axes_of(plot.draw(train(steps=steps, epochs=epoch_rows(steps))), "losses")
    assert losses.get_ylim()[0] < 2.2
    assert losses.get_ylim()[1] > 450


def test_a_spoilt_beginning_squashes_nothing(odd_training_named):
    report = odd_training_named("spoilt beginning")
    assert report.epochs[0].train_loss > 1e12
    losses = axes_of(plot.draw(report), "losses")
    assert losses.get_ylim()[1] < 10
    edges = {line.get_color(): line.get_xdata().tolist() for line in lines(losses, BEYOND)}
    assert edges[plot.CURVE] == [11.0]  # the first epoch's mean, in its middle


def test_a_validation_loss_that_is_no_number_is_marked(odd_training_named):
    figure = plot.draw(odd_training_named("validation always NaN"))
    assert {"validation", BEYOND} <= set(legend(figure))
    (edge,) = lines(axes_of(figure, "losses"), BEYOND)
    assert edge.get_color() == plot.VALIDATION
    assert edge.get_xdata().tolist() == [23 * n for n in range(1, 11)]


def test_a_metric_that_is_no_number_is_marked_and_said(train):
    steps = step_rows(3)
    metrics = {"auroc": lambda p: 0.9 if p < 0.5 else np.nan, "f1": lambda _: np.nan}
    figure = plot.draw(train(steps=steps, epochs=epoch_rows(steps, metrics=metrics), best=None))
    auroc, f1 = axes_of(figure, "auroc"), axes_of(figure, "f1")
    assert texts(auroc) == ["auroc", "last NaN or infinite"]
    assert [line.get_xdata().tolist() for line in lines(auroc, BEYOND)] == [[46, 69]]
    assert [line.get_xdata().tolist() for line in lines(f1, BEYOND)] == [[23, 46, 69]]
    assert len(f1.get_yticks()) == 0


def test_a_best_epoch_off_the_axis_has_no_ring(train):
    best = BestEpoch(epoch=10, step=230, metric="validation_loss", value=1e9)
    (rule,) = marks(axes_of(plot.draw(train(best=best)), "losses"), "best")
    assert list(rule.get_xdata()) == [230, 230]


def test_metrics_of_the_training_part_are_called_so(odd_training_named):
    figure = plot.draw(odd_training_named("metrics without validation"))
    assert header(figure)[0] == "Best training accuracy 0.9847 in epoch 10"
    assert texts(axes_of(figure, "accuracy")) == ["training accuracy", "last 0.9847"]


def test_a_long_reason_is_told_to_its_end(train):
    reason = (
        "step 4 of epoch 2, rate 1e6: the loss is nan; the first output that is not finite is that "
        "of 7; the first gradient that is not finite is that of 7.bias; try a lower rate "
        "(--lr 100000), or train.gradient_clip_norm: 1, or train.schedule.warmup: 0.05; the "
        "checkpoint of step 3 has finite weights"
    )
    assert reason in " ".join(header(plot.draw(train(status="diverged", reason=reason))))


@pytest.mark.parametrize(
    ("name", "scale"),
    [("usual", "linear"), ("1e9 to 1e-9", "log"), ("negative", "linear"), ("zero", "linear")],
)
def test_the_losses_scale(odd_training_named, name, scale):
    losses = axes_of(plot.draw(odd_training_named(name)), "losses")
    assert losses.get_yscale() == scale
    assert ("(log scale)" in texts(losses)[0]) == (scale == "log")


@pytest.mark.parametrize(
    ("name", "scale"), [("usual", "linear"), ("step schedule", "log"), ("zero", "linear")]
)
def test_the_rates_scale(odd_training_named, name, scale):
    assert axes_of(plot.draw(odd_training_named(name)), "rate").get_yscale() == scale


def test_warm_up_is_visible(train):
    steps = step_rows(1, 100, rate=lambda p: 0.1 * min(1.0, (100 * p + 1) / 5))
    (line,) = axes_of(plot.draw(train(steps=steps)), "rate").lines[:1]
    assert line.get_ydata()[:6] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1])


def test_four_metrics_have_panels_the_best_ones_first_and_others_are_counted(odd_training_named):
    figure = plot.draw(odd_training_named("many metrics"))
    assert [axes.get_label() for axes in figure.axes] == [
        "losses",
        "accuracy",
        "top_5_accuracy",
        "f1",
        "perplexity",
        "rate",
    ]
    assert axes_of(figure, "perplexity").get_yscale() == "log"
    assert header(figure)[2].endswith("step 230 · 3 more metrics in report.json")


def test_without_metrics_there_is_no_panel_for_them(odd_training_named):
    figure = plot.draw(odd_training_named("no validation"))
    assert [axes.get_label() for axes in figure.axes] == ["losses", "rate"]
    assert "validation" not in legend(figure)


def test_an_interrupted_run_says_so(odd_training_named):
    figure = plot.draw(odd_training_named("interrupted"))
    assert header(figure)[0] == "Best accuracy 0.9603 in epoch 5 (interrupted)"
    assert "interrupted by SIGTERM" in header(figure)
    figure = plot.draw(odd_training_named("interrupted before an epoch"))
    assert header(figure)[0] == "No best epoch (interrupted)"
    assert axes_of(figure, "losses").get_xlabel() == "step"


def test_text_of_the_user_is_no_markup(odd_training_named):
    shown = header(plot.draw(odd_training_named("odd text")))
    assert any(line.startswith("see [red]notes[/red] \\[x] $y^2$ :smile: 100%") for line in shown)
    assert shown[-1].startswith("[bold]my_package.$x_1$:??ResNetResNet")
    assert shown[1].startswith("Learning rate 0.0032, from runs/$x_1$?$x_1$?")


def test_odd_reports_draw_without_overlaps_inside_the_figure(odd_training):
    figure = plot.draw(odd_training)
    assert len(boxes(figure)) > 5
    assert overlapping(figure) == []


def test_the_text_of_the_svg_is_text(train, tmp_path):
    _, svg = plot.save(train(), tmp_path)
    written = "".join(ET.parse(svg).getroot().itertext())  # noqa: S314  (our own file)
    assert "Best accuracy 0.9847 in epoch 10" in written
