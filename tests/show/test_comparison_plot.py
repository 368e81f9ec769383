import numpy as np
import pytest
from figures import axes_of, header, legend, lines, overlapping, texts
from trainings import epoch_rows, step_rows

from lrtool.show.plots import compare as plot
from lrtool.show.plots.canvas import BEYOND


def marks(axes, gid):
    return [line for line in axes.lines if line.get_gid() == gid]


def labels(figure):
    return [axes.get_label() for axes in figure.axes]


def test_finds_are_curves_with_their_suggestion_on_them(make, odd_named):
    one, other = make(), odd_named("uncertain, wide interval")
    figure = plot.draw({"one": one, "other": other})
    assert labels(figure) == ["find"]
    assert header(figure) == ["2 runs compared"]
    assert legend(figure) == ["one", "other"]
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    curve = axes.lines[0]
    assert tuple(curve.get_xdata()) == one.curve.lr
    assert tuple(curve.get_ydata()) == one.curve.loss
    (dot,) = marks(axes, "suggestion one")
    assert list(dot.get_xdata()) == [0.0032]
    nearest = int(np.argmin(np.abs(np.log(np.array(one.curve.lr) / 0.0032))))
    assert dot.get_ydata()[0] == pytest.approx(one.curve.loss[nearest], rel=0.05)
    assert dot.get_color() == curve.get_color()
    bottom, top = axes.get_ylim()
    assert bottom < 0.5
    assert 2.3 < top < 4  # a diverging end squashes nothing


def test_trainings_are_validation_losses_over_epochs_and_rates(train):
    steps = step_rows(4, 10)
    epochs = epoch_rows(steps)
    figure = plot.draw({"a": train(), "b": train(steps=steps, epochs=epochs)})
    losses, rates = axes_of(figure, "losses"), axes_of(figure, "rates")
    assert losses.get_xlabel() == rates.get_xlabel() == "epoch"
    assert losses.get_xlim() == rates.get_xlim()
    assert texts(losses)[0] == "train: validation loss"
    line = losses.lines[1]
    assert list(line.get_xdata()) == [1, 2, 3, 4]
    assert list(line.get_ydata()) == [row.validation_loss for row in epochs]
    rate = rates.lines[1]
    assert list(rate.get_xdata()) == pytest.approx([n / 10 for n in range(41)])
    assert list(rate.get_ydata()[:-1]) == [row.lr for row in steps]
    assert rate.get_color() == line.get_color() != losses.lines[0].get_color()


def test_without_a_validation_part_the_training_loss_stands_in_and_the_title_says_so(
    train, odd_training_named
):
    alone = odd_training_named("no validation")
    losses = axes_of(plot.draw({"a": alone}), "losses")
    assert texts(losses)[0] == "train: training loss"
    assert list(losses.lines[0].get_ydata()) == [epoch.train_loss for epoch in alone.epochs]
    losses = axes_of(plot.draw({"a": alone, "b": train()}), "losses")
    assert texts(losses)[0] == "train: validation or training loss"


def test_beside_validation_losses_a_training_loss_is_called_one(make, train, odd_training_named):
    alone = odd_training_named("no validation")
    long = f"runs/{'a-long-name' * 8}/1"
    shown = legend(plot.draw({"a": train(), long: alone, "f": make()}))
    assert shown == ["a", f"…{long[-25:]} (training loss)", "f"]
    assert len(shown[1]) == plot.NAME
    assert legend(plot.draw({"b": alone, "f": make()})) == ["b", "f"]  # the title says it


def test_losses_that_are_no_numbers_are_marked_in_the_runs_colour(train, odd_training_named):
    spoilt = odd_training_named("validation always NaN")
    losses = axes_of(plot.draw({"ok": train(), "not": spoilt}), "losses")
    assert texts(losses)[0] == "train: validation loss"
    assert texts(losses)[1] == f"triangle: {BEYOND}"
    (edge,) = lines(losses, BEYOND)
    assert list(edge.get_xdata()) == list(range(1, 11))
    assert edge.get_color() == losses.lines[1].get_color()


def test_a_run_that_blew_up_does_not_squash_the_others(train, odd_training_named):
    spoilt = odd_training_named("spoilt beginning")
    figure = plot.draw({"ok": train(), "not": spoilt})
    assert axes_of(figure, "losses").get_ylim()[1] < 10
    alone = odd_training_named("diverged at once")  # 2.3 and then 10 ** 6 times as much each step
    losses = axes_of(plot.draw({"alone": alone}), "losses")
    assert losses.get_ylim() == pytest.approx((2.1, 4.8), abs=0.1)


def test_a_diverged_run_off_the_axis_has_its_cross_at_the_edge(train, odd_training_named):
    figure = plot.draw(
        {"ok": train(), "not": odd_training_named("diverged after an epoch at once")}
    )
    losses = axes_of(figure, "losses")
    (cross,) = marks(losses, "diverged not")
    assert list(cross.get_xdata()) == [1]
    assert list(cross.get_ydata()) == [0.98]  # of the axis
    assert cross.get_transform() == losses.get_xaxis_transform()


def test_a_run_without_epochs_makes_all_count_steps(train, odd_training_named):
    cut = odd_training_named("interrupted before an epoch")
    losses = axes_of(plot.draw({"a": train(), "cut": cut}), "losses")
    assert losses.get_xlabel() == "step"
    assert list(losses.lines[0].get_xdata()) == [23 * n for n in range(1, 11)]
    assert list(losses.lines[1].get_xdata()) == list(cut.steps.step)


def test_both_kinds_have_their_panels(make, train):
    assert labels(plot.draw({"f": make(), "t": train()})) == ["find", "losses", "rates"]


def test_a_diverged_run_ends_in_a_cross(train, odd_training_named):
    figure = plot.draw({"ok": train(), "not": odd_training_named("diverged")})
    losses = axes_of(figure, "losses")
    (cross,) = marks(losses, "diverged not")
    assert list(cross.get_xdata()) == [8]
    assert marks(losses, "diverged ok") == []
    assert losses.get_ylim()[1] < 4
    assert texts(losses)[1] == f"cross: diverged · triangle: {BEYOND}"


def test_rates_far_apart_are_drawn_on_a_log_scale(train):
    far = step_rows(rate=lambda _: 10.0)
    near = step_rows(rate=lambda _: 0.02)
    small = train(steps=step_rows(rate=lambda _: 0.01))
    scales = [
        axes_of(plot.draw({"a": small, "b": train(steps=rows)}), "rates").get_yscale()
        for rows in (far, near)
    ]
    assert scales == ["log", "linear"]


def test_fourteen_runs_look_different():
    styles = {(style["color"], str(style["ls"])) for style in map(plot._style, range(14))}
    assert len(styles) == 14


def test_of_a_long_name_the_end_is_kept(make):
    names = [f"runs/{'a-long-name' * 8}/2026010{n}T000000Z-find" for n in range(2)]
    shown = legend(plot.draw(dict.fromkeys(names, make())))
    assert [name[-21:] for name in shown] == [name[-21:] for name in names]
    assert all(name.startswith("…") and len(name) == plot.NAME for name in shown)


def test_odd_finds_compare_without_overlaps(odd, make):
    names = [f"runs/{'a-long-name' * 8}/{n}" for n in range(11)]
    figure = plot.draw({"odd $x_1$": odd, **dict.fromkeys(names, make())})
    assert overlapping(figure) == []


def test_odd_trainings_compare_without_overlaps(odd_training, train, make):
    names = [f"runs/{'a-long-name' * 8}/{n}" for n in range(10)]
    figure = plot.draw({"odd": odd_training, **dict.fromkeys(names, train()), "f": make()})
    assert overlapping(figure) == []
    assert overlapping(plot.draw({"alone": odd_training})) == []
