"""`lrtool init`: the example configurations, copied from the wheel or from the repository."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer

from lrtool.cli import flags
from lrtool.cli.streams import result
from lrtool.errors import UserError, did_you_mean
from lrtool.report.files import whole_file

# A configuration's companions lie beside it and carry its name.
COMPANIONS = (".csv", ".py", ".txt")


def init(
    name: Annotated[
        str | None, typer.Argument(help="An example's name, such as digits; without it, a list.")
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Directory to write to.", callback=flags.in_home),
    ] = Path(),
    overwrite: flags.Overwrite = False,
) -> None:
    """Write a commented configuration to start from."""
    if name is None:
        from lrtool.show.terminal.console import print_rows

        print_rows([{"name": name, "about": about(name)} for name in names()])
        return
    for path in copy(name, output, overwrite=overwrite):
        result(path)


def directory() -> Path:
    """Return the directory of the examples."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """Return the names of all examples, the simplest first."""
    examples = (path.stem for path in directory().glob("*.yaml"))
    return sorted(examples, key=lambda name: (name != "digits", name))


def about(name: str) -> str:
    """Return the first sentence of an example's comment."""
    lines = (directory() / f"{name}.yaml").read_text("utf-8").splitlines()
    comment = [line.removeprefix("#").strip() for line in takewhile(_is_comment, lines)]
    return re.split(r"(?<=[.?]) ", " ".join(comment))[0].rstrip(".")


def _is_comment(line: str) -> bool:
    return line.startswith("#")


def copy(name: str, target: Path, *, overwrite: bool) -> list[Path]:
    """Copy an example and its companions into the directory `target`; return what was written.

    Raises:
        UserError: no example has this name, a file exists already, or cannot be written.
    """
    name, known = name.removesuffix(".yaml"), names()
    if name not in known:
        raise UserError(
            f"no example is called {name!r}{did_you_mean(name, known)}; "
            f"there are {', '.join(known)}"
        )
    sources = [directory() / f"{name}{suffix}" for suffix in (".yaml", *COMPANIONS)]
    sources = [path for path in sources if path.exists()]
    targets = [target / path.name for path in sources]
    taken = [path for path in targets if path.exists()]
    if taken and not overwrite:
        raise UserError(f"{taken[0]}: exists already; add --overwrite to replace it")
    for source, path in zip(sources, targets, strict=True):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as file:  # a link is replaced, not what it leads to
                file.write(source.read_bytes())
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    return targets
