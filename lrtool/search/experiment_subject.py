"""A configuration as the subject of a search: model and optimizer are built for each start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lrtool.components.schedules import compressed_schedule, warms_up
from lrtool.config.document import located
from lrtool.curve import verdict
from lrtool.data import batches
from lrtool.data.part import OwnLoader
from lrtool.engine.randomness import seed_everything
from lrtool.engine.sweep import make_probe
from lrtool.experiment.experiment import (
    build,
    rewind_generators,
    samples_per_update,
    step_of,
    steps_per_epoch,
    training_steps,
)
from lrtool.search.parallel import alone, parallel_of
from lrtool.search.search import SearchPlan
from lrtool.search.subject import Trainee

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from lrtool.components.schedules import Schedule
    from lrtool.experiment.experiment import Experiment

PROBE_SAMPLES = 512


def plan_of(experiment: Experiment) -> SearchPlan:
    """Return the settings of a configuration's search."""
    config, data = experiment.config, experiment.data
    find = config.find
    followed = {
        verdict.WARMUP: warms_up(config.train.schedule),
        verdict.VALIDATION: data.validation is not None,
        verdict.FULL_BATCH: data.batch_size == data.samples["train"],
    }
    return SearchPlan(
        start=find.start,
        end=find.end,
        steps=find.steps,
        mode=find.mode,
        repeats=find.repeats,
        method=find.method,
        verify=find.verify,
        schedule=config.train.schedule.name,
        training=training_steps(experiment),
        passes=_passes(experiment),
        parallel=parallel_of(experiment),
        followed=frozenset(what for what, is_so in followed.items() if is_so),
    )


def _passes(experiment: Experiment) -> float | None:
    training, epoch = training_steps(experiment), steps_per_epoch(experiment)
    return training / epoch if training and epoch else None


class ExperimentSubject:
    """A configuration and all that it names."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.runtime = experiment.runtime
        self.has_end = training_steps(experiment) is not None

    def alone(self) -> ExperimentSubject:
        """Return the configuration as one process trains it."""
        return ExperimentSubject(alone(self.experiment))

    def samples(self) -> int:
        """Return the samples of an update."""
        return samples_per_update(self.experiment)

    def seed(self, attempt: int) -> int:
        """Return the seed of weights and data order.

        It is the run's own for the first sweep, then one that no other run uses.
        """
        seed = self.experiment.config.seed
        if attempt == 0:
            return seed
        return int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])

    def fresh(self, attempt: int) -> Trainee:
        """Build the model from the attempt's seed."""
        experiment, seed = self.experiment, self.seed(attempt)
        built = build(experiment, seed)
        generators = rewind_generators(experiment)
        if 0 < attempt < experiment.config.find.repeats:  # each sweep over other batches
            for generator in generators:
                generator.manual_seed(seed)
        step = step_of(experiment, built, experiment.runtime.scaler(), self.runtime.ranks)
        return Trainee(built.model, built.loss_fn, built.optimizer, step, generators)

    def rest(self) -> Callable[[], None]:
        """Return a function that does nothing: each trainee has a model of its own."""
        return lambda: None

    def batches(self, attempt: int, epoch: int, skip: int) -> Iterator[Sequence[Any]]:
        """Return the batches of each update of an epoch, ordered by the attempt's seed."""
        experiment = self.experiment
        made = batches.epoch(
            experiment.data.train,
            batch_size=experiment.data.batch_size,
            seed=self.seed(attempt),
            epoch=epoch,
            device=experiment.runtime.device,
            skip=skip,
            ranks=experiment.runtime.ranks,
        )
        groups = batches.micro_batches(made, experiment.config.train.accumulate)
        return groups if skip else batches.some(groups, epoch)

    def held_out(self, most: int, *, whole: bool = False) -> list[Any] | None:
        """Return random chunks of the validation set, or whole batches.

        They do not depend on what was drawn before: every rank measures its candidates on the same.
        """
        part, experiment = self.experiment.data.validation, self.experiment
        if part is None:
            return None
        seed_everything(experiment.config.seed)
        rewind_generators(experiment)
        if isinstance(part, OwnLoader) and not whole:
            device = experiment.runtime.device
            return batches.held_out(part.loader, most, device, part.conversion) or None
        count = most if part.size is None else min(part.size, most)
        made = batches.epoch(
            part,
            batch_size=experiment.data.batch_size if whole else batches.chunk_size(count),
            seed=experiment.config.seed,
            epoch=0,
            device=experiment.runtime.device,
        )
        return batches.at_least(made, most) or None

    def schedule(self, steps: int) -> Schedule:
        """Return the configuration's schedule, compressed to so many steps."""
        experiment = self.experiment
        with located(experiment.document):
            return compressed_schedule(
                experiment.config.train.schedule,
                training_steps=training_steps(experiment),
                steps_per_epoch=steps_per_epoch(experiment),
                steps=steps,
            )

    def probe(self, trainee: Trainee) -> Callable[[], torch.Tensor] | None:
        """Return a probe over random validation samples, the same for all sweeps."""
        experiment = self.experiment
        if experiment.config.find.loss != "probe":
            return None
        assert experiment.data.validation is not None, "the preflight refuses a probe of nothing"
        samples = batches.epoch(
            experiment.data.validation,
            batch_size=PROBE_SAMPLES,
            seed=experiment.config.seed,
            epoch=0,
            device=experiment.runtime.device,
        )
        return make_probe(trainee.model, trainee.loss_fn, next(samples), experiment.runtime)
