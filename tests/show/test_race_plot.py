import numpy as np
import pytest
from figures import axes_of, boxes, legend, overlapping, texts
from matplotlib.colors import to_hex

from lrtool.curve.constants import fitted
from lrtool.show.plots import find as plot


def by_gid(axes, gid):
    return [line for line in axes.lines if line.get_gid() == gid]


def test_without_a_race_there_is_no_panel(make):
    figure = plot.draw(make())
    assert figure.get_figheight() == 6.4
    assert not any(axes.get_label().startswith("race") for axes in figure.axes)


def test_a_race_has_two_panels_below_and_its_own_legend(make, race):
    figure = plot.draw(make(race=race()))
    assert figure.get_figheight() == pytest.approx(9.4)
    steps, rates = axes_of(figure, "race steps"), axes_of(figure, "race rates")
    top = axes_of(figure, "losses").get_position().y0
    assert max(steps.get_position().y1, rates.get_position().y1) < top
    assert texts(steps)[0] == "race: training loss"
    assert texts(rates)[0] == "race: validation loss"
    assert legend(figure)[-3:] == ["0.001 lost", "0.0032 won", "0.01 lost"]


def test_the_sweeps_part_is_drawn_as_without_a_race(make, race):
    """The same boxes, in inches from the upper edge."""
    without, having = plot.draw(make()), plot.draw(make(race=race()))
    for name in ("losses", "regions", "guideline"):
        one, two = (axes_of(figure, name).get_position() for figure in (without, having))
        assert two.height * 9.4 == pytest.approx(one.height * 6.4)
        assert (1 - two.y0) * 9.4 == pytest.approx((1 - one.y0) * 6.4)
        assert (two.x0, two.width) == pytest.approx((one.x0, one.width))


def test_what_was_measured_stands_at_its_rate(make, race):
    report = make(race=race())
    rates = axes_of(plot.draw(report), "race rates")
    for candidate in report.race.candidates:
        [half], [final] = (by_gid(rates, f"{which} {candidate.lr}") for which in ("half", "final"))
        assert (half.get_xdata(), half.get_ydata()) == ([candidate.lr], [candidate.half_loss])
        assert (final.get_xdata(), final.get_ydata()) == ([candidate.lr], [candidate.final_loss])
        assert to_hex(half.get_markerfacecolor()) == "#ffffff"
    bars = [
        c
        for c in rates.collections
        if len(c.get_paths()) == 1 and c.get_paths()[0].vertices.shape == (2, 2)
    ]
    ends = sorted(tuple(bar.get_paths()[0].vertices[:, 1].round(3)) for bar in bars)
    assert ends == [(0.42, 0.42), (0.48, 0.52), (0.59, 0.63)]
    [line] = by_gid(rates, "suggestion")
    assert line.get_xdata() == [0.0032, 0.0032]
    [good] = [patch for patch in rates.patches if patch.get_gid() == "good"]
    wider = 10 ** fitted().window
    low, high = 0.0018 / wider, 0.0056 * wider
    assert (good.get_x(), good.get_x() + good.get_width()) == pytest.approx((low, high))


def test_the_winner_alone_is_ringed(make, race):
    rates = axes_of(plot.draw(make(race=race())), "race rates")
    ringed = [line.get_gid() for line in rates.lines if line.get_markeredgewidth() == 1.4]
    assert ringed == ["final 0.0032"]


def test_raw_losses_lie_beneath_their_mean(make, race):
    report = make(race=race())
    steps = axes_of(plot.draw(report), "race steps")
    for candidate in report.race.candidates:
        [mean] = by_gid(steps, f"race {candidate.lr}")
        raw = [line for line in steps.lines if tuple(line.get_ydata()) == candidate.loss]
        assert len(raw) == 1
        assert raw[0].get_color() == mean.get_color()
        assert mean.get_ydata()[50] == pytest.approx(np.mean(candidate.loss[47:54]))
        assert mean.get_ydata()[0] == candidate.loss[0]
    [half] = by_gid(steps, "half-way")
    assert half.get_xdata() == [50, 50]


def test_colours_go_from_low_to_high_rates(odd_race_named):
    figure = plot.draw(odd_race_named("five"))
    assert legend(figure)[-5:] == [
        "0.001 dropped",
        "0.0032 lost",
        "0.0056 lost",
        "0.01 won",
        "0.032 diverged",
    ]
    handles = figure.legends[-1].legend_handles
    assert [to_hex(handle.get_color()) for handle in handles] == [
        *("#440154", "#3b528b", "#21918c", "#5ec962", "#d4b514")
    ]


def test_what_diverged_is_marked_at_the_edge(odd_race_named):
    rates = axes_of(plot.draw(odd_race_named("five")), "race rates")
    [mark] = [line for line in rates.lines if line.get_label() == plot.BEYOND]
    assert (mark.get_xdata(), mark.get_ydata()) == ([0.032], [0.985])
    bottom, top = rates.get_ylim()
    assert bottom < 0.31  # all that was measured of the others is there
    assert top > 0.9


@pytest.mark.parametrize("name", ["all diverged", "just begun"])
def test_a_race_without_a_finite_loss_says_so(odd_race_named, name):
    assert "nothing to compare" in texts(axes_of(plot.draw(odd_race_named(name)), "race rates"))


def test_rates_too_near_each_other_are_not_both_spelled(odd_race_named):
    figure = plot.draw(odd_race_named("five"))
    figure.draw_without_rendering()
    shown = [tick.get_text() for tick in axes_of(figure, "race rates").get_xticklabels()]
    assert shown == ["0.01", "0.001", "0.0032", "0.032"]


def test_a_diverged_candidate_squashes_nothing(odd_race_named):
    steps = axes_of(plot.draw(odd_race_named("five")), "race steps")
    bottom, top = steps.get_ylim()
    assert 0 < bottom < 0.5
    assert top < 5


def test_odd_races_draw_without_overlaps_inside_the_figure(odd_race):
    figure = plot.draw(odd_race)
    assert len(boxes(figure)) > 5
    assert overlapping(figure) == []


def test_equal_reports_give_equal_bytes(make, race, tmp_path):
    one, two = (plot.save(make(race=race()), folder) for folder in _two(tmp_path))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def _two(folder):
    for name in ("one", "two"):
        (folder / name).mkdir()
        yield folder / name
