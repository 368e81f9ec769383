"""A configuration with a user's module beside it, opened as a command does."""

import itertools
import sys

import pytest

from lrtool.experiment.experiment import open_experiment
from lrtool.experiment.reading import read_config

NUMBERS = itertools.count()
HEAD = """import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
"""


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Return an experiment; `mine:` in the configuration is the module."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def opened(source, configuration, *sets):
        name = f"fallback_{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(HEAD + source)
        path = tmp_path / "c.yaml"
        path.write_text(configuration.replace("mine:", f"{name}:"))
        return open_experiment(*read_config(path, sets))

    yield opened
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
