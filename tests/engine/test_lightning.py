"""Lightning's modules without a Trainer, by a module with Lightning's interface."""

# ruff: noqa: ARG002  (the interface has these arguments)

import math

import pytest
import torch
from torch import nn

from lrtool.engine.device import Runtime
from lrtool.engine.evaluation import evaluate, losses
from lrtool.engine.lightning import attach, is_own, optimizers_in, placed, warn_of_hooks
from lrtool.engine.step import make_step, update
from lrtool.engine.sweep import sweep
from lrtool.errors import LrtoolWarning, UserError

CPU = Runtime(torch.device("cpu"))


class LightningModule(nn.Module):
    """What counts here of Lightning 2's class."""

    automatic_optimization = True

    def __init__(self):
        super().__init__()
        self._trainer = self._fabric = None

    @property
    def trainer(self):
        if self._trainer is None:
            raise RuntimeError(f"{type(self).__name__} is not attached to a `Trainer`.")
        return self._trainer

    @property
    def global_step(self):
        return self.trainer.global_step if self._trainer else 0

    @property
    def current_epoch(self):
        return self.trainer.current_epoch if self._trainer else 0

    @property
    def logger(self):
        return self._trainer.logger if self._trainer else None

    def optimizers(self):
        [optimizer] = self.trainer.strategy._lightning_optimizers
        return optimizer

    def lr_schedulers(self):
        return self.trainer.lr_scheduler_configs or None

    def log(self, name, value):
        raise AssertionError("logs of a search would be lost")

    def log_dict(self, values):
        raise AssertionError("logs of a search would be lost")

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch

    on_train_batch_end = on_before_batch_transfer = on_after_batch_transfer


for _method in vars(LightningModule).values():
    if callable(_method):
        _method.__module__ = "lightning.pytorch.core.module"


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.0))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.global_step, self.current_epoch, batch_idx))
        return self.w * batch


def stepping(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    attach(model, optimizer)
    return optimizer, make_step(model, None, optimizer, CPU)


def test_it_knows_where_the_training_is():
    model = Module()
    _, step = stepping(model)
    ones = [torch.ones(())] * 2
    for group in placed(model, iter([ones, ones[:1]]), step=10, epoch=3, batch=4):
        step(group, 0.1)
    assert model.seen == [(10, 3, 4), (10, 3, 5), (11, 3, 6)]


def test_a_batch_that_is_skipped_is_no_step():
    model = Skips()
    model.seen = []
    _, step = stepping(model)
    good, bad = torch.tensor(1.0), torch.tensor(-1.0)
    for group in placed(model, iter([[good], [bad], [bad, good], [good]])):
        model.seen.append(model.global_step)
        step(group, 0.1)
    assert model.seen == [0, 1, 1, 2]


def test_what_a_training_step_may_ask_of_a_trainer():
    class Asks(Module):
        def training_step(self, batch, batch_idx):
            self.log("loss", 1.0)
            self.log_dict({"loss": 1.0})
            self.logger.experiment.add_scalar("loss", 1.0)
            assert self.trainer.training == self.training
            assert self.trainer.validating != self.training
            assert self.trainer.is_global_zero
            assert self.lr_schedulers() is None
            rate = self.optimizers().param_groups[0]["lr"]
            return self.trainer.strategy.all_gather(self.w) * batch * rate

    model = Asks()
    _, step = stepping(model)
    assert step([torch.ones(())], 0.1).loss.item() == pytest.approx(2.0 * 0.1)
    with pytest.raises(AttributeError) as caught:
        _ = model.trainer.fit_loop
    assert str(caught.value) == (
        "Asks reads trainer.fit_loop, but there is no Lightning Trainer here: lrtool makes the "
        "updates"
    )


def test_a_real_trainer_stays():
    model = Module()
    model._trainer = trainer = type("Trainer", (), {"global_step": 7, "current_epoch": 1})()
    _, step = stepping(model)
    step([torch.ones(())], 0.1)
    assert model.trainer is trainer
    assert model.seen == [(7, 1, 0)]


@pytest.mark.parametrize("kind", ["batch", "keyword", "any", "mapping"])
def test_a_training_step_gets_what_its_signature_takes(kind):
    class Batch(Module):
        def training_step(self, batch):
            return self.w * batch

    class Keyword(Module):
        def training_step(self, batch, *, batch_idx):
            return self.w * batch + batch_idx

    class Any(Module):
        def training_step(self, *args):
            return self.w * args[0] + args[1]

    class Mapping(Module):
        def training_step(self, batch, _index):
            return {"loss": self.w * batch, "other": 1}

    model = {"batch": Batch, "keyword": Keyword, "any": Any, "mapping": Mapping}[kind]()
    _, step = stepping(model)
    [group] = placed(model, iter([[torch.ones(())]]), batch=3)
    index = 3 if kind in {"keyword", "any"} else 0
    assert step(group, 0.1).loss.item() == 2.0 + index


def test_a_mapping_without_a_loss():
    class NoLoss(Module):
        def training_step(self, batch, _index):
            return {"value": self.w * batch}

    _, step = stepping(NoLoss())
    with pytest.raises(UserError, match="returned a mapping without a loss; its keys: value"):
        step([torch.ones(())], 0.1)


def drain(rows):
    seen = []
    while True:
        try:
            seen.append(next(rows))
        except StopIteration as end:
            return seen, end.value


class Skips(Module):
    """Skips batches below 0."""

    def training_step(self, batch, _index):
        return self.w * batch if batch >= 0 else None


def test_a_batch_that_is_skipped_updates_nothing():
    good, bad = torch.tensor(1.0), torch.tensor(-1.0)
    model = Skips()
    optimizer, step = stepping(model)
    assert step([bad], 0.1) is None
    assert model.w.item() == 2.0
    assert update(step, iter([[bad], [bad], [good]]), 0.1).loss.item() == 2.0
    assert model.w.item() == pytest.approx(1.9)
    rows = list(sweep(step, iter([[bad], [good], [bad], [good]]), [0.1, 0.2]))
    assert [row.loss for row in rows] == pytest.approx([1.9, 1.8])

    with pytest.raises(UserError) as caught:
        update(step, iter([[bad]] * 2000), 0.1)
    assert str(caught.value) == (
        "training_step returned None for every batch, so nothing can be learned"
    )
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_batch_that_is_skipped_does_not_count_in_an_evaluation():
    batches = [torch.tensor(1.0), torch.tensor(-1.0), torch.tensor(3.0)]
    rows = evaluate(Skips(), None, batches, CPU, {})
    seen, found = drain(rows)
    assert seen == [1, 1, 2]
    assert (found.loss, found.samples) == ((2.0 + 6.0) / 2, 2)


def test_the_batches_of_an_evaluation_are_numbered():
    class SkipsByNumber(Module):
        def training_step(self, batch, batch_idx):
            return self.w * batch if batch_idx != 1 else None

    model = SkipsByNumber()
    _, step = stepping(model)
    batches = [torch.tensor(float(i)) for i in range(3)]
    [next(placed(model, iter([[batches[1]]]), batch=7))]  # a training is at its batch 7
    assert losses(model, None, batches, CPU) == [0.0, None, 4.0]
    _, found = drain(evaluate(model, None, batches, CPU, {}))
    assert (found.loss, found.samples) == ((0.0 + 4.0) / 2, 2)
    model.train()
    step([batches[2]], 0.0)
    assert model._lrtool_trainer.batch_idx == 8
    with pytest.raises(UserError, match="returned None for every batch"):
        losses(Skips(), None, [torch.tensor(-1.0)], CPU)


def test_its_own_hooks_change_the_batch_once():
    class Scales(Module):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            return batch + dataloader_idx + 1

        def transfer_batch_to_device(self, batch, device, dataloader_idx):
            assert device == torch.device("cpu")
            return batch * 10

        def on_after_batch_transfer(self, batch, dataloader_idx):
            return batch + 5

    model = Scales()
    _, step = stepping(model)
    assert step([torch.ones(())], 0.1).loss.item() == 2.0 * ((1 + 1) * 10 + 5)
    assert is_own(model, "on_after_batch_transfer")
    assert not is_own(Module(), "on_after_batch_transfer")


def test_hooks_that_only_a_trainer_calls():
    class Moves(Module):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            """Move a target network."""

        def optimizer_step(self, *args):
            """Clip, say."""

    warn_of_hooks(Module())  # those of Lightning's own class do nothing
    with pytest.warns(LrtoolWarning) as caught:
        warn_of_hooks(Moves())
    assert str(caught[0].message) == (
        "optimizer_step, on_train_batch_end of Moves will not be called: there is no Lightning "
        "Trainer here"
    )


def test_a_module_that_makes_its_updates_itself():
    model = Module()
    model.automatic_optimization = False
    with pytest.raises(UserError) as caught:
        stepping(model)
    assert str(caught.value).startswith(
        "Module makes its updates itself (automatic_optimization is False), so nothing is known "
    )


def test_the_optimizers_in_what_configure_optimizers_returns():
    one = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    other = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(one, 1)
    for given in (
        one,
        [one],
        (one,),
        {"optimizer": one},
        {"optimizer": one, "lr_scheduler": {"scheduler": schedule, "interval": "step"}},
        ([one], [schedule]),
        ([one], [{"scheduler": schedule}]),
        [{"optimizer": one}],
        ({"optimizer": one, "frequency": 1},),
    ):
        assert optimizers_in(given) == [one]
    assert optimizers_in([one, other]) == [one, other]
    assert optimizers_in(({"optimizer": one}, {"optimizer": other})) == [one, other]
    for given in (None, [], torch.optim.SGD, {"lr_scheduler": schedule}, math.pi):
        assert optimizers_in(given) == []
