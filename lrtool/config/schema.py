"""The configuration as typed, validated objects.

Every key has a default, unknown keys are errors, and types are strict: "3" is not 3. Names and
arguments of components are checked in `lrtool.components.check`, which needs torch.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from lrtool.config.spelling import number

DEFAULT_EPOCHS = 10
MOST_THREADS = 1024
MIN_RATE, MAX_RATE = 1e-20, 1e10  # outside, float32 weights and products under- or overflow
# More than any training needs, and small enough that nothing computed from it overflows.
Count = Annotated[int, Field(ge=1, le=10**12)]


class Section(BaseModel):
    """A mapping of the file: strict types, no unknown keys, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ComponentConfig(Section):
    """A built-in name or an import path `package.module:attribute`, and its arguments."""

    name: str = Field(min_length=1)
    args: dict[str, JsonValue] = Field({}, description="its arguments")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        """`mlp` is short for `{name: mlp}`."""
        return {"name": value} if isinstance(value, str) else value


class ParameterGroupConfig(Section):
    """The parameters whose name matches a regular expression; the first matching group wins."""

    match: str = Field(description="a regular expression, searched for in a parameter's name")
    lr_ratio: float | None = Field(
        None,
        gt=0,
        description="this group's learning rate, divided by the base learning rate; null: 1, or as "
        "optimizer.layer_decay says",
    )
    weight_decay: float | None = Field(None, ge=0, description="null: the optimizer's own")


class ModelConfig(ComponentConfig):
    """A model, the weights that it starts from, and what of it is trained."""

    name: str = Field("mlp", min_length=1, description="a built-in model, or an import path")
    checkpoint: str | None = Field(
        None,
        min_length=1,
        description="pretrained weights to start from: a safetensors file, a state dict that "
        "torch.save wrote, an index of several such files, a directory with model.safetensors or "
        "its index, or a run; null: random ones",
    )
    partial: bool = Field(
        default=False,
        description="true: weights of the checkpoint that do not fit the model are left out, such "
        "as those of another head",
    )
    peft: ComponentConfig | None = Field(
        None,
        description="an adapter by PEFT, such as lora, put into the model after the checkpoint is "
        "loaded: the name of a configuration class, or an import path to one, and its arguments",
    )
    train_only: list[str] | None = Field(
        None,
        min_length=1,
        description="regular expressions, searched for in the names of parameters: the others are "
        "frozen, and so are batch norm and dropout inside modules of which nothing is trained; "
        "null: all are trained",
    )


OWN = "own"


class LossConfig(ComponentConfig):
    """The loss, a mean over the samples of a batch."""

    name: str = Field(
        "cross_entropy",
        min_length=1,
        description="a loss of torch.nn.functional, Keras's name for it, or an import path; own or "
        "null: the loss that the model computes itself",
    )

    @model_validator(mode="before")
    @classmethod
    def _null(cls, value: Any) -> Any:
        return {"name": OWN} if value is None else value


class OptimizerConfig(ComponentConfig):
    """An optimizer with its parameter groups."""

    name: str = Field(
        "adamw", min_length=1, description="a class of torch.optim in lower case, or an import path"
    )
    inner: ComponentConfig | None = Field(
        None,
        description="the optimizer that another one, such as Lookahead, gets as its first argument",
    )
    groups: list[ParameterGroupConfig] = Field(
        [], description="parameter groups; a parameter belongs to the first group that matches"
    )
    layer_decay: float | None = Field(
        None,
        gt=0,
        le=1,
        description="a layer's learning rate, divided by that of the layer above it, down from the "
        "head, which has the base learning rate; null: all have the same",
    )
    decay_norm_and_bias: bool = Field(
        default=True,
        description="false: no weight decay on parameters of fewer than two dimensions, such as "
        "biases and norms",
    )


class ScheduleConfig(ComponentConfig):
    """The learning rate over the training."""

    name: str = Field("constant", description="a built-in schedule")
    warmup: float | None = Field(
        None,
        ge=0,
        description="length of the warm-up: a fraction of the training below 1, or a number of "
        "steps; null: none, except for one_cycle, which has its own",
    )


def _batch_size(value: Any) -> int | str:
    if value == "full" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value  # type: ignore[no-any-return]
    raise PydanticCustomError("batch_size", "must be a whole number of at least 1, or full")


def _validation(value: Any) -> float | int | str:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        if 0 <= value < 1:
            return value
        if isinstance(value, int) and value >= 1:
            return value
    raise PydanticCustomError(
        "validation", "must be a fraction below 1, a whole number of samples, or a path"
    )


def _learning_rate(value: Any) -> float | Literal["auto"] | None:
    if value is None or value == "auto":
        return value  # type: ignore[no-any-return]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and 0 < value <= sys.float_info.max:  # an int may be larger
        return float(value)
    raise PydanticCustomError("learning_rate", "must be a positive number, or auto")


def _verify(value: Any) -> bool | Literal["auto"]:
    if isinstance(value, bool) or value == "auto":
        return value  # type: ignore[no-any-return]
    raise PydanticCustomError("verify", "must be true, false or auto")


def _threads(value: Any) -> int | Literal["auto"]:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value == "auto" or (whole and 1 <= value <= MOST_THREADS):
        return value  # type: ignore[no-any-return]
    raise PydanticCustomError(
        "threads", "must be a whole number from 1 to {most}, or auto", {"most": MOST_THREADS}
    )


def _shard(value: Any) -> bool | list[str]:
    whole = isinstance(value, list) and bool(value)
    if isinstance(value, bool) or (whole and all(isinstance(item, str) for item in value)):
        return value  # type: ignore[no-any-return]
    raise PydanticCustomError("shard", "must be true, false or a list of regular expressions")


class DataConfig(Section):
    """Where samples come from and how they are batched."""

    source: str = Field("digits", min_length=1, description="a built-in source, or an import path")
    args: dict[str, JsonValue] = Field({}, description="the source's arguments, such as path")
    batch_size: Annotated[
        int | str,
        PlainValidator(_batch_size),
        WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "full"}]}),
    ] = Field(64, description="samples in a batch; full: the whole training set")
    validation: Annotated[
        float | int | str,
        PlainValidator(_validation),
        WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]}),
    ] = Field(
        0.2, description="the validation set: a fraction, a number of samples, or a path; 0: none"
    )
    workers: int = Field(
        0, ge=0, le=256, description="processes that load samples which are not in memory"
    )
    timeout: float = Field(
        600.0,
        ge=0,
        description="seconds to wait for a batch of the workers before the run fails; 0: for ever",
    )


class FindConfig(Section):
    """The search for a learning rate: sweep, trials and race."""

    start: float = Field(1e-7, gt=0, description="first learning rate of the sweep")
    end: float = Field(10.0, gt=0, description="last learning rate of the sweep")
    steps: int = Field(100, ge=2, le=100_000, description="steps of the sweep")
    repeats: int = Field(1, ge=1, le=100, description="number of sweeps, each with its own seed")
    mode: Literal["exponential", "linear"] = Field(
        "exponential", description="how the learning rate grows during the sweep"
    )
    loss: Literal["batch", "probe"] = Field(
        "batch",
        description="batch: the loss of each training batch; probe: the loss on a fixed set of "
        "validation samples, which is slower and less noisy",
    )
    method: Literal["auto", "valley", "slide", "steep", "minimum"] = Field(
        "auto", description="how the rate is chosen; all but auto are known rules, for comparison"
    )
    verify: Annotated[
        bool | str,
        PlainValidator(_verify),
        WithJsonSchema({"anyOf": [{"type": "boolean"}, {"const": "auto"}]}),
    ] = Field(
        default=False,
        description="true: compare rates around the suggestion (a race) in short trainings, or in "
        "whole ones of up to 300 steps; auto: only where the race takes at most a tenth of the "
        "training",
    )
    parallel: Literal["auto", "data", "candidates"] = Field(
        "auto",
        description="how several ranks share trials and race: candidates: each rank trains one "
        "candidate by itself; data: all ranks share each batch; auto: candidates where one fits "
        "the memory of a device",
    )

    @model_validator(mode="after")
    def _start_below_end(self) -> Self:
        if self.start >= self.end:
            raise PydanticCustomError(
                "start_end",
                "start must be below end, but start is {start} and end is {end}",
                {"start": number(self.start), "end": number(self.end)},
            )
        if self.start < MIN_RATE or self.end > MAX_RATE:
            raise PydanticCustomError(
                "range",
                "rates must lie between {low} and {high}",
                {"low": number(MIN_RATE), "high": number(MAX_RATE)},
            )
        return self


class EarlyStoppingConfig(Section):
    """Stop when a loss or a metric no longer improves."""

    metric: str = Field(
        "validation_loss", description="validation_loss, train_loss, or a metric from metrics"
    )
    patience: Count = Field(5, description="epochs without improvement")
    min_delta: float = Field(0.0, ge=0, description="a smaller change does not count")
    mode: Literal["auto", "min", "max"] = Field(
        "auto", description="whether lower or higher is better; auto: decided by the metric"
    )


class TrainConfig(Section):
    """The training that the rate is meant for."""

    epochs: Count | None = Field(
        None, description=f"length of the training; {DEFAULT_EPOCHS} if max_steps is not given"
    )
    max_steps: Count | None = Field(None, description="length of the training in steps instead")
    schedule: ScheduleConfig = ScheduleConfig()
    gradient_clip_norm: float | None = Field(
        None, gt=0, description="gradients are scaled down to this 2-norm; null: no clipping"
    )
    accumulate: Count = Field(1, description="batches for each step")
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="decay of a moving average of the weights, which is evaluated in their place; "
        "null: none",
    )
    early_stopping: EarlyStoppingConfig | None = Field(None, description="null: train to the end")
    checkpoint_every: Count | None = Field(
        None, description="steps between two checkpoints; null: one after each epoch"
    )
    log_every: Count = Field(1, description="steps between two lines of metrics.jsonl")

    @model_validator(mode="before")
    @classmethod
    def _epochs_or_steps(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("epochs") is None and data.get("max_steps") is None:
            return {**data, "epochs": DEFAULT_EPOCHS}
        return data

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if self.epochs is not None and self.max_steps is not None:
            raise PydanticCustomError(
                "length", "give epochs or max_steps, not both; null for the other"
            )
        return self


class RuntimeConfig(Section):
    """Where and how the numbers are computed."""

    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="cpu, mps, cuda or cuda:N; auto: a GPU if there is one",
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="of the forward pass, by autocast; fp16 scales the loss"
    )
    compile: bool = Field(default=False, description="compile the model with torch.compile")
    threads: Annotated[
        int | str,
        PlainValidator(_threads),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "integer", "minimum": 1, "maximum": MOST_THREADS},
                    {"const": "auto"},
                ]
            }
        ),
    ] = Field(
        "auto",
        description="on the CPU; auto: as many as OMP_NUM_THREADS says, else one or all (of a "
        "rank's part), whichever makes steps faster",
    )
    memory_format: Literal["auto", "contiguous", "channels_last"] = Field(
        "auto", description="of models and images; auto: channels_last for 2-D convolutions"
    )
    deterministic: bool = Field(
        default=False, description="use torch's deterministic algorithms only"
    )
    shard: Annotated[
        bool | list[str],
        PlainValidator(_shard),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "boolean"},
                    {"type": "array", "items": {"type": "string"}, "minItems": 1},
                ]
            }
        ),
    ] = Field(
        default=False,
        description="divide the model among the ranks, for one that fits no device: true: by its "
        "repeated blocks; or regular expressions, searched for in the names of modules",
    )
    static_graph: bool = Field(
        default=True,
        description="the same parameters take part in the loss of each step; false: ranks look for "
        "them in each step, which takes time",
    )
    timeout: float = Field(
        600.0, gt=0, description="seconds that ranks wait for one another before the run fails"
    )


class Config(Section):
    """The whole file."""

    seed: int = Field(
        0, ge=0, le=2**32 - 1, description="of weights, data order and the validation split"
    )
    search_path: list[str] = Field(
        [], description="more directories in which data files and modules are looked for"
    )
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    metrics: list[str] = Field(
        [], description="built-in metrics or import paths, computed after each epoch"
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    learning_rate: Annotated[
        float | str | None,
        PlainValidator(_learning_rate),
        WithJsonSchema({"anyOf": [{"type": "number"}, {"const": "auto"}, {"type": "null"}]}),
    ] = Field(
        None,
        description="a number; auto: find it first; null: the optimizer's default",
    )
    find: FindConfig = FindConfig()
    train: TrainConfig = TrainConfig(epochs=DEFAULT_EPOCHS)
    runtime: RuntimeConfig = RuntimeConfig()

    def digest(self) -> str:
        """Return a SHA-256, in hexadecimal, of all keys but those that change no number."""
        no_number: Any = {
            "search_path": True,
            "find": {"parallel"},
            "runtime": {"threads", "timeout", "shard", "static_graph"},
        }
        content = self.model_dump(mode="json", exclude=no_number)
        canonical = json.dumps(content, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration, for editors."""
    schema = Config.model_json_schema()
    for component in (ComponentConfig, ModelConfig, LossConfig, OptimizerConfig, ScheduleConfig):
        mapping = schema["$defs"][component.__name__]
        forms = [{"type": "string"}, mapping]  # a name alone is enough
        if component is LossConfig:
            forms.append({"type": "null"})
        schema["$defs"][component.__name__] = {"anyOf": forms}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
