"""`lrtool check`: everything that a configuration names is built and tried on one batch."""

from __future__ import annotations

import json
from math import isfinite

import typer

from lrtool.cli import flags
from lrtool.cli.streams import stdout_for_the_result
from lrtool.engine.dynamo import without_dynamo


def check(
    config: flags.ConfigFile,
    sets: flags.Sets = None,
    loss: flags.Loss = None,
    optimizer: flags.OptimizerName = None,
    batch_size: flags.BatchSize = None,
    device: flags.Device = None,
    seed: flags.Seed = None,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
) -> None:
    """Validate, build, and send one batch through: shapes and parameter counts."""
    given = flags.common(loss, optimizer, batch_size, device, seed)
    with stdout_for_the_result(), without_dynamo():
        from lrtool.experiment.experiment import open_task, training_steps
        from lrtool.experiment.preflight import try_one_batch, try_training

        settings, document = flags.read(config, sets, given)
        task = open_task(settings, document)
        first = try_one_batch(task)
        try_training(task)
        facts = {
            "config": document.name,
            "config_hash": settings.digest(),
            "device": str(task.runtime.device),
            "samples": task.data.samples,
            "batch_size": task.data.batch_size,
            "inputs": first.inputs,
            "targets": first.targets,
            "outputs": first.outputs,
            "loss": first.loss if isfinite(first.loss) else None,
            "parameters": first.parameters,
            "trainable": first.trainable,
            "training_steps": training_steps(task),
        }
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    elif not quiet:
        from lrtool.show.terminal.find import print_facts

        print_facts(facts)
