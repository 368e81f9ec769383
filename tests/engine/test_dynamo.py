"""Each script runs in a process of its own: this one has imported torch._dynamo long ago."""

import subprocess
import sys

TRAINED = """
import copy, inspect, pickle, sys
import torch
from lrtool.engine.dynamo import without_dynamo

CLASSES = [
    found for name, found in sorted(vars(torch.optim).items())
    if inspect.isclass(found) and name not in {"Optimizer", "LBFGS", "SparseAdam"}
]

def methods():
    return [(cls, dict(vars(cls))) for cls in [*CLASSES, torch.optim.Optimizer]]

def trained(cls, **args):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2, bias=False)
    optimizer = cls(model.parameters(), **args)
    hooks = []
    optimizer.register_step_pre_hook(lambda *_: hooks.append(torch.is_grad_enabled()))
    optimizer.register_step_post_hook(lambda *_: hooks.append("after"))
    for _ in range(3):
        optimizer.zero_grad()
        assert model.weight.grad is None
        model(torch.rand(3, 4)).square().sum().backward()
        optimizer.step()
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2, 2))]})
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    pickled = pickle.loads(pickle.dumps(optimizer))
    copies = repr((copy.deepcopy(optimizer).state_dict(), pickled.param_groups))
    return model.weight.tolist(), hooks, copies

def all_trained():
    found = [trained(cls) for cls in CLASSES]
    for args in ({"fused": True}, {"foreach": True}, {"amsgrad": True}):
        found.append(trained(torch.optim.AdamW, **args))
    return found

def through_a_step():
    "An update that has a gradient of its own."
    start = torch.ones(2, requires_grad=True)
    weight = start.clone()
    optimizer = torch.optim.SGD([weight], lr=0.5, differentiable=True)
    weight.grad = start * 2
    optimizer.step()
    weight.sum().backward()
    return start.grad.tolist()

before = methods()
with without_dynamo():
    light, gradient = all_trained(), through_a_step()
    assert "torch._dynamo" not in sys.modules
assert methods() == before
assert light == all_trained()
assert gradient == through_a_step() == [0, 0]
assert "torch._dynamo" in sys.modules
print(len(light))
"""

COMPILED = """
import sys
from contextlib import nullcontext
import torch
from lrtool.engine.dynamo import without_dynamo

def compiled(block):
    with block:
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.AdamW(model.parameters())

        def update(module):
            optimizer.zero_grad()
            module(torch.ones(3, 4)).square().sum().backward()
            optimizer.step()

        update(model)
        if isinstance(block, nullcontext):
            torch._dynamo.reset()  # nothing is left of what was compiled before
        else:
            assert "torch._dynamo" not in sys.modules
        from torch._dynamo.testing import CompileCounter
        counter = CompileCounter()
        update(torch.compile(model, backend=counter))
        whole = torch.compile(update, backend=counter)
        whole(model)
        whole(model)
        return counter.frame_count, counter.op_count, [p.tolist() for p in model.parameters()]

print(*compiled(without_dynamo()))
print(*compiled(nullcontext()))
"""

UNKNOWN = """
import functools, sys
import torch
from lrtool.engine.dynamo import without_dynamo

def guarded(method):
    @functools.wraps(method)
    def call(self, *args, **kwargs):
        import torch._dynamo
        torch._dynamo.graph_break()
        self.counted = True
        return method(self, *args, **kwargs)
    return call

torch.optim.SGD.step = guarded(torch.optim.SGD.step.__wrapped__)
with without_dynamo():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))])
    assert "torch._dynamo" not in sys.modules
    with torch.no_grad():
        optimizer.step()
print(optimizer.counted, "torch._dynamo" in sys.modules)
"""


def run(script):
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_optimizer_is_the_same_without_and_is_left_as_it_was():
    assert int(run(TRAINED)[0]) >= 14


def test_what_is_compiled_inside_is_compiled_as_outside():
    inside, outside = run(COMPILED)
    assert inside == outside
    assert not inside.startswith("0")


def test_a_guard_that_does_more_than_is_known_stays():
    assert run(UNKNOWN) == ["True True"]


def test_where_it_is_imported_already_nothing_changes():
    import torch
    import torch._dynamo

    from lrtool.engine.dynamo import without_dynamo

    step = torch.optim.Adam.step
    with without_dynamo():
        assert torch.optim.Adam.step is step
