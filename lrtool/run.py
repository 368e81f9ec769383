"""What each command does with a configuration, from top to bottom."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from itertools import groupby
from math import isfinite
from typing import TYPE_CHECKING, Any

from lrtool import __version__, files
from lrtool import document as documents
from lrtool.curve.suggest import suggest
from lrtool.engine import runtime as runtimes
from lrtool.engine.stopwatch import Stopwatch
from lrtool.engine.sweep import sweep, sweep_rates, to_sweep
from lrtool.errors import InterruptedRunError
from lrtool.failure import concluded
from lrtool.show import plot
from lrtool.show import report as reports
from lrtool.task import (
    Task,
    build,
    open_task,
    probe_of,
    repeat_seed,
    resolved,
    rewound,
    step_of,
    training_steps,
    updates,
)
from lrtool.trial import FirstBatch, try_one_batch, try_training

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from lrtool.config import Config
    from lrtool.document import Document
    from lrtool.records import SweepRow
    from lrtool.show.report import Report, Status


def find(task: Task, first: FirstBatch, directory: Path) -> Generator[SweepRow | Report]:
    """Sweep, then suggest a rate: yields each row, and the report last.

    Whoever pulls may throw `InterruptedRunError` into it: the sweeps end there, and the report of
    what there is follows. Everything is in `directory` when the report is yielded.

    Raises:
        UserError, OutOfMemoryError: from a step; a report with status `failed` has been written.
    """
    files.write_text(directory / "config.yaml", documents.dump(resolved(task)))
    watch = Stopwatch(task.started)
    rows: list[SweepRow] = []

    def conclude(status: Status | None, reason: str | None = None) -> Report:
        report = _report(task, first, rows, watch, status=status, reason=reason)
        reports.write(report, directory)
        plot.save(report, directory)
        return report

    try:
        with (directory / "metrics.jsonl").open("w", buffering=1) as log:
            for row in _sweeps(task, watch):
                log.write(json.dumps(_finite(asdict(row))) + "\n")
                rows.append(row)
                yield row
    except InterruptedRunError as stop:
        yield conclude("interrupted", str(stop))
        return
    except GeneratorExit:
        conclude("interrupted", "closed before the last step")
        raise
    except (Exception, SystemExit) as error:
        raise concluded(task, error, partial(conclude, "failed")) from error
    yield conclude(None)


def _sweeps(task: Task, watch: Stopwatch) -> Iterator[SweepRow]:
    """Yield the rows of all repeats, each with weights and data order from a seed of its own."""
    find, runtime = task.config.find, task.runtime
    rates = sweep_rates(find.start, find.end, find.steps, find.mode)
    rewound(task)
    for repeat in range(find.repeats):
        seed = repeat_seed(task.config.seed, repeat)
        built = build(task, seed)
        probe = probe_of(task, built) if find.loss == "probe" else None
        step = watch.counted(step_of(task, built, runtime.scaler()))
        rows = sweep(step, updates(task, seed), rates, repeat=repeat, probe=probe)
        yield from watch.timed(rows)
        runtimes.synchronize(runtime.device)


def _report(
    task: Task,
    first: FirstBatch,
    rows: Sequence[SweepRow],
    watch: Stopwatch,
    *,
    status: Status | None,
    reason: str | None,
) -> Report:
    """Put together what there is; without a status, the suggestion decides it."""
    config = task.config
    sweeps = [
        to_sweep(list(group), seed=repeat_seed(config.seed, repeat), planned=config.find.steps)
        for repeat, group in groupby(rows, key=lambda row: row.repeat)
    ]
    if status == "failed":
        finding = None
    else:
        finding = suggest(
            sweeps,
            method=config.find.method,
            optimizer=first.optimizer,
            family=first.family,
            schedule=config.train.schedule.name,
            steps=training_steps(task),
        )
        found: Status = "no_suggestion" if finding.suggestion.lr is None else "completed"
        status = status or found
    return reports.from_finding(
        finding,
        sweeps,
        status=status,
        reason=reason,
        timing=reports.Timing(**watch.timing()),
        **facts(task, first),
    )


def facts(task: Task, first: FirstBatch) -> dict[str, Any]:
    """Return what the reports of all commands say alike: what was computed, and where."""
    config, data = task.config, task.data
    return {
        "config": resolved(task),
        "config_hash": config.digest(),
        "seed": config.seed,
        "data": reports.Data(
            samples={k: n for k, n in data.samples.items() if n is not None},
            shapes=data.shapes,
            hash=data.digest,
        ),
        "model": reports.Model(
            name=config.model.name, parameters=first.parameters, trainable=first.trainable
        ),
        "environment": reports.Environment(
            lrtool=__version__, **runtimes.environment(task.runtime.device)
        ),
    }


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN: null, and the sweep's stop_reason says which it was."""
    return {k: None if isinstance(v, float) and not isfinite(v) else v for k, v in row.items()}


def check(config: Config, document: Document) -> dict[str, Any]:
    """Build what the configuration names, send one batch through, and return the facts.

    Raises:
        UserError, OutOfMemoryError: something does not fit, in words.
    """
    task = open_task(config, document)
    first = try_one_batch(task)
    try_training(task)
    return {
        "config": document.name,
        "config_hash": config.digest(),
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
