"""What all sources have in common, and those of scikit-learn."""

import subprocess
import sys
import typing

import numpy as np
import pytest
import sklearn.datasets
from sklearn.model_selection import train_test_split

from lrtool.data.encoding import TableInputs, learn_numbers
from lrtool.data.samples import check_finite
from lrtool.data.sources import SOURCES
from lrtool.errors import ConfigError, DataError

NAMES = [
    *("digits", "wine", "breast_cancer", "iris", "diabetes", "csv", "parquet", "npz", "idx", "text")
]


def test_the_registry_imports_no_heavy_library():
    code = "import sys, lrtool.data.sources; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert not {"torch", "sklearn", "pandas", "scipy"} & set(modules.decode().split())


def test_each_source_tells_what_it_is_and_takes():
    assert list(SOURCES) == [*NAMES, "synthetic"]
    for source in SOURCES.values():
        assert source.__doc__.splitlines()[0].endswith(".")
        assert typing.get_type_hints(source)["return"].__name__ == "Parts"


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("digits", (1, 8, 8), 10),
        ("wine", (13,), 3),
        ("breast_cancer", (30,), 2),
        ("iris", (4,), 3),
    ],
)
def test_classification_sets(name, shape, classes, split):
    parts = SOURCES[name](split(0.2))
    bunch = getattr(sklearn.datasets, f"load_{name}")()
    count = len(bunch.target)
    assert parts.num_outputs == classes
    assert parts.vocabulary is None
    assert len(parts.validation.targets) == round(count * 0.2)
    assert len(parts.train.targets) == count - round(count * 0.2)
    for part in (parts.train, parts.validation):
        assert part.inputs.shape == (len(part.targets), *shape)
        assert (part.inputs.dtype, part.targets.dtype) == (np.float32, np.int64)
        shares = np.bincount(part.targets) / len(part.targets)
        np.testing.assert_allclose(shares, np.bincount(bunch.target) / count, atol=0.02)


def test_digits_are_scaled_to_1(split):
    parts = SOURCES["digits"](split())
    bunch = sklearn.datasets.load_digits()
    np.testing.assert_array_equal(parts.train.inputs[:, 0] * 16, bunch.images)
    np.testing.assert_array_equal(parts.train.targets, bunch.target)
    assert parts.train.inputs.flags.c_contiguous
    assert parts.validation is None


def test_measurements_are_standardised_by_the_training_part_alone(split):
    parts = SOURCES["wine"](split(0.25, seed=3))
    bunch = sklearn.datasets.load_wine()
    rows, held_out = train_test_split(
        np.arange(178), test_size=44, stratify=bunch.target, random_state=3
    )
    train = bunch.data[np.sort(rows)]
    for part, chosen in ((parts.train, rows), (parts.validation, held_out)):
        expected = (bunch.data[np.sort(chosen)] - train.mean(axis=0)) / train.std(axis=0)
        np.testing.assert_allclose(part.inputs, expected, rtol=1e-5, atol=1e-6)
    assert abs(parts.validation.inputs.mean()) > 1e-3


def test_diabetes_has_standardised_targets_too(split):
    parts = SOURCES["diabetes"](split(0.2))
    targets = sklearn.datasets.load_diabetes().target
    assert parts.train.targets.shape == (354, 1)
    assert parts.train.targets.dtype == np.float32
    assert parts.num_outputs == 1
    np.testing.assert_allclose(parts.train.targets.mean(), 0, atol=1e-6)
    np.testing.assert_allclose(parts.train.targets.std(), 1, rtol=1e-6)
    both = np.concatenate([parts.train.targets, parts.validation.targets])
    scaled = (np.sort(targets) - targets.mean()) / targets.std()
    assert not np.allclose(np.sort(both[:, 0]), scaled, atol=1e-4)  # not the whole set's scale
    assert np.corrcoef(np.sort(both[:, 0]), scaled)[0, 1] > 0.999999


def test_the_seed_decides_the_split(split):
    first, again, other = (SOURCES["iris"](split(0.2, seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.validation.inputs, again.validation.inputs)
    assert not np.array_equal(first.validation.inputs, other.validation.inputs)


def test_a_set_without_files_takes_no_path(split):
    with pytest.raises(ConfigError, match="iris cannot read a validation set from a path"):
        SOURCES["iris"](split("other"))


def test_standardise_by_hand():
    values = np.array([[0.0, 5.0], [2.0, 5.0], [100.0, 7.0]])
    inputs = TableInputs(learn_numbers(["a", "b"], values[:2]))
    scaled = inputs.encode({"a": values[:, 0], "b": values[:, 1]})
    assert scaled.tolist() == [[-1, 0], [1, 0], [99, 2]]  # the constant column keeps its deviation


def test_not_finite_names_the_row():
    values = np.zeros((5, 2, 2))
    values[3, 1, 0] = -np.inf
    values[4, 0, 0] = np.nan
    with pytest.raises(
        DataError,
        match=r"^x: row 3 \(counted from 0\) holds -inf; 2 of 5 rows have a value that is not",
    ):
        check_finite(values, "x")


def test_synthetic_classes(split):
    parts = SOURCES["synthetic"](split(0.1), samples=500, features=6, classes=4, noise=0)
    assert parts.train.inputs.shape == (450, 6)
    assert parts.num_outputs == 4
    assert set(np.bincount(parts.train.targets)) <= {112, 113}
    assert set(np.bincount(parts.validation.targets)) <= {12, 13}
    np.testing.assert_allclose(parts.train.inputs.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(parts.train.inputs.std(axis=0), 1, rtol=1e-5)


@pytest.mark.parametrize("noise", [0.0, 0.5, 2.0])
def test_synthetic_regression_has_the_noise_it_says(noise, split):
    parts = SOURCES["synthetic"](
        split(), task="regression", samples=20_000, features=4, informative=2, noise=noise
    )
    x, y = parts.train.inputs.astype(float), parts.train.targets.astype(float)
    weights = np.linalg.lstsq(x, y, rcond=None)[0]
    residual = np.square(y - x @ weights).mean()
    np.testing.assert_allclose(residual, noise**2 / (1 + noise**2), rtol=0.05, atol=1e-9)
    assert (np.abs(weights) > 0.05).sum() == 2


def test_synthetic_follows_the_seed(split):
    first, again, other = (SOURCES["synthetic"](split(0, seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.train.inputs, again.train.inputs)
    assert not np.array_equal(first.train.inputs, other.train.inputs)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"samples": 0}, r"^data\.args\.samples: must be from 1 to 1,000,000,000, not 0$"),
        (
            {"features": 3, "informative": 4},
            r"^data\.args\.informative: 4 of 3 features cannot be informative$",
        ),
        ({"classes": 1}, r"^data\.args\.classes: must be at least 2, not 1$"),
        (
            {"features": 2, "classes": 3},
            r"^data\.args\.informative: 2 informative features have room for 2 classes, not 3;",
        ),
        (
            {"features": 10**9, "classes": 2**62 + 1},
            (
                r"^data\.args\.informative: 1000000000 informative features have room for "
                r"4611686018427387904 classes, not 4611686018427387905;"
            ),
        ),
        ({"samples": 10**30}, r"^data\.args\.samples: must be from 1 to 1,000,000,000, not 1000"),
        ({"noise": -1.0}, r"^data\.args\.noise: must be at least 0, not -1$"),
        ({"noise": 1.5}, r"^data\.args\.noise: is a share of the targets: at most 1, not 1\.5$"),
        (
            {"task": "regression", "classes": 3},
            r"^data\.args\.classes: has no meaning for task: regression; remove it$",
        ),
    ],
)
def test_synthetic_refuses(args, message, split):
    with pytest.raises(ConfigError, match=message):
        SOURCES["synthetic"](split(), **args)
