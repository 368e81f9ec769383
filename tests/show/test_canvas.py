"""What holds for every plot."""

import os
import subprocess
import sys

import matplotlib as mpl
import pytest
from matplotlib.image import imread

from lrtool.show.plots import compare as comparison_plot
from lrtool.show.plots import find as plot
from lrtool.show.plots import train as training_plot


@pytest.fixture(params=["find", "train", "compare"])
def save(request, make, train):
    """Return a function that draws into a directory."""
    match request.param:
        case "find":
            return lambda directory: plot.save(make(), directory)
        case "train":
            return lambda directory: training_plot.save(train(), directory)
    runs = {"f": make(), "t": train()}
    return lambda directory: comparison_plot.save_comparison(runs, directory)


def test_equal_reports_give_equal_files_nine_inches_wide(save, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
        png, svg = save(directory)
        assert sorted(directory.iterdir()) == [png, svg]
        assert imread(png).shape[1] == 1440  # at 160 dpi
    assert png.read_bytes() == (first / png.name).read_bytes()
    assert svg.read_bytes() == (first / svg.name).read_bytes()


def test_a_readers_own_style_changes_nothing(save, tmp_path):
    png, _ = save(tmp_path)
    plain, before = png.read_bytes(), dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "black", "font.family": "serif"}):
        save(tmp_path)
    assert png.read_bytes() == plain
    assert dict(mpl.rcParams) == before


def test_pyplot_and_a_display_are_not_needed():
    code = (
        "import sys, lrtool.show.plots.find, lrtool.show.plots.train, lrtool.show.plots.compare;"
        "print([m for m in ('matplotlib.pyplot', 'torch', 'scipy') if m in sys.modules])"
    )
    environment = {k: v for k, v in os.environ.items() if k not in {"DISPLAY", "MPLBACKEND"}}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "[]"
