"""A configuration file read and judged as a whole, and the places of what goes wrong later."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrtool.components import check as components
from lrtool.components.import_path import is_import_path
from lrtool.components.metrics import higher_is_better, key
from lrtool.config import document as documents
from lrtool.config import schema as configs
from lrtool.config.spelling import number
from lrtool.data.sources import SOURCES
from lrtool.errors import ComponentError, ConfigError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lrtool.config.document import Document, Override
    from lrtool.config.schema import Config


def read_config(
    path: Path, sets: Sequence[str] = (), flags: Sequence[Override] = ()
) -> tuple[Config, Document]:
    """Read a configuration and judge all of it, before any data is read.

    Args:
        path: the YAML file.
        sets: `key.path=value`, typed as in the file.
        flags: values from other flags; one for a whole component is its name.

    Raises:
        ConfigError: with every problem of the file and of the command line.
    """
    names = [flag for flag in flags if flag.path in {("loss",), ("optimizer",)}]
    document = documents.read(path, sets, [flag for flag in flags if flag not in names], names)
    config, lines = configs.validate(document)
    judged = config or configs.components(document.data)
    problems = components.check(judged, SOURCES, directories_of(judged, document))
    lines += [f"{document.locate(p.path, at_key=p.at_key)}: {p.message}" for p in problems]
    if config is None or lines:
        raise ConfigError(sorted(lines, key=_line_and_column))
    return _with_direction(config, directories_of(config, document)), document


def _with_direction(config: Config, directories: Sequence[Path]) -> Config:
    """Write down which way a user's own metric is better, where early stopping asks it."""
    stopping = config.train.early_stopping
    own = {key(name): name for name in config.metrics if is_import_path(name)}
    if stopping is None or stopping.mode != "auto" or stopping.metric not in own:
        return config
    mode = "max" if higher_is_better(own[stopping.metric], directories) else "min"
    stopping = stopping.model_copy(update={"mode": mode})
    train = config.train.model_copy(update={"early_stopping": stopping})
    return config.model_copy(update={"train": train})


def directories_of(config: Config, document: Document) -> tuple[Path, ...]:
    """Return where data files and modules are looked for, in this order."""
    own = Path(document.name).resolve().parent
    return (own, *(Path(extra) for extra in config.search_path), Path.cwd())


@contextmanager
def located(document: Document) -> Iterator[None]:
    """Add file, line and column to problems with a key path, or that begin with one."""
    try:
        yield
    except ComponentError as error:
        lines = [f"{document.locate(p.path)}: {p.message}" for p in error.problems]
        raise ConfigError(lines) from error
    except ConfigError:
        raise
    except UserError as error:
        begins = re.match(r"((?:data|runtime)(?:\.\w+)+):? ", str(error))
        if begins is None:
            raise
        place = document.locate(tuple(begins[1].split(".")))
        raise ConfigError([f"{place}: {str(error)[begins.end() :]}"]) from error


def differences(
    before: Any, now: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, Any, Any]]:
    """Yield every key of two plain configurations whose values differ, dotted, with both."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in {**before, **now}:
            yield from differences(before.get(name), now.get(name), (*path, name))
    elif before != now:
        yield ".".join(path), before, now


def spell(value: Any) -> str:
    """Spell a configuration's value as the file does."""
    if isinstance(value, float):
        return number(value)
    return "null" if value is None else str(value)


def _line_and_column(problem: str) -> tuple[int, int]:
    """Sort problems as they stand in the file; those of the command line come first."""
    found = re.search(r":(\d+):(\d+): ", problem)
    return (int(found[1]), int(found[2])) if found else (0, 0)
