"""Every module of benchmarks and research can be imported: a name that lrtool changed shows."""

import importlib
import pkgutil

import pytest

import benchmarks
import research

MODULES = [
    module.name
    for package in (benchmarks, research)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]


@pytest.mark.parametrize("name", MODULES)
def test_it_can_be_imported(name):
    assert importlib.import_module(name).__name__ == name


def test_all_of_them_are_tried():
    assert {"benchmarks.speed.sweep", "benchmarks.try_rate", "research.fit"} < set(MODULES)
