"""A report that was read shows the same as before it was written, NaN and infinity in it or not."""

import math
from dataclasses import replace

import pytest
from finds import ODD, ODD_RACES, make_candidate, make_race, make_report
from trainings import ODD_TRAININGS, epoch_rows, make_training, step_rows

from lrtool.report import report as reports
from lrtool.show.plots import find as find_plot
from lrtool.show.plots import train as training_plot
from lrtool.show.plots.compare import save_comparison
from lrtool.show.terminal.compare import comparison
from lrtool.show.terminal.find import print_summary
from lrtool.show.terminal.train import print_training

infinite = make_race(
    (
        replace(make_candidate(0.001, "lower", 0.9, None, "diverged"), final_loss=math.inf),
        replace(make_candidate(0.0032, "suggestion", None, None), half_loss=-math.inf),
        make_candidate(0.01, "higher", 0.7, 0.5, "won"),
    ),
    untrained_loss=math.inf,
)
steps = step_rows(2, 3, last=-math.inf)
FINDS = {
    **{name: ODD[name] for name in ("nan in the end", "inf in the end", "a trial that diverged")},
    "race": ODD_RACES["all diverged"],
    "infinite": make_report(race=infinite, trials=infinite),
}
TRAININGS = {
    **{name: ODD_TRAININGS[name] for name in ("diverged at once", "validation always NaN")},
    "infinite": make_training(
        steps=steps,
        epochs=epoch_rows(steps, metrics={"f1": lambda _: math.inf, "r2": lambda _: -math.inf}),
        best=None,
    ),
}


def read_back(report, directory):
    return reports.read(reports.write(report, directory))


def drawn(plot, report, directory):
    plot.save(report, directory)
    return [(directory / name).read_bytes() for name in ("plot.png", "plot.svg")]


@pytest.mark.parametrize("name", FINDS)
def test_a_find(name, tmp_path, capsys):
    before, after = FINDS[name], read_back(FINDS[name], tmp_path)
    said = []
    for report in (before, after):
        print_summary(report, directory=tmp_path, config=tmp_path / "a.yaml")
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert drawn(find_plot, before, tmp_path) == drawn(find_plot, after, tmp_path)


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training(name, tmp_path, capsys):
    before, after = TRAININGS[name], read_back(TRAININGS[name], tmp_path)
    said = []
    for report in (before, after):
        print_training(report, directory=tmp_path, config=tmp_path / "a.yaml")
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert drawn(training_plot, before, tmp_path) == drawn(training_plot, after, tmp_path)


def test_a_comparison(tmp_path):
    before = {**FINDS, **TRAININGS}
    after = {name: read_back(report, tmp_path) for name, report in before.items()}
    assert comparison(before) == comparison(after)
    values = [value for row in comparison(before) for value in row.values()]
    assert all(math.isfinite(value) for value in values if isinstance(value, float))
    files = [
        [path.read_bytes() for path in save_comparison(each, tmp_path)] for each in (before, after)
    ]
    assert files[0] == files[1]
