"""Problems of a configuration are data until they are printed."""

import copy
import pickle

from lrtool.errors import ConfigError, Place, Problem, UserError

AT_FLAG = Problem(("seed",), "must be 0", place=Place("--seed", sets=("seed",)))
BELOW_FLAG = Problem(("a", "b"), "must be 1", place=Place("--set a", sets=("a",)))
IN_FILE = Problem(("train", "epochs"), "must be 2", place=Place("f.yaml", 7, 3))
EARLIER = Problem(("metrics", 0), "must be 3", place=Place("f.yaml", 3, 12))
SAME_LINE = Problem((), "must be 4", place=Place("f.yaml", 3, 2))
NOWHERE = Problem(("data", "args", "path"), "must be 5")


def test_a_problem_is_printed_with_its_place_and_its_key():
    assert str(IN_FILE) == "f.yaml:7:3: train.epochs: must be 2"
    assert str(SAME_LINE) == "f.yaml:3:2: must be 4"
    assert str(Problem((), "is a directory", place=Place("f"))) == "f: is a directory"
    assert str(NOWHERE) == "data.args.path: must be 5"


def test_a_flag_that_names_its_key_names_it_once():
    assert str(AT_FLAG) == "--seed: must be 0"
    assert str(BELOW_FLAG) == "--set a: a.b: must be 1"


def test_all_problems_are_printed_in_order_the_command_line_first():
    error = ConfigError(IN_FILE, AT_FLAG, EARLIER, SAME_LINE, BELOW_FLAG)
    assert error.problems == (AT_FLAG, BELOW_FLAG, SAME_LINE, EARLIER, IN_FILE)
    assert str(error).splitlines() == [
        "--seed: must be 0",
        "--set a: a.b: must be 1",
        "f.yaml:3:2: must be 4",
        "f.yaml:3:12: metrics.0: must be 3",
        "f.yaml:7:3: train.epochs: must be 2",
    ]
    assert isinstance(error, UserError)


def test_an_error_can_be_copied_and_sent_to_another_process():
    error = ConfigError(IN_FILE, NOWHERE)
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301  (our own)
        assert other.problems == error.problems
        assert str(other) == str(error)
