"""Which cells there are: task × optimizer × schedule × steps; development and published apart.

Constants are fitted on development cells. Published ones have other tasks, and RMSprop, Nesterov's
momentum, NAdam and Muon beside; two of these, RMSprop and Muon, resemble nothing in development.
The two `_NEW` sets are of other kinds of training (`Task.kind`) than from nothing on ample data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.regret import tasks

if TYPE_CHECKING:
    from benchmarks.regret.task import Task


@dataclass(frozen=True)
class Cell:
    """A training whose best rate is looked for."""

    task: str
    optimizer: str
    schedule: str
    steps: int

    @property
    def name(self) -> str:
        """Name the cell's file."""
        return f"{self.task}-{self.optimizer}-{self.schedule}-{self.steps}"


def _cells(names: list[str], optimizers: str, schedules: str, steps: int = 300) -> list[Cell]:
    return [
        Cell(task, optimizer, schedule, steps)
        for task in names
        for optimizer in optimizers.split()
        for schedule in schedules.split()
    ]


def _bases(found: list[Task]) -> list[str]:
    return [task.name for task in found if task.name == task.base]


def _breaking(found: list[Task]) -> list[str]:
    """Return the variants that break what a prior expects."""
    changed = [task.name for task in found if task.name != task.base]
    return [name for name in changed if not name.endswith("_large")]


DEVELOPMENT = [
    *_cells(_bases(tasks.DEVELOPMENT), "sgd_momentum adamw", "constant cosine one_cycle"),
    *_cells(_bases(tasks.DEVELOPMENT), "sgd adagrad lion", "constant cosine"),
    *_cells(_breaking(tasks.DEVELOPMENT), "sgd sgd_momentum adamw", "constant cosine"),
    *_cells(
        ["digits_mlp", "friedman1_large", "tabular_large", "denoising"],
        "sgd_momentum adamw",
        "constant cosine",
        steps=3000,
    ),
]

PUBLISHED = [
    *_cells(_bases(tasks.PUBLISHED), "nesterov adamw_decay", "constant cosine"),
    *_cells(
        [
            "digits_resmlp",
            "heteroscedastic",
            "friedman2",
            "deep_tanh",
            "autoencoder",
            "imbalanced",
            "counts",
            "stream",
        ],
        "rmsprop",
        "constant cosine",
    ),
    *_cells(["deep_tanh", "stream", "stream_wide_x8"], "muon", "constant cosine"),
    *_cells(["digits_resmlp", "heteroscedastic", "friedman2", "counts"], "sgd nadam", "one_cycle"),
    *_cells(
        [
            "digits_resmlp_inputs_x10",
            "heteroscedastic_loss_shifted",
            "heteroscedastic_init_x3",
            "fashion_linear_raw",
            "stream_wide_x8",
        ],
        "nesterov adamw_decay",
        "constant cosine",
    ),
    *_cells(["fashion_cnn_batch_8", "fashion_cnn_loss_x100"], "nesterov", "constant cosine"),
    *_cells(["digits_resmlp_batch_512"], "adamw_decay", "constant cosine"),
    *_cells(
        ["stream_large", "counts_large"], "nesterov adamw_decay", "constant cosine", steps=3000
    ),
    *_cells(["heteroscedastic_large"], "nesterov adamw_decay", "cosine", steps=3000),
    *_cells(["friedman2_large"], "nesterov adamw_decay", "constant", steps=3000),
]

QUICK = [
    Cell(task, optimizer, "cosine", 300)
    for task in ("heteroscedastic", "friedman2", "fashion_linear")
    for optimizer in ("nesterov", "adamw_decay")
]

DEVELOPMENT_NEW = [
    *_cells(
        ["tuned_digits_mlp", "tuned_digits_cnn", "tuned_scores_mlp", "tuned_char_transformer"],
        "adamw",
        "constant cosine",
    ),
    *_cells(["tuned_gratings_resnet"], "adamw", "constant cosine", steps=100),
    *_cells(["tuned_digits_mlp"], "adamw", "cosine", steps=1000),
    *_cells(["tuned_scores_mlp"], "sgd_momentum", "constant cosine"),
    *_cells(["tuned_scores_mlp"], "lion", "cosine"),
    *_cells(
        ["head_digits_cnn", "head_gratings_resnet", "head_verdicts"], "adamw", "constant cosine"
    ),
    *_cells(["head_verdicts"], "sgd_momentum", "constant cosine"),
    *_cells(["head_digits_resnet"], "sgd_momentum adamw", "constant cosine"),
    *_cells(["head_gratings_resnet", "head_digits_vit"], "sgd_momentum", "constant"),
    *_cells(["head_digits_vit"], "adamw", "cosine"),
    *_cells(
        ["lora_char_transformer", "lora_char_transformer_r64", "lora_digits_mlp", "lora_verdicts"],
        "adamw",
        "constant cosine",
    ),
    *_cells(["lora_verdicts"], "adam", "cosine"),
    *_cells(["lora_digits_mlp"], "sgd_momentum", "constant"),
    *_cells(["wine_12", "digits_60", "gunpoint_cnn", "rare_98_2"], "adamw", "constant cosine"),
    *_cells(["wine_12", "gunpoint_cnn"], "sgd_momentum", "cosine"),
    *_cells(["digits_60", "rare_98_2"], "sgd_momentum", "constant"),
    *_cells(["diabetes_100", "rare_90_8_2"], "adamw", "constant cosine"),
    *_cells(["tumours_40", "surface_30", "surface_60", "friedman_50"], "adamw", "constant cosine"),
    *_cells(["tumours_40", "surface_60"], "sgd_momentum", "constant"),
    *_cells(["surface_30", "friedman_50"], "sgd_momentum", "cosine"),
    *_cells(["surface_30"], "lion", "cosine"),
    *_cells(["appliances_cnn"], "adamw", "constant cosine"),
    *_cells(["appliances_cnn"], "sgd_momentum", "constant"),
    *_cells(["phrases"], "adamw", "constant cosine"),
    *_cells(["phrases"], "sgd_momentum", "constant"),
    *_cells(["head_digits_cnn"], "sgd_momentum", "constant cosine"),
    *_cells(["head_gratings_resnet"], "sgd_momentum", "cosine"),
    *_cells(["power_gru"], "adamw", "constant cosine", steps=200),
    *_cells(["vowels_gru"], "sgd_momentum", "constant", steps=200),
    *_cells(["vowels_gru"], "adamw", "cosine", steps=200),
    *_cells(["heavy_tails"], "adamw", "constant cosine", steps=3000),
    *_cells(["heavy_tails"], "adamw", "constant"),
    *_cells(["sparse_returns"], "sgd_momentum adamw", "constant"),
    *_cells(["sparse_returns"], "lion", "cosine"),
    *_cells(["sparse_returns"], "adamw", "cosine", steps=3000),
    *_cells(["wrong_labels"], "adamw", "constant cosine"),
    *_cells(["wrong_labels"], "sgd_momentum", "cosine"),
    *_cells(["long_friedman1"], "adamw", "constant cosine", steps=6000),
    *_cells(["long_tabular"], "sgd_momentum", "constant cosine", steps=10_000),
    *_cells(["topics", "successors", "opinions"], "adamw", "constant cosine"),
    *_cells(["topics"], "sgd_momentum", "cosine"),
    *_cells(["topics", "successors", "opinions"], "sgd_momentum", "constant"),
    *_cells(["opinions"], "lion", "cosine"),
    *_cells(["successors"], "adagrad", "constant"),
    *_cells(["schedule_digits", "schedule_tabular"], "adamw", "linear wsd"),
    *_cells(["schedule_digits"], "sgd_momentum", "wsd"),
    *_cells(["schedule_tabular"], "sgd_momentum", "linear"),
]

PUBLISHED_NEW = [
    *_cells(
        ["tuned_fashion_cnn", "tuned_friedman3", "tuned_char_gru"],
        "adamw_decay",
        "constant cosine",
    ),
    *_cells(
        ["tuned_fashion_resnet", "tuned_fashion_vit"], "adamw_decay", "constant cosine", steps=100
    ),
    *_cells(["tuned_friedman3"], "adamw_decay", "constant cosine", steps=1000),
    *_cells(["tuned_friedman3"], "nesterov rmsprop", "constant cosine"),
    *_cells(["head_fashion_resnet", "head_fashion_resmlp"], "adamw_decay", "constant cosine"),
    *_cells(["head_fashion_resnet"], "nesterov", "constant cosine"),
    *_cells(
        ["lora_gpt", "lora_gpt_r64", "lora_fashion_vit", "lora_fashion_resmlp"],
        "adamw_decay",
        "constant cosine",
    ),
    *_cells(["lora_gpt"], "muon", "constant cosine"),
    *_cells(["lora_fashion_vit"], "nadam", "constant cosine"),
    *_cells(["iris_12", "clothes_100", "arrows_cnn"], "adamw_decay", "constant cosine"),
    *_cells(["iris_12", "rare_clothes"], "nesterov", "cosine"),
    *_cells(["clothes_100", "arrows_cnn", "wrong_clothes", "moods"], "nesterov", "constant"),
    *_cells(["pendulum_30", "rare_clothes", "rare_shells"], "adamw_decay", "constant cosine"),
    *_cells(["pendulum_30"], "rmsprop", "cosine"),
    *_cells(["leaves_cnn"], "adamw_decay", "constant"),
    *_cells(["leaves_cnn"], "nadam", "cosine"),
    *_cells(["motions_gru"], "adamw_decay", "constant cosine", steps=200),
    *_cells(["rare_shells", "tastes"], "rmsprop", "constant"),
    *_cells(["cauchy"], "adamw_decay", "constant cosine", steps=3000),
    *_cells(["cauchy"], "nesterov", "cosine", steps=3000),
    *_cells(["cauchy"], "adamw_decay", "constant"),
    *_cells(["wrong_clothes", "moods", "tastes"], "adamw_decay", "constant cosine"),
    *_cells(["bandit"], "adamw_decay muon", "constant cosine"),
    *_cells(["long_counts"], "adamw_decay", "constant cosine", steps=6000),
    *_cells(["long_stream"], "nesterov", "constant cosine", steps=10_000),
    *_cells(["schedule_clothes", "schedule_heteroscedastic"], "adamw_decay", "linear wsd"),
    *_cells(["schedule_clothes"], "nesterov", "wsd"),
]

_ALL = [*DEVELOPMENT, *PUBLISHED, *DEVELOPMENT_NEW, *PUBLISHED_NEW]
CELLS = {cell.name: cell for cell in _ALL}
assert len(CELLS) == len(_ALL), "a cell is listed twice"
SETS = {
    "development": DEVELOPMENT,
    "published": PUBLISHED,
    "quick": QUICK,
    "development-new": DEVELOPMENT_NEW,
    "published-new": PUBLISHED_NEW,
}
