import xml.etree.ElementTree as ET

import numpy as np
import pytest
from figures import axes_of, boxes, header, legend, lines, overlapping, texts
from matplotlib.image import imread

from lrtool.curve.constants import fitted
from lrtool.report import records
from lrtool.show.plots import find as plot


def test_what_an_ordinary_plot_says(make):
    figure = plot.draw(make())
    assert header(figure) == [
        "Learning rate 0.0032: confident",
        "Interval 0.0018 to 0.0056, for a constant schedule over 230 steps",
        "three sweeps agree within 0.2 decades",
        "mlp, 26,122 parameters · adamw · digits, 1,437 samples · batch 64",
    ]
    losses = axes_of(figure, "losses")
    assert losses.get_xscale() == "log"
    assert losses.get_xlabel() == "learning rate (log scale)"
    assert losses.get_ylabel() == "training loss, before the update"
    assert texts(axes_of(figure, "regions")) == ["good", "too low", "too high", "0.0032"]
    assert texts(axes_of(figure, "guideline")) == ["usual guideline: 0.0001 to 0.01"]
    assert legend(figure) == ["sweep 1", "sweep 2", "sweep 3", plot.SMOOTH, plot.BEYOND]


def test_every_raw_loss_is_drawn_inside_or_at_the_edge(make):
    report = make()
    losses = axes_of(plot.draw(report), "losses")
    drawn = {}
    for index, sweep in enumerate(report.sweeps):
        (inside,) = lines(losses, f"sweep {index + 1}")
        lr, loss = np.array(sweep.lr), np.array(sweep.loss)
        top = losses.get_ylim()[1]
        assert np.array_equal(inside.get_xdata(), lr[loss <= top])
        assert np.array_equal(inside.get_ydata(), loss[loss <= top])
        drawn[index] = inside.get_color(), inside.get_marker()
    assert len(set(drawn.values())) == 3
    beyond = sum(len(line.get_xdata()) for line in lines(losses, plot.BEYOND))
    assert beyond == sum(np.sum(np.array(s.loss) > losses.get_ylim()[1]) for s in report.sweeps)
    assert beyond > 0


def test_the_smooth_curve_lies_above_the_points_with_its_band(make):
    report = make()
    losses = axes_of(plot.draw(report), "losses")
    (smooth,) = lines(losses, plot.SMOOTH)
    assert tuple(smooth.get_xdata()) == report.curve.lr
    assert tuple(smooth.get_ydata()) == report.curve.loss
    (band,) = losses.collections
    low, high = band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()
    assert low == pytest.approx(min(report.curve.low))
    assert high == pytest.approx(max(report.curve.high))
    assert smooth.zorder > band.zorder > lines(losses, "sweep 1")[0].zorder


def test_the_suggestion_is_a_line_within_its_interval_and_the_good_rates(make):
    figure = plot.draw(make())
    losses = axes_of(figure, "losses")
    (line,) = (line for line in losses.lines if line.get_gid() == "suggestion")
    assert line.get_xdata() == [0.0032, 0.0032]
    spans = {p.get_gid(): (p.get_x(), p.get_x() + p.get_width()) for p in losses.patches}
    left, right = losses.get_xlim()
    # rates that train almost as well as the best reach half a window beyond the interval
    wider = 10 ** fitted().window
    low, high = 0.0018 / wider, 0.0056 * wider
    assert spans["too low"] == pytest.approx((left, low))
    assert spans["good"] == pytest.approx((low, high))
    assert spans["too high"] == pytest.approx((high, right))
    ribbon = axes_of(figure, "regions")
    (bar,) = (line for line in ribbon.lines if line.get_gid() == "interval")
    place = np.log10(np.array([0.0018, 0.0056]) / left) / np.log10(right / left)
    assert bar.get_xdata() == pytest.approx(place)


def test_ticks_are_decades_spelled_like_the_rate(make):
    figure = plot.draw(make())
    figure.draw_without_rendering()
    losses = axes_of(figure, "losses")
    shown = [t.get_text() for t in losses.get_xticklabels()]
    assert {"1e-7", "1e-6", "1e-5", "0.0001", "0.001", "0.01", "0.1", "1"} <= set(shown)
    assert len(losses.xaxis.get_minorticklocs()) == 0


def test_a_linear_sweep_has_a_linear_axis(make):
    sweep = records.Sweep(0, (0.1, 0.2, 0.3, 0.4), (2.0, 1.0, 0.5, 0.7), (), "completed")
    losses = axes_of(plot.draw(make(sweeps=[sweep], curve=None)), "losses")
    assert losses.get_xscale() == "linear"
    assert losses.get_xlabel() == "learning rate (linear scale)"


def test_a_probe_is_named_on_the_axis(make):
    losses = axes_of(plot.draw(make(config={"find": {"loss": "probe"}})), "losses")
    assert losses.get_ylabel() == "validation loss (probe), before the update"


def test_without_a_suggestion_there_are_no_regions_and_the_title_says_why(odd_named):
    figure = plot.draw(odd_named("no suggestion, with a curve"))
    assert header(figure)[:2] == [
        "No trustworthy suggestion",
        "the loss never fell below where it began",
    ]
    assert [axes.get_label() for axes in figure.axes] == ["losses", "guideline"]
    assert not axes_of(figure, "losses").patches


def test_an_interrupted_run_says_so(odd_named):
    figure = plot.draw(odd_named("interrupted"))
    assert header(figure)[0] == "Learning rate 0.0032: confident (interrupted)"
    assert header(figure)[2] == "interrupted by SIGINT in sweep 2 of 3"


def test_a_diverged_tail_does_not_squash_the_descent(odd_named):
    for name, scale, offset in (("usual", 1, 0), ("plus 1000", 1, 1000), ("huge", 1e30, 0)):
        bottom, top = axes_of(plot.draw(odd_named(name)), "losses").get_ylim()
        assert 0.4 < 1.9 * scale / (top - bottom) < 0.9, name  # the descent, over the axis
        assert bottom < 0.4 * scale + offset < 2.3 * scale + offset < top


def test_nan_is_marked_at_the_edge(odd_named):
    losses = axes_of(plot.draw(odd_named("nan in the end")), "losses")
    (mark,) = lines(losses, plot.BEYOND)
    assert mark.get_xdata() == pytest.approx([odd_named("nan in the end").sweeps[0].lr[-1]])


def test_skipped_steps_are_marked_apart(odd_named):
    report = odd_named("skipped steps")
    losses = axes_of(plot.draw(report), "losses")
    (mark,) = lines(losses, plot.SKIPPED)
    assert mark.get_xdata() == pytest.approx([report.sweeps[0].lr[i] for i in (0, 1, 2, 3, 70)])


def test_many_sweeps_share_one_entry_of_the_legend(odd_named):
    assert legend(plot.draw(odd_named("eight repeats")))[:2] == ["8 sweeps", plot.SMOOTH]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("beyond the guideline", "← usual guideline: 0.0001 to 0.01"),
        ("below the guideline", "usual guideline: 0.0001 to 0.01 →"),
    ],
)
def test_a_guideline_off_the_axis_is_pointed_at(odd_named, name, text):
    assert texts(axes_of(plot.draw(odd_named(name)), "guideline")) == [text]


def test_text_of_the_user_is_no_markup(odd_named):
    shown = header(plot.draw(odd_named("odd text")))
    assert "see [red]notes[/red] \\[x] $y^2$ :smile: 100%" in shown
    assert shown[-1].startswith("[bold]my_package.$x_1$:??ResNetResNet")


def test_the_flag_of_the_rate_stands_clear_of_a_long_header(odd_named):
    report = odd_named("left edge").model_copy(update={"reason": "why " * 60})
    figure = plot.draw(report)
    assert len(header(figure)) == 5
    assert overlapping(figure) == []


def test_odd_reports_draw_without_overlaps_inside_the_figure(odd):
    figure = plot.draw(odd)
    assert len(boxes(figure)) > 5
    assert overlapping(figure) == []


def test_the_files(make, tmp_path):
    png, svg = plot.save(make(), tmp_path)
    assert imread(png).shape[:2] == (1024, 1440)  # 9 × 6.4 inches at 160 dpi
    written = "".join(ET.parse(svg).getroot().itertext())  # noqa: S314  (our own file)
    assert "Learning rate 0.0032: confident" in written
    assert "usual guideline: 0.0001 to 0.01" in written


def test_trials_are_marked_at_the_foot_of_the_ribbon(make, trials):
    figure = plot.draw(make(trials=trials()))
    ribbon, losses = axes_of(figure, "regions"), axes_of(figure, "losses")
    marks = [line for line in ribbon.lines if line.get_gid() == "trial"]
    to_data = losses.transData.inverted()
    places = [
        to_data.transform(ribbon.transData.transform((mark.get_xdata()[0], 0)))[0] for mark in marks
    ]
    assert places == pytest.approx([0.0016, 0.0064])
    assert "trials of 90 steps" in legend(figure)


@pytest.mark.parametrize("name", ["usual", "an interrupted trial", "no trial yet"])
def test_trials_that_decided_nothing_are_not_marked(odd_named, name):
    figure = plot.draw(odd_named(name))
    assert not [line for line in axes_of(figure, "regions").lines if line.get_gid() == "trial"]
    assert not [text for text in legend(figure) if "trials" in text]
