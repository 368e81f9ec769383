"""A configuration file read and checked as a whole, before any data is read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lrtool.components.check import check
from lrtool.components.import_path import is_import_path
from lrtool.components.metrics import higher_is_better, key
from lrtool.config.document import read
from lrtool.config.problems import sound_part, validate
from lrtool.data.sources import SOURCES
from lrtool.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lrtool.config.document import Document, Override
    from lrtool.config.schema import Config


def read_config(
    path: Path, sets: Sequence[str] = (), flags: Sequence[Override] = ()
) -> tuple[Config, Document]:
    """Read a configuration and check all of it, before any data is read.

    Args:
        path: the YAML file.
        sets: `key.path=value`, typed as in the file.
        flags: values from other flags; that of `--loss` or `--optimizer` is a name.

    Raises:
        ConfigError: with every problem of the file and of the command line.
    """
    names = [flag for flag in flags if flag.path in {("loss",), ("optimizer",)}]
    document = read(path, sets, [flag for flag in flags if flag not in names], names)
    config, problems = validate(document.data)
    to_check = config or sound_part(document.data)
    problems += check(to_check, SOURCES, directories_of(to_check, document))
    if config is None or problems:
        raise ConfigError(*map(document.locate, problems))
    return _with_direction(config, directories_of(config, document)), document


def _with_direction(config: Config, directories: Sequence[Path]) -> Config:
    """Set the mode of early stopping where it is `auto` and the metric is the user's own."""
    stopping = config.train.early_stopping
    own = {key(name): name for name in config.metrics if is_import_path(name)}
    if stopping is None or stopping.mode != "auto" or stopping.metric not in own:
        return config
    mode = "max" if higher_is_better(own[stopping.metric], directories) else "min"
    stopping = stopping.model_copy(update={"mode": mode})
    train = config.train.model_copy(update={"early_stopping": stopping})
    return config.model_copy(update={"train": train})


def directories_of(config: Config, document: Document) -> tuple[Path, ...]:
    """Return the directories to look for data files and modules in, in order."""
    own = Path(document.name).resolve().parent
    extra = [os.path.expanduser(path) for path in config.search_path]  # noqa: PTH111  (as in `find_file`)
    return (own, *map(Path, extra), Path.cwd())


def inputs_of(config: Config, document: Document) -> list[Path]:
    """Return the files and directories that a configuration reads, itself included."""
    search_path = [Path(os.path.expanduser(path)) for path in config.search_path]  # noqa: PTH111  (as above)
    texts = [*_texts(config.data.args), *_texts(config.data.validation)]
    texts += _texts(config.model.checkpoint)
    places = [Path(os.path.expanduser(text)) for text in texts]  # noqa: PTH111  (as above)
    data = [folder / place for place in places for folder in directories_of(config, document)]
    found = [path for path in data if os.path.exists(path)]  # noqa: PTH110  (Path's may raise)
    return [Path(document.name), *search_path, *found]


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
