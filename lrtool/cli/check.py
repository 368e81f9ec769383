"""`lrtool check`: build everything that a configuration names, and try it on one batch."""

from __future__ import annotations

import json
from dataclasses import asdict
from math import isfinite

import typer

from lrtool.cli import flags
from lrtool.cli.streams import say_of_checkpoint, stdout_for_the_result
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
        from lrtool.experiment.experiment import open_experiment, training_steps
        from lrtool.experiment.preflight import run_preflight, run_training_preflight

        settings, document = flags.read(config, sets, given)
        experiment = open_experiment(settings, document)
        experiment, preflight = run_preflight(experiment)
        run_training_preflight(experiment, preflight)
        facts = {
            "config": document.name,
            "config_hash": experiment.config.digest(),
            "device": str(experiment.runtime.device),
            "samples": experiment.data.samples,
            "batch_size": experiment.data.batch_size,
            "inputs": preflight.inputs,
            "targets": preflight.targets,
            "outputs": preflight.outputs,
            "loss": preflight.loss if isfinite(preflight.loss) else None,
            "parameters": preflight.parameters,
            "trainable": preflight.trainable,
            "trained": preflight.trained,
            "frozen": preflight.frozen,
            "rates": [asdict(part) for part in preflight.rates],
            "checkpoint": preflight.checkpoint and asdict(preflight.checkpoint),
            "training_steps": training_steps(experiment),
        }
        columns = experiment.data.columns
        say_of_checkpoint(preflight.checkpoint)
    if as_json:
        facts["columns"] = [asdict(column) for column in columns]
        typer.echo(json.dumps(facts, indent=2))
    elif not quiet:
        from lrtool.show import words
        from lrtool.show.terminal.console import print_facts

        facts["trained"], facts["frozen"] = map(words.parts, (preflight.trained, preflight.frozen))
        facts["checkpoint"] = words.checkpoint(preflight.checkpoint)
        del facts["rates"]
        print_facts(facts, columns, preflight.rates)
