"""Loaders that know their place: those with `state_dict()` and `load_state_dict()`.

Such as torchdata's StatefulDataLoader. A training that is resumed puts their state back, instead of
going through the batches that it has seen.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from lrtool.data.part import Batches, OwnLoader
from lrtool.data.workers import words
from lrtool.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lrtool.data.part import Part


def stateful(part: Part | None) -> Any:
    """Return the user's loader if it has a state that can be put back; else None."""
    if not isinstance(part, OwnLoader):
        return None
    dataset = part.loader.dataset
    loader: Any = dataset.loader if isinstance(dataset, Batches) else part.loader
    names = ("state_dict", "load_state_dict")
    return loader if all(callable(getattr(loader, name, None)) for name in names) else None


def state_of(part: Part | None) -> Any:
    """Return a copy of the state of the user's loader; None without one.

    Raises:
        DataError: the loader's own method fails.
    """
    loader = stateful(part)
    try:
        return None if loader is None else copy.deepcopy(loader.state_dict())
    except Exception as error:
        raise _failed(loader, "state_dict", error) from error


def put_back(part: Part | None, state: Any) -> None:
    """Put a state back, so that the loader's next pass goes on from there; None: do nothing.

    Raises:
        DataError: the loader's own method fails.
    """
    loader = stateful(part)
    if state is None or loader is None:
        return
    try:
        loader.load_state_dict(copy.deepcopy(state))
    except Exception as error:
        raise _failed(loader, "load_state_dict", error) from error


def start_of(part: Part | None) -> Any:
    """Return the state of a loader of the user's own kind, before anything is read; None else.

    Each pass of a DataLoader begins anew, so it need not be put back to its start.
    """
    return None if isinstance(stateful(part), DataLoader) else state_of(part)


def end_of(part: Part | None) -> Any:
    """Return the state of a loader at the end of a pass, where the next one depends on it.

    A DataLoader's next pass does so only by its dataset: all else are random states.
    """
    loader = stateful(part)
    if isinstance(loader, DataLoader) and not hasattr(loader.dataset, "state_dict"):
        return None
    return state_of(part)


def new_pass(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield the batches of a pass after one whose end was put back.

    A loader may first end the pass before, without a batch.
    """
    empty = True
    for batch in loader:
        empty = False
        yield batch
    if empty:
        yield from loader


def _failed(loader: Any, method: str, error: Exception) -> DataError:
    return DataError(f"{method}() of the loader {type(loader).__name__} raised {words(error)}")
