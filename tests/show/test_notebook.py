"""What a notebook shows of a report, and of a search under way."""

import base64
import sys
from html.parser import HTMLParser
from types import ModuleType, SimpleNamespace

import pytest

from lrtool.report.records import SweepRow, TrialRow
from lrtool.show import notebook
from lrtool.show.terminal.find import Progress

EVIL = "<script>alert('x')</script> & \"quotes\""


class Page(HTMLParser):
    """The tags of a piece of HTML with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def shown(report):
    page = Page(notebook.html(report))
    assert {tag for tag, _ in page.tags} <= {"div", "p", "strong", "ul", "li", "img"}
    return page


def picture(page):
    [image] = [facts for tag, facts in page.tags if tag == "img"]
    assert image["alt"].startswith("Plot of the ")
    kind, _, data = image["src"].partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data).startswith(b"\x89PNG")
    return image


def test_a_find_shows_rate_purpose_reason_advice_and_its_plot(make):
    report = make(reason="three sweeps agree")
    page = shown(report)
    title = "Learning rate 0.0032 (0.0018 to 0.0056), confident"
    assert page.text[:3] == [title, "For a constant schedule over 230 steps.", report.reason]
    assert page.text[3:] == list(report.suggestion.advice)
    assert picture(page)["alt"] == f"Plot of the find. {title}"


def test_a_training_shows_its_best_epoch_rate_and_losses(train):
    report = train()
    text = shown(report).text
    assert text[0].startswith("Completed, accuracy 0.9847 in epoch 10")
    assert any(line.startswith("Learning rate 0.0032") for line in text)
    last = report.epochs[-1]
    assert f"training loss {last.train_loss:.4g}" in text[-1]
    assert f"validation loss {last.validation_loss:.4g}" in text[-1]
    picture(shown(report))


def test_a_search_without_a_rate_says_so_and_why(make):
    page = shown(make(suggestion=None, sweeps=(), curve=None, reason="it rained", status="failed"))
    assert page.text == ["No learning rate: it rained"]
    assert "img" not in {tag for tag, _ in page.tags}


def test_every_odd_report_can_be_shown(odd):
    assert shown(odd).text


def test_every_odd_training_can_be_shown(odd_training):
    assert shown(odd_training).text


def test_text_of_users_stays_text(make, train):
    page = shown(make(reason=EVIL, suggestion=None))
    assert page.text[0] == f"No learning rate: {EVIL}"
    assert picture(page)["alt"].endswith(EVIL)
    assert EVIL in shown(train(reason=EVIL)).text


def test_this_is_no_notebook():
    assert not notebook.is_notebook()


@pytest.fixture
def cell(monkeypatch):
    """Pretend that IPython's kernel runs this; return what is displayed, as it changes."""
    displayed = []
    handle = SimpleNamespace(update=lambda data, raw: raw and displayed.append(data))

    def display(data, *, raw, display_id):
        assert raw
        assert display_id
        displayed.append(data)
        return handle

    ipython, module = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=True)
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr("lrtool.show.terminal.find.REFRESH_S", -1.0)  # show each row
    return displayed


def bars(displayed):
    """Value and text of each bar."""
    found = []
    for data in displayed:
        page = Page(data["text/html"])
        [bar] = [facts for tag, facts in page.tags if tag == "progress"]
        assert bar["aria-label"]
        assert data["text/plain"] == "".join(page.text).strip()
        found.append((float(bar["value"]), data["text/plain"]))
    return found


def test_a_search_has_a_bar_in_a_notebook(cell, capsys):
    with Progress(repeats=2, steps=10, trial_steps=20) as progress:
        progress.update(SweepRow(1, 4, 0.1, 0.5, skipped=False))
        progress.update(TrialRow(0, 5, 0.01, 0.25))
    (start, _), (sweep, sweep_text), (trial, trial_text), (end, end_text) = bars(cell)
    assert (start, sweep, trial, end) == (0.0, 0.75, 0.25, 1.0)
    assert sweep_text.startswith("sweep 2/2, step 5/10, rate 0.1, loss 0.5")
    assert trial_text.startswith("trial: rate 0.01, step 5/20, loss 0.25")
    assert end_text.startswith("2 steps in ")
    assert capsys.readouterr() == ("", "")


def test_a_quiet_search_has_none(cell):
    with Progress(repeats=1, steps=10, quiet=True) as progress:
        progress.update(SweepRow(0, 4, 0.1, 0.5, skipped=False))
    assert cell == []
