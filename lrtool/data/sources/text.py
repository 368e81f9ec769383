"""Plain text, as characters."""
# ruff: noqa: TC001  (annotations are evaluated, to check data.args)

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lrtool.data.encoding import CharacterInputs, ClassIndices, code_points, of_kind
from lrtool.data.input_files import find_file, read_text
from lrtool.data.samples import Parts, Samples
from lrtool.data.split import Split
from lrtool.errors import ConfigError, DataError, Problem

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def text(split: Split, *, path: str, context: int = 64) -> Parts:
    """Characters of a UTF-8 text, to predict the next one.

    A sample is a window of `context` characters; its targets are the window one character later.
    Windows do not overlap. The validation set is the end of the text, or another file if
    `data.validation` is a path. The tokens are the characters of the training set in code-point
    order, and one more for all characters unseen there. It is never a training target, so such
    characters have a high loss.

    Args:
        split: how to split; a fraction or a number of windows.
        path: the text.
        context: the number of characters in a window.

    Raises:
        DataError: the text is not UTF-8, or too short for a window.
        ConfigError: `context` is below 1, or training or validation set would be empty.
    """
    if context < 1:
        problem = f"must be at least 1, not {context}"
        raise ConfigError(Problem(("data", "args", "context"), problem))
    file = find_file(path, split.directories)
    codes = _codes(file, context)
    validation_codes = None
    if split.path is not None:
        validation_codes = _codes(find_file(split.path, split.directories), context)
    else:
        windows = (len(codes) - 1) // context
        held_out = split.size(windows, f"{file} (windows of {context} characters)")
        if held_out:
            # The last target of the training set is the first input of the validation set.
            end = (windows - held_out) * context
            codes, validation_codes = codes[: end + 1], codes[end:]
    if split.encoding is None:
        known = CharacterInputs("".join(map(chr, np.unique(codes).tolist())))
    else:
        known = of_kind(split.encoding, split.encoding.inputs, CharacterInputs)
    tokens = len(known.characters) + 1
    train = _windows(codes, known, context, warn=split.encoding is not None)
    return Parts(
        train=train,
        validation=None if validation_codes is None else _windows(validation_codes, known, context),
        learned=(known, ClassIndices(tokens)),
        num_outputs=tokens,
        vocabulary=tokens,
    )


def _codes(path: Path, context: int) -> NDArray[np.uint32]:
    """Return the code points of a text of at least one window."""
    content = read_text(path)
    if len(content) <= context:
        raise DataError(
            f"{path}: {len(content)} characters are too few for one window of data.args.context"
            f" {context} and the character after it"
        )
    return code_points(content)


def _windows(
    codes: NDArray[np.uint32], known: CharacterInputs, context: int, *, warn: bool = False
) -> Samples:
    """Cut into windows."""
    tokens = known.encode(codes, warn=warn)
    length = (len(tokens) - 1) // context * context
    return Samples(
        inputs=tokens[:length].reshape(-1, context),
        targets=tokens[1 : length + 1].reshape(-1, context),
    )
