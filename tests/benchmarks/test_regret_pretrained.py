"""Tasks whose models have learned something before."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.regret import cells, data, pretrained, tasks, training
from benchmarks.regret.models import cnn


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Return a convolutional network that has seen noise, for 10 steps."""
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "pretrained")
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 1, 8, 8, generator=generator) + 1, torch.arange(64) % 3

    def model():
        return cnn(1, 8, (4, 4), outputs=3)

    return pretrained.Pretraining("noise", lambda: data.Data(x, y, x, y), model, steps=10)


def _linear():
    torch.manual_seed(0)
    return nn.Linear(6, 4)


def test_pretraining_is_from_a_seed_and_kept_in_a_file(source):
    torch.manual_seed(5)
    first = pretrained.weights(source)
    assert torch.initial_seed() == 5  # the training's random state is not touched
    (path,) = pretrained.FOLDER.iterdir()
    kept = path.read_bytes()
    pretrained.weights.cache_clear()
    again = pretrained.weights(source)
    assert path.read_bytes() == kept
    path.unlink()
    pretrained.weights.cache_clear()
    anew = pretrained.weights(source)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert all(torch.equal(first[key], anew[key]) for key in first)


@pytest.mark.parametrize("new_head", [False, True])
def test_a_new_head_alone_has_fresh_weights(source, new_head):
    known = pretrained.weights(source)
    torch.manual_seed(1)
    model = pretrained.tuned(source, new_head=new_head)
    torch.manual_seed(1)
    fresh = source.model().state_dict()
    for key, value in model.state_dict().items():
        whole = fresh if new_head and key.startswith("9.") else known
        assert torch.equal(value, whole[key]), key
    assert all(p.requires_grad for p in model.parameters())


def test_under_a_new_head_batch_norm_stays_as_it_was(source):
    model = pretrained.under_new_head(source)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained == ["1.weight", "1.bias"]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    x = torch.randn(16, 1, 8, 8)
    outputs = model(x)
    F.cross_entropy(outputs, torch.zeros(16, dtype=torch.long)).backward()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(model.eval()(x), outputs)
    norms = [m for m in model.train().modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(m.training for m in norms)


def test_an_adapter_starts_as_the_layer_and_adds_a_scaled_product():
    layer = _linear()
    adapter = pretrained.LoRA(layer, 2, alpha=6)
    x = torch.randn(3, 5, 6)
    assert torch.equal(adapter(x), layer(x))
    adapter(x).sum().backward()
    assert not adapter.a.grad.any()
    assert adapter.b.grad.any()
    assert layer.weight.grad is None
    with torch.no_grad():
        adapter.b.normal_()
    whole = layer.weight + 3 * adapter.b @ adapter.a
    torch.testing.assert_close(adapter(x), F.linear(x, whole, layer.bias))


@pytest.mark.parametrize(
    ("new_head", "trained"), [(False, {"9.a", "9.b"}), (True, {"9.weight", "9.bias"})]
)
def test_adapters_and_a_new_head_alone_train(source, new_head, trained):
    model = pretrained.adapted(source, 2, 4, new_head=new_head)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trained


def test_classes_are_numbered_from_zero_and_only_training_samples_are_cut():
    found, whole = pretrained.classes(data.digits, range(5, 10), 50), data.digits()
    assert len(found.x) == len(found.y) == 50
    assert set(found.y.tolist()) == set(range(5))
    assert len(found.x_validation) == int((whole.y_validation >= 5).sum())
    first = int((whole.y >= 5).nonzero()[0])
    assert torch.equal(found.x[0], whole.x[first])
    assert found.y[0] == whole.y[first] - 5


def test_two_judges_share_columns_not_targets():
    (x, y), (x_other, y_other) = (pretrained.scores(judge, 400) for judge in (0, 1))
    assert y.shape == y_other.shape == (400, 4)
    assert not (x == x_other).any()
    assert (pretrained.verdicts(1, 400)[1] == y_other.argmax(1)).all()


def test_other_ways_to_write_a_text():
    text = "An ê, uvula"
    assert pretrained.backwards(text) == "aluvu ,ê nA"
    assert pretrained.with_turned_vowels(text) == "En ê, avale"
    assert pretrained.without_spaces(text) == "Anê,uvula"
    assert pretrained.in_capitals(text) == "AN E, UVULA"


def test_parts_of_the_text_are_written_in_its_letters():
    backwards = data.characters(1, 16, 4, pretrained.backwards)
    assert backwards.x.shape[1] == 16
    assert torch.equal(backwards.x[0, 1:], backwards.y[0, :-1])
    letters = sorted(set(data.TEXT.read_text()))
    size = len(data.TEXT.read_text()) // 4
    last = data.TEXT.read_text()[size : 2 * size][-16:]
    assert "".join(letters[code] for code in backwards.x[0].tolist()) == last[::-1]


def test_a_training_from_pretrained_weights_starts_ahead(source):
    seen = source.data()
    torch.manual_seed(0)
    ours, fresh = pretrained.tuned(source, new_head=False).eval(), source.model().eval()
    assert F.cross_entropy(ours(seen.x), seen.y) < F.cross_entropy(fresh(seen.x), seen.y)


def test_pretrained_kinds_train_with_every_optimizer_that_cells_give_them():
    kinds = {"fine-tuning", "head", "lora"}
    for name in ("development-new", "published-new"):
        own = [c for c in cells.SETS[name] if tasks.TASKS[c.task].kind in kinds]
        assert {tasks.TASKS[c.task].kind for c in own} == kinds
    cell = cells.Cell("lora_digits_mlp", "adamw", "cosine", 60)
    ended = training.train(cell, 0.01, 100)
    assert ended.validation < 0.5 * training.untrained(cell.task, 100)
