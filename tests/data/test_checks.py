import pytest
import torch

from lrtool.data.checks import class_problem


@pytest.mark.parametrize(
    ("labels", "ignored", "problem"),
    [
        ([0, 1, 2], None, None),
        ([0, 1, -100], -100, None),
        ([[0, 255], [255, 1]], 255, None),
        ([2, 2, 2], None, "every target is 2: there is nothing to learn from one class"),
        ([2, 2, 255], 255, "every target is 2: there is nothing to learn from one class"),
        ([7, 7], 7, "every target is 7, which the loss ignores: there is nothing to learn"),
        (
            [0, -1, -3, 2],
            None,
            (
                "2 of 4 labels are below 0, down to -3, but classes count from 0;"
                " loss.args.ignore_index names a label that the loss leaves out"
            ),
        ),
    ],
)
def test_what_keeps_labels_from_being_classes(labels, ignored, problem):
    assert class_problem(torch.tensor(labels), ignored=ignored) == problem
