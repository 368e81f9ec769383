"""The page of a run: written with it, written anew by `lrtool report`, opened in a browser."""

import io
import json
import re
import shutil
import stat

import pytest
from filelock import FileLock

from lrtool.cli import pages
from lrtool.report import marker, run_directory
from lrtool.show.page import page

CONFIG = """
data: {source: iris, batch_size: 30}
model: {name: linear}
find: {steps: 30}
train: {epochs: 2}
runtime: {device: cpu}
"""


pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tmp_path_factory.mktemp("made") / "run"


@pytest.fixture
def run(here, write, tmp_path, made):
    """A run of a find, in `run`; the others are copies of the first."""
    write("iris.yaml", CONFIG)
    if made.exists():
        shutil.copytree(made, tmp_path / "run")
    else:
        done = here("find", "iris.yaml", "--quiet", "--output", "run")
        assert (done.returncode, done.stderr) == (0, "")
        shutil.copytree(tmp_path / "run", made)
    return tmp_path / "run"


@pytest.fixture
def browser(write, monkeypatch, tmp_path):
    """A browser that notes what it was asked to open."""
    script = write("browser", f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(pages.webbrowser, "_tryorder", None)
    monkeypatch.setattr(pages.webbrowser, "_browsers", {})
    monkeypatch.setenv("BROWSER", str(script))
    return tmp_path / "opened"


@pytest.fixture
def no_browser(monkeypatch):
    monkeypatch.setattr(pages.sys, "platform", "linux")
    monkeypatch.setattr(pages.sys, "stdin", io.StringIO())
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


def test_the_page_that_report_writes_is_that_of_the_run(run, here):
    before = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    done = here("report", "run")
    assert (done.returncode, done.stdout, done.stderr) == (0, "run/report.html\n", "")
    assert (run / "report.html").read_bytes() == before
    assert "lrtool train run/config.yaml --lr-from run" in before.decode()


def test_a_run_without_a_page_gets_one_that_is_its_own(run, here):
    known = json.loads((run / ".lrtool").read_text())
    del known["files"]["report.html"]
    (run / ".lrtool").write_text(json.dumps(known))
    (run / "report.html").unlink()
    assert here("report", run / "report.json").returncode == 0
    assert "report.html" in marker.own_files(run)
    done = here("find", "iris.yaml", "--quiet", "--output", "run", "--overwrite")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_page_that_someone_changed_stays(run, here, tmp_path):
    (run / "report.html").write_text("mine")
    done = here("report", "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert "run/report.html: is not as lrtool wrote it" in done.stderr
    assert (run / "report.html").read_text() == "mine"
    done = here("report", "run", "--output", "other.html")
    assert (done.returncode, done.stdout) == (0, "other.html\n")
    assert "<h1" in (tmp_path / "other.html").read_text()
    assert here("report", "run", "--output", "other.html").returncode == 0  # its own, once more


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("iris.yaml", "--output iris.yaml: is there, and no page of lrtool's; choose another file"),
        ("run", "--output run: is a directory; give a file, such as run/report.html"),
        ("no/page.html", "--output no/page.html: there is no directory no"),
        ("run/report.json", "--output run/report.json: is there, and no page of lrtool's"),
    ],
)
def test_no_other_file_is_replaced(run, here, output, message):
    before = (run / "report.json").read_bytes()
    done = here("report", "run", "--output", output)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: {message}" in done.stderr
    assert (run / "report.json").read_bytes() == before


def test_a_link_in_the_place_of_the_page_is_not_followed(run, here, tmp_path):
    (run / "report.html").unlink()
    (run / "report.html").symlink_to(tmp_path / "elsewhere.html")
    done = here("report", "run")
    assert done.returncode == 2
    assert "report.html: is a link" in done.stderr
    assert not (tmp_path / "elsewhere.html").exists()


def test_what_is_no_run_and_what_has_not_ended_are_said(run, here, tmp_path):
    (tmp_path / "empty").mkdir()
    done = here("report", "empty")
    assert done.returncode == 2
    assert "empty: holds no run; there is no report.json in it" in done.stderr
    (run / "report.json").unlink()
    done = here("report", "run")
    assert done.returncode == 2
    assert "it is under way, or was killed" in done.stderr
    done = here("report", "rum")
    assert done.returncode == 2
    assert "rum: there is no such run" in done.stderr


def test_a_run_that_is_in_use_is_left_alone(run, here):
    with FileLock(run / ".lock"):
        done = here("report", "run")
    assert done.returncode == 2
    assert "run: another process is using it" in done.stderr


def test_a_page_that_cannot_be_written_does_not_cost_the_run(here, write, tmp_path, monkeypatch):
    write("iris.yaml", CONFIG)

    def full(*_):
        raise OSError(28, "No space left on device", "run/report.html")

    monkeypatch.setattr(page, "save", full)
    done = here("find", "iris.yaml", "--output", "run", "--open")
    assert done.returncode == 0
    assert "warning: no page was written: run/report.html: No space left on device" in done.stderr
    assert "warning: --open: there is no run/report.html" in done.stderr
    assert re.search("Learning rate  ", done.stdout)
    assert json.loads((tmp_path / "run/.lrtool").read_text())["files"]["report.json"]


def test_open_shows_the_page_after_a_find_and_after_a_report(run, here, browser):
    shutil.rmtree(run)
    done = here("find", "iris.yaml", "--quiet", "--output", "run", "--open")
    assert (done.returncode, done.stderr) == (0, "")
    assert browser.read_text() == (run / "report.html").as_uri() + "\n"
    browser.unlink()
    assert here("report", "run", "--open").returncode == 0
    assert browser.read_text() == (run / "report.html").as_uri() + "\n"


@pytest.mark.usefixtures("run", "no_browser")
def test_without_a_browser_open_warns_and_nothing_else_happens(here):
    done = here("report", "run", "--open")
    assert (done.returncode, done.stdout) == (0, "run/report.html\n")
    assert "warning: --open: no browser could be opened; the page is run/report.html" in done.stderr


@pytest.mark.usefixtures("run")
def test_a_browser_that_cannot_start_is_a_warning(here, browser, monkeypatch):
    monkeypatch.setenv("BROWSER", "/nowhere/to/be/found")
    monkeypatch.setattr(pages.webbrowser, "open", lambda _: False)
    done = here("report", "run", "--open")
    assert done.returncode == 0
    assert "no browser could be opened" in done.stderr
    assert not browser.exists()


def test_a_run_that_replaces_another_one_names_its_place_in_its_page(run, here):
    done = here("find", "iris.yaml", "--quiet", "--output", "run", "--overwrite")
    assert (done.returncode, done.stderr) == (0, "")
    html = (run / "report.html").read_text()
    assert "lrtool train run/config.yaml --lr-from run" in html
    assert ".new" not in html


def test_a_search_inside_a_run_that_replaces_another_one_has_its_place_too(tmp_path):
    assert run_directory.place(tmp_path / "run/.new/find") == tmp_path / "run/find"
    assert run_directory.place(tmp_path / "run/.new") == tmp_path / "run"
    assert run_directory.place(tmp_path / "run/find") == tmp_path / "run/find"


def test_the_page_of_a_comparison_is_written_anew_from_its_runs(run, here, tmp_path):
    assert here("find", "iris.yaml", "--quiet", "--output", "other", "--seed", 1).returncode == 0
    assert here("compare", "run", "other", "--output", "both").returncode == 0
    before = (tmp_path / "both/report.html").read_bytes()
    (tmp_path / "both/report.html").unlink()
    done = here("report", "both")
    assert (done.returncode, done.stdout, done.stderr) == (0, "both/report.html\n", "")
    assert (tmp_path / "both/report.html").read_bytes() == before
    shutil.rmtree(run)
    done = here("report", "both")
    assert done.returncode == 2
    assert "run/report.json: cannot be read: No such file or directory" in done.stderr
    (tmp_path / "both/comparison.json").write_text("{}")
    done = here("report", "both")
    assert done.returncode == 2
    assert "both/comparison.json: damaged, or not a list of compared runs" in done.stderr
    (tmp_path / "both/comparison.json").unlink()
    done = here("report", "both")
    assert done.returncode == 2
    assert "both: a comparison of an older lrtool, which has no comparison.json" in done.stderr


def test_open_shows_a_training_and_a_comparison_too(run, here, browser, tmp_path):
    done = here("train", "iris.yaml", "-q", "--lr", 0.01, "--output", "trained", "--open")
    assert (done.returncode, done.stderr) == (0, "")
    assert browser.read_text() == (tmp_path / "trained/report.html").as_uri() + "\n"
    done = here("compare", run, "trained", "--output", "both", "--json", "--open")
    assert (done.returncode, done.stderr) == (0, "")
    assert browser.read_text() == (tmp_path / "both/report.html").as_uri() + "\n"


FAILING = """
from torch import nn

class Net(nn.Module):
    calls = 0

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        Net.calls += 1
        if Net.calls > 40:
            raise RuntimeError("the <b>cable</b> is out")
        return self.layer(x)
"""


def test_a_search_that_failed_has_a_page_that_says_why_and_what_to_do(here, write, tmp_path):
    write("iris.yaml", CONFIG.replace("{name: linear}", "{name: 'failing:Net'}"))
    write("failing.py", FAILING)
    done = here("find", "iris.yaml", "--quiet", "--output", "run")
    assert done.returncode == 2, done.stderr
    html = (tmp_path / "run/report.html").read_text()
    assert '<h1 class="failed">The search failed</h1>' in html
    assert "RuntimeError: the &lt;b&gt;cable&lt;/b&gt; is out" in html
    assert "lrtool check run/config.yaml" in html
    assert here("report", "run").returncode == 0
    assert (tmp_path / "run/report.html").read_text() == html
