"""A small training in an empty directory, without the command line around it."""

import sys
from pathlib import Path

import pytest
from small import CONFIG, NET

from lrtool.experiment.experiment import open_experiment
from lrtool.experiment.reading import read_config
from lrtool.report.records import LearningRate
from lrtool.training import session
from lrtool.training.resume import find_checkpoint


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Begin the training of `small.py`, or go on with it; `--set` changes it, `net` its module."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "net", raising=False)

    def begin(*sets, net=NET, rate=0.01, resume=False):
        Path("net.py").write_text(net)
        Path("a.yaml").write_text(CONFIG)
        Path("run").mkdir(exist_ok=True)
        task = open_experiment(*read_config(Path("a.yaml"), sets))
        checkpoint = find_checkpoint(Path("run")) if resume else None
        given = LearningRate(value=rate, origin="flag", run=None)
        return session.begin(task, given, Path("run"), checkpoint)

    yield begin
    sys.modules.pop("net", None)
