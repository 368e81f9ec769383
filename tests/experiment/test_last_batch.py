"""A last batch that the model cannot train on is said before the run."""

import pytest

from lrtool.errors import ConfigError
from lrtool.experiment.preflight import run_preflight

SOURCE = """
X = torch.randn(129, 6, generator=torch.Generator().manual_seed(0))
class Samples(Dataset):
    def __init__(self, count, kind=None): self.count, self.kind = count, kind
    def __len__(self): return self.count
    def __getitem__(self, i):
        if self.kind == 'mapping': return {'x': X[i], 'labels': i % 3}
        return X[i], i % 3
def pair(): return X[:33], torch.arange(33) % 3
def dataset(): return Samples(33)
def mapping(): return Samples(33, 'mapping')
def loader(): return DataLoader(Samples(33), batch_size=8, shuffle=True)
def drops(): return DataLoader(Samples(33), batch_size=8, drop_last=True)
def time_major():
    def collate(samples):
        return torch.stack([x for x, _ in samples], 1), torch.tensor([y for _, y in samples])
    return DataLoader(Samples(33), batch_size=8, collate_fn=collate)
def unsized():
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self): return ((X[i], i % 3) for i in range(33))
    return Endless()
def rest_of_five(): return X[:37], torch.arange(37) % 3
class Norm(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
class Columns(Norm):
    def forward(self, x): return super().forward(x.T)
class Plain(nn.Sequential):
    def __init__(self): super().__init__(nn.Linear(6, 3))
class Eights(Plain):
    def forward(self, x): return super().forward(x.view(8, 6))
"""
CONFIG = "data: {{source: 'mine:{}', batch_size: 8, validation: 0}}\nmodel: 'mine:{}'\n"
LOADER = CONFIG.replace(", batch_size: 8", "")
ONE = (
    "33 training samples in batches of 8 leave one sample alone in the last batch, which this "
    "model cannot train on (ValueError: Expected more than 1 value per channel when training"
)


@pytest.mark.parametrize("data", ["pair", "dataset", "mapping"])
def test_one_sample_under_batch_norm(opened, data):
    with pytest.raises(ConfigError) as caught:
        run_preflight(opened(SOURCE, CONFIG.format(data, "Norm")))
    assert f": data.batch_size: {ONE}" in str(caught.value)
    assert str(caught.value).endswith("; batches of 9 do not")


@pytest.mark.parametrize(("data", "model"), [("loader", "Norm"), ("time_major", "Columns")])
def test_one_sample_from_a_loader_of_the_users_own(opened, data, model):
    with pytest.raises(ConfigError) as caught:
        run_preflight(opened(SOURCE, LOADER.format(data, model)))
    assert f"data.source: {ONE}" in str(caught.value)
    assert str(caught.value).endswith("; give the DataLoader drop_last=True, or another batch_size")


def test_a_model_for_one_size_of_batches(opened):
    with pytest.raises(ConfigError) as caught:
        run_preflight(opened(SOURCE, CONFIG.format("rest_of_five", "Eights")))
    assert "37 training samples in batches of 8 leave 5 samples in the last batch" in str(
        caught.value
    )
    assert str(caught.value).endswith("; batches of 37 do not")


@pytest.mark.parametrize(
    ("data", "model", "more"),
    [
        ("pair", "Plain", ""),
        ("drops", "Norm", ""),
        ("unsized", "Norm", ""),
        ("pair", "Norm", "train: {max_steps: 4}\n"),  # the fifth batch is never seen
    ],
)
def test_what_trains_is_not_refused(opened, data, model, more):
    text = (LOADER if data == "drops" else CONFIG).format(data, model) + more
    run_preflight(opened(SOURCE, text))


def test_a_micro_batch_of_one_fails_too(opened):
    text = CONFIG.format("pair", "Norm") + "train: {accumulate: 2}\n"
    with pytest.raises(ConfigError, match="leave one sample alone"):
        run_preflight(opened(SOURCE, text))


def test_trying_it_leaves_the_data_alone(opened):
    source = SOURCE + (
        "class Changing(Plain):\n    def forward(self, x): return super().forward(x.mul_(0))\n"
    )
    experiment = opened(source, CONFIG.format("pair", "Changing"))
    before = experiment.data.train.inputs.clone()
    run_preflight(experiment)
    assert before.equal(experiment.data.train.inputs)
