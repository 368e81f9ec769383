"""A training of several ranks is that of one process: rates, losses, epochs and metrics."""

import pytest
from own_optimizers import LOOKAHEAD
from small import rows

pytestmark = pytest.mark.usefixtures("no_plots")

MINE = (
    LOOKAHEAD
    + """
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

generator = torch.Generator().manual_seed(0)
x = torch.randn(45, 6, generator=generator)
weights = torch.rand(45, generator=generator)
classes = (x[:, :3] * 2).argmax(1)
tokens = torch.randint(0, 5, (45, 4), generator=generator)


def weighted():
    part = TensorDataset(x, classes, weights)
    return part, part


def three():
    "Three classes of 150 samples."
    made = torch.Generator().manual_seed(2)
    x = torch.randn(150, 4, generator=made)
    parts = [TensorDataset(each, each[:, :3].argmax(1)) for each in x.split([120, 30])]
    return parts


def unweighted():
    part = TensorDataset(x, classes)
    return part, part


def values():
    part = TensorDataset(x, x.square().sum(1, keepdim=True))
    return part, part


def ignored():
    left_out = torch.rand(45, 4, generator=torch.Generator().manual_seed(1)) < 0.5
    targets = tokens.masked_fill(left_out, -100)
    targets[7:14] = -100
    part = TensorDataset(tokens, targets)
    return DataLoader(part, 8, shuffle=True), DataLoader(part, 8)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.last, self.never = nn.Embedding(5, 8), nn.Linear(8, 5), nn.Linear(3, 3)

    def forward(self, x):
        return self.last(self.embed(x)).movedim(-1, 1)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.norm, self.last = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)

    def forward(self, x):
        return self.last(self.norm(self.body(x)).relu())

    def training_loss(self, batch):
        inputs, targets = batch
        return F.smooth_l1_loss(self(inputs), targets)


class Centres(nn.Module):
    "A loss with weights of its own."

    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.linspace(-1, 1, 9).reshape(3, 3))

    def forward(self, outputs, targets):
        return (outputs - self.centres[targets]).square().mean()


class Summed(nn.CrossEntropyLoss):
    def __init__(self):
        super().__init__(reduction="sum")


class ScheduleFree(torch.optim.Optimizer):
    "SGD at points between the average and the iterate (Defazio et al. 2024)."

    def __init__(self, params, lr=0.1, beta=0.9):
        super().__init__(params, {"lr": lr, "beta": beta, "mode": "eval", "k": 0})

    def _to(self, mode):
        for group in self.param_groups:
            for p in group["params"] if group["mode"] != mode else ():
                z = self.state[p].setdefault("z", p.detach().clone())
                beta = group["beta"]
                p.data.lerp_(z, 1 - beta if mode == "train" else 1 - 1 / beta)
            group["mode"] = mode

    def train(self):
        self._to("train")

    def eval(self):
        self._to("eval")

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["k"] += 1
            for p in group["params"]:
                if p.grad is not None:
                    z, beta = self.state[p]["z"], group["beta"]
                    x = p.lerp(z, 1 - 1 / beta)
                    z.sub_(p.grad, alpha=group["lr"])
                    x.lerp_(z, 1 / group["k"])
                    p.copy_(x.lerp(z, 1 - beta))


class InOrder:
    "A metric that depends on the order of the batches."

    def reset(self):
        self.value = 0.0

    def update(self, outputs, targets):
        self.value = 0.9 * self.value + outputs.double().sum().item()

    def compute(self):
        return self.value


def bias(outputs, targets):
    return (outputs - targets).mean()
"""
)

# 45 samples in batches of 11: the last one has a sample for one rank alone.
CONFIGS = {
    "clipped": """
data: {source: "mine:three", batch_size: 17}
model: {name: mlp, args: {hidden: [8], input_shape: [4], num_outputs: 3}}
metrics: [accuracy, f1, auroc, average_precision]
learning_rate: 0.02
train: {epochs: 2, gradient_clip_norm: 0.5, schedule: one_cycle}
""",
    "accumulated": """
data: {source: "mine:weighted", batch_size: 11}
model: {name: mlp, args: {hidden: [8], input_shape: [6], num_outputs: 3}}
loss: {name: cross_entropy, args: {weight: [1, 2, 3]}}
optimizer: {name: sgd, args: {momentum: 0.9, weight_decay: 0.1}}
learning_rate: 0.1
train: {epochs: 2, accumulate: 3, ema_decay: 0.9, schedule: {name: cosine, warmup: 2}}
""",
    "ignored targets": """
data: {source: "mine:ignored", batch_size: 8}
model: "mine:Tokens"
metrics: [accuracy, perplexity]
optimizer: {name: adamw, args: {weight_decay: 0.5}}
learning_rate: 0.03
train: {epochs: 2, early_stopping: {patience: 1, metric: perplexity}}
""",
    "of a loss with weights": """
data: {source: "mine:unweighted", batch_size: 11}
model: {name: mlp, args: {hidden: [8], input_shape: [6], num_outputs: 3}}
loss: "mine:Centres"
metrics: ["mine:InOrder"]
optimizer: {name: muon}
learning_rate: 0.02
train: {epochs: 2}
""",
    "summed": """
data: {source: "mine:unweighted", batch_size: 11}
model: {name: mlp, args: {hidden: [8], input_shape: [6], num_outputs: 3}}
loss: "mine:Summed"
optimizer: {name: "mine:Lookahead", inner: adam}
learning_rate: 0.01
train: {epochs: 2}
""",
    "of an own loss": """
data: {source: "mine:values", batch_size: 21}
model: "mine:Own"
loss: own
metrics: [r2, rmse, "mine:bias", "torchmetrics.regression:MeanAbsoluteError"]
optimizer: "mine:ScheduleFree"
learning_rate: 0.05
train: {epochs: 2, schedule: plateau}
""",
    "images": """
data: {source: digits, batch_size: 601, validation: 0.2}
model: {name: cnn, args: {channels: [4]}}
metrics: [accuracy, top_5_accuracy]
learning_rate: 0.02
train: {epochs: 1}
""",
    "half": """
data: {source: "mine:three", batch_size: 17}
model: {name: mlp, args: {hidden: [8], input_shape: [4], num_outputs: 3}}
metrics: [accuracy]
learning_rate: 0.02
train: {epochs: 2, gradient_clip_norm: 1.0}
runtime: {precision: fp16}
""",
    "bfloat": """
data: {source: "mine:three", batch_size: 17}
model: {name: mlp, args: {hidden: [8], input_shape: [4], num_outputs: 3}}
learning_rate: 0.02
train: {epochs: 2}
runtime: {precision: bf16}
""",
}
CLOSE = {"half": 2e-3, "bfloat": 2e-2}  # rows that are rounded are added up in another order


def numbers(row):
    return {name: value for name, value in row.items() if isinstance(value, int | float)}


@pytest.fixture
def train(here, launch, write):
    """Train a configuration on so many ranks."""

    def run(name, world_size):
        write("mine.py", MINE)
        write("a.yaml", CONFIGS[name])
        arguments = ("train", "a.yaml", "--output", world_size)
        if world_size == 1:
            ended = [here(*arguments)]
        else:
            ended = [each.wait() for each in launch(world_size, *arguments)]
        assert [each.returncode for each in ended] == [0] * world_size, ended
        assert not any(each.stdout or each.stderr for each in ended[1:])

    return run


@pytest.mark.parametrize(("name", "world_size"), [*((each, 2) for each in CONFIGS), ("images", 4)])
def test_a_training_is_that_of_one_process(train, tmp_path, name, world_size):
    train(name, 1)
    train(name, world_size)
    expected, found = rows(tmp_path / "1"), rows(tmp_path / str(world_size))
    assert [(row["kind"], row["step"], row["lr"]) for row in found] == [
        (row["kind"], row["step"], row["lr"]) for row in expected
    ]
    assert len([row for row in expected if row["kind"] == "step"]) > 1
    for row, like in zip(found, expected, strict=True):
        close = CLOSE.get(name, 1e-5)
        assert numbers(row) == pytest.approx(numbers(like), rel=close, abs=close)
