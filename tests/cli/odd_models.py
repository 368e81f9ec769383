"""Sound models that need a plain way: gradients in evaluation, sparse ones in training."""

MODELS = """
import torch
from torch import nn
class Forces(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    def forward(self, x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(self.net(x).sum(), x, create_graph=self.training)[0]
class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(9, 5, sparse=True), nn.Linear(5, 3)
    def forward(self, x):
        return self.out(self.table(x).mean(1))
"""
