"""What differs between two configurations, key by key."""

from lrtool.config.differences import differences


def test_each_key_that_differs_is_named_with_both_values():
    before = {"seed": 0, "model": {"name": "mlp", "args": {"hidden": [8], "bias": True}}}
    now = {"seed": 0, "model": {"name": "mlp", "args": {"hidden": [4, 4]}}, "loss": "mse"}
    found = list(differences(before, now))
    assert [(d.path, d.before, d.now) for d in found] == [
        (("model", "args", "hidden"), [8], [4, 4]),
        (("model", "args", "bias"), True, None),
        (("loss",), None, "mse"),
    ]
    assert [str(d) for d in found] == [
        "model.args.hidden was [8], is [4, 4]",
        "model.args.bias was true, is null",
        "loss was null, is mse",
    ]


def test_a_mapping_in_place_of_a_value_differs_as_a_whole():
    [found] = differences({"a": 1e-5}, "x", ("data", "args"))
    assert found.path == ("data", "args")
    assert str(found) == "data.args was {a: 1e-5}, is x"


def test_equal_ones_do_not_differ():
    assert not list(differences({"a": {"b": [1]}}, {"a": {"b": [1]}}))
