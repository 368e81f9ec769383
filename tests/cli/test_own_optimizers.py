"""Optimizers of others on the command line: wrappers, and those that cannot be used."""

import json

import pytest
import torch
from own_optimizers import LOOKAHEAD

pytestmark = pytest.mark.usefixtures("no_plots")

OWN = (
    LOOKAHEAD
    + """

class Relative(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            group["lr"] = 0.001
        return super().step(closure)


class Holds(torch.optim.SGD):
    def state_dict(self):
        return {**super().state_dict(), "own": type(self)}


class Forgets(torch.optim.SGD):
    def load_state_dict(self, state):
        raise NotImplementedError("no state can be loaded")


class Counts(torch.optim.SGD):
    updates = 0
    def step(self, closure=None):
        self.updates += 1
        for group in self.param_groups:
            group["lr"] /= self.updates
        return super().step(closure)


class Around(torch.optim.Optimizer):
    "Whatever is asked of it, another one answers."
    def __init__(self, inner):
        super().__init__(inner.param_groups, {})
        self.inner, self.param_groups = inner, inner.param_groups
    def step(self, closure=None):
        self.inner.step()
    def state_dict(self):
        return self.inner.state_dict()
    def load_state_dict(self, state):
        self.inner.load_state_dict(state)
        self.param_groups = self.inner.param_groups


class Moded(torch.optim.SGD):
    training = False
    def train(self):
        self.training = True
    def eval(self):
        self.training = False
    def step(self, closure=None):
        assert self.training, "Optimizer was not in train mode"
        return super().step(closure)


class NoBase:
    "As schedule-free's wrapper: it has what an optimizer has, and no class of torch's."
    def __init__(self, base):
        self.base = base
    def __getattr__(self, name):
        if name == "base":
            raise AttributeError(name)
        return getattr(self.base, name)


class SAM(torch.optim.SGD):
    def first_step(self): pass
    def second_step(self): pass
"""
)


@pytest.fixture
def configuration(write):
    write("own.py", OWN)

    def configuration(optimizer, rate=0.05):
        text = "data: {source: iris}\nmodel: {name: mlp, args: {hidden: [8]}}\n"
        text += f"optimizer: {optimizer}\nlearning_rate: {rate}\ntrain: {{epochs: 2}}\n"
        return write("a.yaml", text)

    return configuration


def test_an_optimizer_inside_another(here, configuration):
    inner = "{name: sgd, args: {momentum: 0.9, lr: 0.02}}"
    configuration(f"{{name: 'own:Lookahead', args: {{share: 0.4}}, inner: {inner}}}", "null")
    assert here("check", "a.yaml", "--quiet").stderr == ""
    done = here("train", "a.yaml", "--output", "run", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["learning_rate"]["value"] == 0.02
    assert "learning rate 0.02, from optimizer.inner.args.lr" in done.stderr
    done = here("find", "a.yaml", "--output", "found", "--json")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "optimizer",
    [
        "{name: 'own:Around', inner: adamw}",
        "{name: 'own:Around', inner: {name: 'own:Moded', args: {momentum: 0.9}}}",
        "{name: 'own:NoBase', inner: {name: sgd, args: {momentum: 0.9}}}",
    ],
)
def test_one_that_leaves_all_to_the_one_inside(here, configuration, tmp_path, optimizer):
    configuration(optimizer)
    done = here("check", "a.yaml", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert_resumed(here, tmp_path)


def test_an_optimizer_inside_another_is_resumed(here, configuration, tmp_path):
    configuration("{name: 'own:Lookahead', inner: {name: sgd, args: {momentum: 0.9}}}")
    assert_resumed(here, tmp_path)


def assert_resumed(here, folder):
    """Train two epochs at once, and in two parts, to the same bits."""
    assert here("train", "a.yaml", "--output", "whole", "-q").returncode == 0
    assert here("train", "a.yaml", "--output", "parts", "--epochs", "1", "-q").returncode == 0
    assert here("train", "a.yaml", "--resume", "parts", "-q").returncode == 0
    one, other = (folder / run / "model.safetensors" for run in ("whole", "parts"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (
            "{name: adamw, inner: sgd}",
            (
                "a.yaml:3:19: optimizer.name: adamw takes parameters, not another optimizer; "
                "remove optimizer.inner"
            ),
        ),
        (
            "{name: 'own:Lookahead', inner: {name: sgdd}}",
            "optimizer.inner.name: no optimizer is called 'sgdd' (did you mean 'sgd'?)",
        ),
        (
            "{name: 'own:Lookahead', inner: {name: sgd, args: {momentumm: 1}}}",
            "optimizer.inner.args.momentumm: unknown argument (did you mean 'momentum'?)",
        ),
        (
            "{name: 'own:Lookahead', args: {shares: 1}, inner: sgd}",
            "optimizer.args.shares: unknown argument (did you mean 'share'?)",
        ),
        (
            "{name: 'own:SAM'}",
            (
                "optimizer.name: own:SAM evaluates the loss several times within a step; lrtool's "
                "step does it once"
            ),
        ),
        (
            "{name: sgd, args: {maximize: true}}",
            ("optimizer.args.maximize: lrtool lowers the loss; give the loss with the other sign"),
        ),
    ],
)
def test_optimizers_that_are_refused(here, configuration, optimizer, words):
    configuration(optimizer)
    done = here("check", "a.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_a_rate_that_does_not_matter(here, configuration):
    configuration("own:Relative")
    words = (
        "the updates of Relative do not depend on the learning rate: they are the same at 0.01 and "
        "0.1. Some optimizers set their own rate, such as AdaFactor with relative_step"
    )
    for command in (("check",), ("train", "--output", "run")):
        done = here(command[0], "a.yaml", "--quiet", *command[1:])
        assert (done.returncode, done.stderr) == (0, f"lrtool: warning: {words}\n")
    done = here("find", "a.yaml", "--output", "found")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{words}; there is no rate to find\n" in done.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "Holds",
            (
                "a.yaml:3:12: optimizer: no checkpoint could be written: the state of own:Holds "
                "holds objects that are neither tensors nor plain values (own.Holds)\n"
            ),
        ),
        (
            "Forgets",
            (
                "a.yaml:3:12: optimizer: the state of own:Forgets cannot be saved and put back: "
                "NotImplementedError: no state can be loaded ("
            ),
        ),
    ],
)
def test_a_state_that_no_checkpoint_can_hold(here, configuration, name, words):
    configuration(f"own:{name}")
    for command in ("check", "train"):
        done = here(command, "a.yaml")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(words)


def test_a_state_that_is_not_in_its_state_dict(here, configuration):
    configuration("own:Counts")
    done = here("check", "a.yaml", "--quiet")
    assert done.returncode == 0
    assert done.stderr == (
        "lrtool: warning: state_dict() of own:Counts does not hold all of its state: a training "
        "that is resumed goes on otherwise than one that was not interrupted\n"
    )


def test_muon_trains_a_model_with_biases_and_resumes(here, configuration, tmp_path):
    configuration("muon", 0.01)
    assert_resumed(here, tmp_path)
    state = torch.load(tmp_path / "whole/checkpoints/last/state.pt", weights_only=True)
    assert [group["muon"] for group in state["optimizer"]["param_groups"]] == [True, False]
