"""The flags that several commands share, and reading a configuration with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lrtool.cli import completion
from lrtool.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lrtool.config.document import Document
    from lrtool.config.schema import Config
    from lrtool.report.report import Status

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file.")]
Run = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="A run, by directory or name.", autocompletion=completion.run_names
    ),
]
Training = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="A training, by directory or name.",
        autocompletion=completion.training_names,
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as train.epochs=3."),
]
Json = Annotated[bool, typer.Option("--json", help="Nothing but JSON on stdout.")]
Open = Annotated[bool, typer.Option("--open", help="Open the page in a browser.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")]


def in_home(path: Path | None) -> Path | None:
    """Replace `~` by the home directory: a shell leaves it as it is in `--output=~/runs`."""
    if path is None:
        return None
    found = os.path.expanduser(path)  # noqa: PTH111  (Path's own raises where there is no such user)
    if found.startswith("~"):
        raise typer.BadParameter(f"{path}: there is no user of that name; ./{path} names a folder")
    if any(0xD800 <= ord(character) < 0xE000 for character in found):  # as Python holds such bytes
        raise typer.BadParameter("the name is not UTF-8, which torch and a report need")
    return Path(found)


Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Run directory; a new one under runs/ otherwise.",
        callback=in_home,
    ),
]


def _checked_name(name: str | None) -> str | None:
    """Refuse what is no name of a run."""
    if name is not None:
        from lrtool.report.runs import problem_of_name

        if problem := problem_of_name(name):
            raise typer.BadParameter(problem)
    return name


Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        help="Name of the run, which is then runs/CONFIG/NAME; other commands know it by that.",
        callback=_checked_name,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Loss = Annotated[str | None, typer.Option(help="Name or import path; see `lrtool list losses`.")]
OptimizerName = Annotated[str | None, typer.Option("--optimizer", help="Name or import path.")]
BatchSize = Annotated[str | None, typer.Option(help="Samples in a batch, or full.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")]
Seed = Annotated[int | None, typer.Option(help="Seed of weights and data order.")]
Verify = Annotated[
    bool | None,
    typer.Option(
        "--verify/--no-verify",
        help="Race rates around the suggestion, or not; find.verify otherwise.",
    ),
]


def common(
    loss: str | None,
    optimizer: str | None,
    batch_size: str | None,
    device: str | None,
    seed: int | None,
) -> dict[str, tuple[str, Any]]:
    """Return key and value for each flag that `find`, `train` and `check` share.

    The value is None where the flag is not given.
    """
    from lrtool.config.document import plain_scalar

    if batch_size is not None and plain_scalar(batch_size) in {None, ""}:
        raise UserError("--batch-size: must be a whole number of at least 1, or full, not null")
    return {
        "--loss": ("loss", loss),
        "--optimizer": ("optimizer", optimizer),
        "--batch-size": ("data.batch_size", batch_size and plain_scalar(batch_size)),
        "--device": ("runtime.device", device),
        "--seed": ("seed", seed),
    }


def read(
    config: Path, sets: Sequence[str] | None, flags: Mapping[str, tuple[str, Any]]
) -> tuple[Config, Document]:
    """Read a configuration with what `--set` and the other flags change in it.

    Raises:
        ConfigError: every problem in it.
    """
    from lrtool.config.document import Override
    from lrtool.experiment.reading import read_config

    overrides = [
        Override(flag, tuple(key.split(".")), value)
        for flag, (key, value) in flags.items()
        if value is not None
    ]
    return read_config(config, sets or [], overrides)


def repeatable(
    config: Path, directory: Path, sets: Sequence[str] | None, flags: Mapping[str, tuple[str, Any]]
) -> Path:
    """Return the configuration that repeats a run: the given one, or with flags the run's own."""
    changed = sets or any(value is not None for _, value in flags.values())
    return directory / "config.yaml" if changed else config


def runs_of(document: Document) -> Path:
    """Return the directory of a configuration's runs without `--output`.

    The copy in a run `runs/NAME/RUN` belongs to `runs/NAME`, as that run does.
    """
    from lrtool.report import marker
    from lrtool.report.runs import RUNS

    path = Path(document.name)
    own = path.name == marker.CONFIG and marker.read(path.parent) is not None
    within = path.absolute().parent.parent
    return RUNS / (within.name if own and within.parent == RUNS.absolute() else path.stem)


def refuse_both(output: Path | None, name: str | None) -> None:
    """Refuse `--output` beside `--name`: each says where the run is.

    Raises:
        BadParameter: both are given.
    """
    if output is not None and name is not None:
        raise typer.BadParameter("--output and --name contradict each other; give one of them")


def directory_of(output: Path | None, name: str | None, document: Document) -> Path | None:
    """Return the run directory that `--output` or `--name` says; None for a new one."""
    return output if name is None else runs_of(document) / name


def finished(run: Path, status: Status) -> Path:
    """Give a run that has ended its place, and return its directory; an interrupted one waits.

    Raises:
        UserError, OSError: as `run_directory.finish`.
    """
    from lrtool.report import run_directory

    return run if status == "interrupted" else run_directory.finish(run)
