"""What outputs say, for each kind of loss."""

import math

import numpy as np
import pytest
import torch

from lrtool.config.schema import LossConfig
from lrtool.data.encoding import ArrayInputs, Classes, ClassIndices, Encoding, StoredSplit, Values
from lrtool.errors import LrtoolWarning
from lrtool.training.predictions import predictions_of


def encoding_of(targets, outputs):
    split = StoredSplit(0, 0, {"train": 5, "validation": 0}, None, None)
    return Encoding("npz", ArrayInputs("float32"), targets, (3,), outputs, None, split)


def predicted(loss, outputs, targets, **args):
    outputs = torch.as_tensor(outputs, dtype=torch.float32)
    encoding = encoding_of(targets, outputs.shape[1] if outputs.ndim > 1 else 1)
    return predictions_of(outputs, encoding, LossConfig(name=loss, args=args))


NAMES = Classes("kind", ("a", "b", "c"))
SCORES = [[0.0, math.log(2), math.log(5)], [3.0, 2.0, 1.0]]
FIRST = [1 / 8, 2 / 8, 5 / 8]


@pytest.mark.parametrize(
    ("loss", "outputs", "shares"),
    [
        ("cross_entropy", SCORES, FIRST),
        ("nll", [[math.log(share) for share in FIRST], [0.0, -9.0, -9.0]], FIRST),
        ("multi_margin_loss", SCORES, None),
        ("my.losses:own", SCORES, None),
    ],
)
def test_classes(loss, outputs, shares):
    found = predicted(loss, outputs, NAMES)
    assert found.classes.tolist() == ["c", "a"]
    assert found.names == ("a", "b", "c")
    if shares is None:
        assert found.probabilities is None
        assert found.to_csv() == "prediction\nc\na\n"
    else:
        np.testing.assert_allclose(found.probabilities[0], shares, rtol=1e-6)
        np.testing.assert_allclose(found.probabilities[1].sum(), 1, rtol=1e-3)


def test_a_loss_of_ones_own_may_move_the_classes_itself():
    outputs = np.zeros((2, 5, 3))  # (N, T, C), as the model returns them
    outputs[0, :, 2] = outputs[1, :, 1] = 1
    found = predicted("my.losses:own", outputs, NAMES)
    assert found.classes.tolist() == [["c"] * 5, ["b"] * 5]
    embedding = predicted("my.losses:own", np.ones((2, 8)), NAMES)  # of no class
    assert embedding.classes is None
    assert embedding.values.shape == (2, 8)


def test_classes_without_names_are_numbers_and_tokens_have_one_each():
    outputs = np.zeros((2, 4, 3))
    outputs[0, 1, :] = outputs[1, :, 0] = 1
    outputs[1, 3] = 2
    found = predicted("cross_entropy", outputs, ClassIndices(4))
    assert found.classes.tolist() == [[1, 1, 1], [3, 3, 3]]
    assert found.probabilities.shape == (2, 3, 4)
    np.testing.assert_allclose(found.probabilities.sum(-1), 1)
    assert found.to_csv() == "prediction_0,prediction_1,prediction_2\n1,1,1\n3,3,3\n"


@pytest.mark.parametrize(
    ("loss", "outputs"),
    [("bce_with_logits", [math.log(3), -math.log(3)]), ("bce", [0.75, 0.25])],
)
@pytest.mark.parametrize(
    ("targets", "names"),
    [
        (Classes("kind", ("no", "yes")), ["yes", "no"]),
        (ClassIndices(2), [1, 0]),
        (Values(), [1, 0]),
    ],
)
def test_two_classes_of_one_output(loss, outputs, targets, names):
    for shaped in (outputs, [[value] for value in outputs]):
        found = predicted(loss, shaped, targets)
        assert found.classes.tolist() == names
        np.testing.assert_allclose(found.probabilities, [[0.25, 0.75], [0.75, 0.25]], rtol=1e-6)


def test_a_column_of_probabilities_has_probabilities_predicted():
    for loss, outputs in (("bce_with_logits", [[0.0], [math.log(3)]]), ("bce", [[0.5], [0.75]])):
        found = predicted(loss, outputs, Values("share"))
        np.testing.assert_allclose(found.values, [0.5, 0.75], rtol=1e-6)
        assert found.classes is found.probabilities is None


def test_signs_have_probabilities_too():
    # the loss of a sign t is −ln σ(t·o), so σ(o) is the probability of 1
    found = predicted("soft_margin_loss", [[-math.log(3)], [math.log(3)]], Values("side"))
    assert found.classes.tolist() == [-1, 1]
    assert found.names == ("-1", "1")
    np.testing.assert_allclose(found.probabilities, [[0.75, 0.25], [0.25, 0.75]], rtol=1e-6)
    several = predicted("soft_margin_loss", [[0.0, math.log(3)]], Values())
    np.testing.assert_allclose(several.probabilities, [[0.5, 0.75]], rtol=1e-6)


def test_labels_that_do_not_exclude_one_another_have_a_probability_each():
    found = predicted("bce_with_logits", [[0.0, math.log(3)]], Values())
    assert found.classes is None
    np.testing.assert_allclose(found.probabilities, [[0.5, 0.75]], rtol=1e-6)
    assert found.to_csv().splitlines()[0] == "probability_0,probability_1"


@pytest.mark.parametrize(
    ("loss", "args", "outputs", "values"),
    [
        ("mse", {}, [[1.0], [-2.0]], [140.0, 80.0]),
        ("huber", {}, [1.0, -2.0], [140.0, 80.0]),
        ("my.losses:own", {}, [[1.0], [-2.0]], [140.0, 80.0]),
        ("poisson_nll_loss", {}, [[0.0], [math.log(2)]], [140.0, 160.0]),
        ("poisson_nll_loss", {"log_input": False}, [[1.0], [2.0]], [140.0, 160.0]),
        ("hinge_embedding_loss", {}, [[1.0], [-2.0]], [1.0, -2.0]),
    ],
)
def test_values(loss, args, outputs, values):
    found = predicted(loss, outputs, Values("price", 120.0, 20.0), **args)
    np.testing.assert_allclose(found.values, values, rtol=1e-6)
    assert found.classes is found.probabilities is None
    assert found.to_csv().startswith("prediction\n")


def test_what_is_not_finite_is_no_prediction():
    with pytest.warns(LrtoolWarning, match="outputs for 1 of 2 samples are not finite"):
        found = predicted("cross_entropy", [[math.nan, 1.0, 2.0], [1.0, 0.0, 0.0]], NAMES)
    assert found.classes.tolist() == [None, "a"]
    assert found.to_csv().splitlines()[1] == ",,,"
    assert '{"prediction": null, "probabilities": {"a": null' in found.to_json()
    with pytest.warns(LrtoolWarning, match="outputs for 1 of 2 samples are not finite"):
        found = predicted("mse", [[math.inf], [1.0]], Values())
    assert found.rows() == [{"prediction": None}, {"prediction": 1.0}]


def test_names_are_quoted_where_a_table_needs_it():
    found = predicted("cross_entropy", [[1.0, 0.0]], Classes("kind", ('a, "b"', "c\nd")))
    assert found.to_csv().startswith(
        'prediction,"probability_a, ""b""","probability_c\nd"\n"a, ""b"""'
    )
