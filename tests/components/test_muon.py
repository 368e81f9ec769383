"""Muon with AdamW: which takes what, against torch's own of each."""

import copy
import io

import pytest
import torch
from torch import nn

from lrtool.components.muon import Muon, split


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.hidden = nn.Linear(4, 6)
        self.norm = nn.LayerNorm(6)
        self.more = nn.Linear(6, 6)
        self.conv = nn.Conv1d(6, 6, 3)
        self.head = nn.Linear(6, 10)

    def forward(self, tokens):
        x = self.norm(self.hidden(self.embedding(tokens)))
        return self.head(torch.relu(self.more(x)))


def model():
    torch.manual_seed(0)
    return Tokens()


def names(own, groups, *, muon):
    chosen = {id(p) for group in groups if group["muon"] == muon for p in group["params"]}
    return {name for name, p in own.named_parameters() if id(p) in chosen}


def test_muon_takes_the_matrices_between_embeddings_and_output():
    own = model()
    groups = split([{"params": list(own.parameters()), "lr": 0.1}], own)
    assert [group["lr"] for group in groups] == [0.1, 0.1]
    assert names(own, groups, muon=True) == {"hidden.weight", "more.weight"}
    assert len(names(own, groups, muon=False)) == len(list(own.parameters())) - 2

    line = nn.Linear(3, 1)  # its only matrix is not left out
    assert names(line, split([{"params": line.parameters()}], line), muon=True) == {"weight"}


def test_each_part_is_torchs_own():
    own, other = model(), model()
    pair = Muon(split([{"params": list(own.parameters()), "lr": 0.1}], own), lr=0.1)
    matrices = [other.hidden.weight, other.more.weight]
    known = {id(p) for p in matrices}
    rest = [p for p in other.parameters() if id(p) not in known]
    parts = [
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=0.02, weight_decay=0.1),
    ]
    for step in range(4):
        for group in pair.param_groups:
            group["lr"] = 0.02
        tokens = torch.randint(10, (8,), generator=torch.Generator().manual_seed(step))
        for each, optimizers in ((own, [pair]), (other, parts)):
            each.zero_grad()
            nn.functional.cross_entropy(each(tokens), tokens).backward()
            for optimizer in optimizers:
                optimizer.step()
    for mine, theirs in zip(own.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_it_goes_on_from_a_saved_state():
    tokens = torch.arange(10)

    def train(own, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(own(tokens), tokens).backward()
            optimizer.step()

    own = model()
    optimizer = Muon(own.parameters(), lr=0.01)
    train(own, optimizer, 3)
    again = copy.deepcopy(own)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    train(own, optimizer, 3)

    restored = Muon(again.parameters(), lr=1.0)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert [group["lr"] for group in restored.param_groups] == [0.01, 0.01]
    train(again, restored, 3)
    for one, other in zip(own.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_wrong_arguments_are_torchs_errors():
    with pytest.raises(ValueError, match="momentum should be >= 0"):
        Muon(nn.Linear(2, 2).parameters(), momentum=-1.0)
