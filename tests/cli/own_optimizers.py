"""An optimizer around another one, as a user writes it."""

LOOKAHEAD = """
import torch


class Lookahead(torch.optim.Optimizer):
    "Every second update goes half-way back."

    def __init__(self, inner, share=0.5):
        super().__init__(inner.param_groups, {"share": share})
        self.inner, self.param_groups = inner, inner.param_groups

    def state_dict(self):
        return {"slow": super().state_dict(), "inner": self.inner.state_dict()}

    def load_state_dict(self, state):
        super().load_state_dict(state["slow"])
        self.inner.load_state_dict(state["inner"])
        self.param_groups = self.inner.param_groups

    def step(self, closure=None):
        parameters = [p for group in self.param_groups for p in group["params"]]
        for p in parameters:
            self.state[p].setdefault("slow", p.detach().clone())
        self.inner.step()
        group = self.param_groups[0]
        group["updates"] = group.get("updates", 0) + 1
        for p in parameters if group["updates"] % 2 == 0 else ():
            p.data.copy_(self.state[p]["slow"].lerp_(p.detach(), group["share"]))
"""
