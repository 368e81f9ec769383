"""What only a CUDA device can show: no host sync in the step, and its random state restored."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import lrtool
from lrtool.engine.device import Runtime
from lrtool.engine.ema import MovingAverage
from lrtool.engine.step import make_step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(8 * 64, 10),
    ).to("cuda")


def batch():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(64, 1, 8, 8, generator=generator)
    return x.to("cuda"), torch.randint(10, (64,), generator=generator).to("cuda")


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_step_waits_for_nothing(dtype, clip):
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    runtime = Runtime(torch.device("cuda", 0), dtype)
    step = make_step(
        model, F.cross_entropy, optimizer, runtime, clip_norm=clip, scaler=runtime.scaler()
    )
    average = MovingAverage(model, 0.9)
    batches = [batch()]
    first = step(batches, 1e-3).loss.item()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that the mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        outs = []
        for _ in range(20):
            outs.append(step(batches, 1e-3))
            average.update(outs[-1].skipped)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert outs[-1].loss.item() < first
    assert all(out.loss.is_cuda for out in outs)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_find_lr_leaves_no_trace_on_the_device(precision):
    x, y = batch()
    loader = DataLoader(TensorDataset(x.cpu(), y.cpu()), batch_size=16, shuffle=True)
    model = net()
    optimizer = torch.optim.AdamW(model.parameters())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.cuda.get_rng_state()
    result = lrtool.find_lr(
        model, optimizer, F.cross_entropy, loader, precision=precision, steps=150
    )
    assert result.report()["environment"]["device"] == "cuda:0"
    assert len(result.sweeps[0].loss) > 80
    assert torch.equal(random, torch.cuda.get_rng_state())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert not optimizer.state
