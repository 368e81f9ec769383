"""Tasks that train what has learned before: all of it, a new head on it, or adapters in it.

Those of development and those of published cells share no classes, no part of the text and no
function that makes data.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional as F

from benchmarks.regret.data import (
    VOCABULARY,
    characters,
    digit_images,
    digits,
    fashion,
    friedman2,
    friedman3,
    made,
)
from benchmarks.regret.losses import sequence_loss
from benchmarks.regret.models import (
    VIT,
    CharGRU,
    CharTransformer,
    LayerNormMLP,
    cnn,
    mlp,
    residual_mlp,
    resnet,
)
from benchmarks.regret.pretrained import (
    Pretraining,
    adapted,
    backwards,
    classes,
    gratings,
    in_capitals,
    scores,
    tuned,
    under_new_head,
    verdicts,
    with_turned_vowels,
    without_spaces,
)
from benchmarks.regret.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from benchmarks.regret.data import Data


def _task(
    name: str,
    data: Callable[[], Data],
    model: Callable[[], nn.Module],
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    batch: int = 64,
    *,
    kind: str,
) -> Task:
    return Task(name, name, data, model, loss, batch, kind=kind)


_DIGITS_SEEN = Pretraining(
    "digits_mlp", partial(classes, digits, range(5)), partial(mlp, 64, 64, 64, 5)
)
_DIGIT_IMAGES_SEEN = Pretraining(
    "digits_cnn",
    partial(classes, digit_images, range(5, 10)),
    partial(cnn, 1, 8, (8, 16), outputs=5),
)
_DIGITS_RESNET_SEEN = Pretraining(
    "digits_resnet", partial(classes, digit_images, range(5)), partial(resnet, 1, 5, 5)
)
_GRATINGS = partial(made, gratings, 5000)
_GRATINGS_SEEN = Pretraining(
    "gratings_resnet", partial(classes, _GRATINGS, range(5)), partial(resnet, 1, 4, 5)
)
_SCORES_SEEN = Pretraining(
    "scores_mlp",
    partial(made, partial(scores, 0), 5000),
    partial(mlp, 16, 64, 64, 4, act=nn.GELU),
    F.mse_loss,
)
_DIGITS_VIT_SEEN = Pretraining(
    "digits_vit", partial(classes, digit_images, range(5, 10)), partial(VIT, 8, 2, 24, 5)
)
_VERDICTS_SEEN = Pretraining(
    "verdicts_layer_norm",
    partial(made, partial(verdicts, 0), 5000),
    partial(LayerNormMLP, 16, 64, 4, layers=3),
)
_TEXT_SEEN = Pretraining(
    "char_transformer",
    partial(characters, 0, 16, 4),
    partial(CharTransformer, VOCABULARY, 16, 32, 1),
    sequence_loss,
)
_LORA_CHARS = _task(
    "lora_char_transformer",
    partial(characters, 1, 16, 4, with_turned_vowels),
    partial(adapted, _TEXT_SEEN, 4, 8),
    sequence_loss,
    16,
    kind="lora",
)

DEVELOPMENT = [
    _task(
        "tuned_digits_mlp",
        partial(classes, digits, range(5, 10)),
        partial(tuned, _DIGITS_SEEN, new_head=True),
        batch=32,
        kind="fine-tuning",
    ),
    _task(
        "tuned_digits_cnn",
        partial(classes, digit_images, range(5), 300),
        partial(tuned, _DIGIT_IMAGES_SEEN, new_head=True),
        batch=32,
        kind="fine-tuning",
    ),
    _task(
        "tuned_gratings_resnet",
        partial(classes, _GRATINGS, range(5, 10), 1000),
        partial(tuned, _GRATINGS_SEEN, new_head=True),
        kind="fine-tuning",
    ),
    _task(
        "tuned_scores_mlp",
        partial(made, partial(scores, 1), 1000),
        partial(tuned, _SCORES_SEEN, new_head=False),
        F.mse_loss,
        kind="fine-tuning",
    ),
    _task(
        "tuned_char_transformer",
        partial(characters, 1, 16, 4, backwards),
        partial(tuned, _TEXT_SEEN, new_head=False),
        sequence_loss,
        16,
        kind="fine-tuning",
    ),
    _task(
        "head_digits_cnn",
        partial(classes, digit_images, range(5)),
        partial(under_new_head, _DIGIT_IMAGES_SEEN),
        batch=32,
        kind="head",
    ),
    _task(
        "head_gratings_resnet",
        partial(classes, _GRATINGS, range(5, 10), 1000),
        partial(under_new_head, _GRATINGS_SEEN),
        kind="head",
    ),
    _task(
        "head_verdicts",
        partial(made, partial(verdicts, 1), 1000),
        partial(under_new_head, _VERDICTS_SEEN),
        kind="head",
    ),
    _task(
        "head_digits_resnet",
        partial(classes, digit_images, range(5, 10)),
        partial(under_new_head, _DIGITS_RESNET_SEEN),
        batch=32,
        kind="head",
    ),
    _task(
        "head_digits_vit",
        partial(classes, digit_images, range(5)),
        partial(under_new_head, _DIGITS_VIT_SEEN),
        batch=32,
        kind="head",
    ),
    _LORA_CHARS,
    replace(
        _LORA_CHARS, name="lora_char_transformer_r64", model=partial(adapted, _TEXT_SEEN, 64, 16)
    ),
    _task(
        "lora_digits_mlp",
        partial(classes, digits, range(5, 10)),
        partial(adapted, _DIGITS_SEEN, 4, 4, new_head=True),
        batch=32,
        kind="lora",
    ),
    _task(
        "lora_verdicts",
        partial(made, partial(verdicts, 1), 2000),
        partial(adapted, _VERDICTS_SEEN, 64, 64),
        kind="lora",
    ),
]

_FLAT_CLOTHES, _CLOTHES = partial(fashion, 14, flat=True), partial(fashion, 14)
_CLOTHES_SEEN = partial(classes, _CLOTHES, range(5))
_CNN_SEEN = Pretraining("fashion_cnn", _CLOTHES_SEEN, partial(cnn, 1, 14, (8, 16), outputs=5))
_RESNET_SEEN = Pretraining("fashion_resnet", _CLOTHES_SEEN, partial(resnet, 1, 6, 5))
_VIT_SEEN = Pretraining("fashion_vit", _CLOTHES_SEEN, partial(VIT, 14, 7, 32, 5))
_RESIDUAL_SEEN = Pretraining(
    "fashion_resmlp",
    partial(classes, _FLAT_CLOTHES, range(5)),
    partial(residual_mlp, 196, 48, 5, blocks=2),
)
_FRIEDMAN2_SEEN = Pretraining(
    "friedman2", friedman2, partial(mlp, 4, 64, 64, 1, act=nn.Tanh), F.mse_loss
)
_THIRD_QUARTER = partial(characters, 2, 16, 4)
_GRU_SEEN = Pretraining("char_gru", _THIRD_QUARTER, partial(CharGRU, VOCABULARY, 48), sequence_loss)
_GPT_SEEN = Pretraining(
    "char_gpt", _THIRD_QUARTER, partial(CharTransformer, VOCABULARY, 16, 40, 1), sequence_loss
)
_LORA_WORDS = _task(
    "lora_gpt",
    partial(characters, 3, 16, 4, without_spaces),
    partial(adapted, _GPT_SEEN, 4, 8),
    sequence_loss,
    16,
    kind="lora",
)

PUBLISHED = [
    _task(
        "tuned_fashion_cnn",
        partial(classes, _CLOTHES, range(5, 10), 300),
        partial(tuned, _CNN_SEEN, new_head=True),
        batch=32,
        kind="fine-tuning",
    ),
    _task(
        "tuned_fashion_resnet",
        partial(classes, _CLOTHES, range(5, 10), 1000),
        partial(tuned, _RESNET_SEEN, new_head=True),
        kind="fine-tuning",
    ),
    _task(
        "tuned_fashion_vit",
        partial(classes, _CLOTHES, range(5, 10), 1000),
        partial(tuned, _VIT_SEEN, new_head=True),
        batch=32,
        kind="fine-tuning",
    ),
    _task(
        "tuned_friedman3",
        partial(friedman3, 1000),
        partial(tuned, _FRIEDMAN2_SEEN, new_head=False),
        F.mse_loss,
        kind="fine-tuning",
    ),
    _task(
        "tuned_char_gru",
        partial(characters, 3, 16, 4, in_capitals),
        partial(tuned, _GRU_SEEN, new_head=False),
        sequence_loss,
        16,
        kind="fine-tuning",
    ),
    _task(
        "head_fashion_resnet",
        partial(classes, _CLOTHES, range(5, 10), 1000),
        partial(under_new_head, _RESNET_SEEN),
        kind="head",
    ),
    _task(
        "head_fashion_resmlp",
        partial(classes, _FLAT_CLOTHES, range(5, 10)),
        partial(under_new_head, _RESIDUAL_SEEN),
        kind="head",
    ),
    _LORA_WORDS,
    replace(_LORA_WORDS, name="lora_gpt_r64", model=partial(adapted, _GPT_SEEN, 64, 16)),
    _task(
        "lora_fashion_vit",
        partial(classes, _CLOTHES, range(5, 10), 1000),
        partial(adapted, _VIT_SEEN, 4, 4, new_head=True),
        batch=32,
        kind="lora",
    ),
    _task(
        "lora_fashion_resmlp",
        partial(classes, _FLAT_CLOTHES, range(5, 10), 1000),
        partial(adapted, _RESIDUAL_SEEN, 64, 64, new_head=True),
        kind="lora",
    ),
]
