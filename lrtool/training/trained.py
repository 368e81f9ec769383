"""A run's model with its weights and its encoding, ready to predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from lrtool.components.adapters import add_adapter
from lrtool.components.import_path import is_import_path
from lrtool.components.losses import build_loss, known_as
from lrtool.components.models import build_model
from lrtool.config import document as documents
from lrtool.config.document import located
from lrtool.config.problems import validate
from lrtool.data import encoding as encodings
from lrtool.data.conversion import Conversion, convert
from lrtool.data.unlabelled import read_unlabelled
from lrtool.engine.device import DTYPES, Runtime, choose_device, is_out_of_memory
from lrtool.engine.randomness import random_states, restore_random_states
from lrtool.errors import ConfigError, LrtoolError, OutOfMemoryError, UserError
from lrtool.experiment.experiment import in_memory
from lrtool.experiment.fitting import float_types
from lrtool.experiment.reading import directories_of
from lrtool.report import marker
from lrtool.report.run_directory import CONFIG, ENCODING, settle
from lrtool.training.predictions import Predictions, predictions_of
from lrtool.training.stored_weights import load_stored_weights

if TYPE_CHECKING:
    from pathlib import Path

    from lrtool.config.schema import Config, LossConfig
    from lrtool.data.encoding import Encoding

MOST_AT_ONCE = 256  # samples in a batch


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A trained model. `predict` takes data as they are, and gives what they mean.

    Attributes:
        model: on the device, in evaluation mode.
        encoding: what the run learned of its training data.
        config: of the run.
        loss: the configuration's, or its built-in name where an import path leads to torch's.
        runtime: device and precision.
    """

    model: nn.Module
    encoding: Encoding
    config: Config
    loss: LossConfig
    runtime: Runtime

    def inputs(self, data: Any) -> Tensor:
        """Return data as the model's inputs, (N, …), on the CPU.

        Args:
            data: a path, as `data.args.path` of the run's source. For tables also a `.parquet`
                file, a DataFrame, a mapping of columns or a list of mappings; for the others an
                array or tensor: images of bytes (N, H, W), or what the model takes. There need be
                no targets.

        Raises:
            UserError: the run cannot read such data, or does not know what they hold.

        Warns:
            LrtoolWarning: words or characters are unknown.
        """
        return read_unlabelled(self.encoding, self.config.data.args, data)

    def __call__(self, data: Any) -> Tensor:
        """Return the model's outputs for data, (N, …), on the CPU.

        Raises:
            UserError: as `inputs`; or the model fails.
            OutOfMemoryError: a batch is too large for the device.
        """
        inputs = self.inputs(data)
        parts = [self._outputs(part) for part in torch.split(inputs, MOST_AT_ONCE)]
        return torch.cat(parts)

    def predict(self, data: Any) -> Predictions:
        """Return predictions for data; see `inputs`.

        Raises:
            UserError: as `inputs`; or the model fails.
            OutOfMemoryError: a batch is too large for the device.
        """
        return predictions_of(self(data), self.encoding, self.loss)

    def _outputs(self, inputs: Tensor) -> Tensor:
        # As in the training: floats of the type of the weights.
        batch = (inputs, torch.zeros(len(inputs)))
        inputs, _ = convert(batch, Conversion(float_types(self.model)))
        inputs = inputs.to(self.runtime.device)
        try:
            try:
                outputs = self._forward(inputs, gradients=False)
            except RuntimeError:  # some models differentiate in their forward
                outputs = self._forward(inputs, gradients=True)
        except LrtoolError:
            raise
        except (Exception, SystemExit) as error:
            words = f"{type(error).__name__}: {error}"
            if is_out_of_memory(error):
                raise OutOfMemoryError(f"out of memory while predicting: {words}") from error
            shape = tuple(inputs.shape)
            raise UserError(f"the model failed on inputs of shape {shape}: {words}") from error
        outputs = getattr(outputs, "logits", outputs)  # as Hugging Face's
        if not isinstance(outputs, Tensor) or not outputs.ndim or len(outputs) != len(inputs):
            raise UserError(
                f"the model returns a {type(outputs).__name__}, not a tensor with an output for"
                " each sample; call `.model` yourself"
            )
        return outputs.detach().cpu()

    def _forward(self, inputs: Tensor, *, gradients: bool) -> Any:
        with torch.set_grad_enabled(gradients), self.runtime.autocast():
            return self.model(inputs)


def load_trained(
    directory: Path, checkpoint: Literal["best", "last"] | None = None, device: str = "cpu"
) -> Trained:
    """Load the model of a run with its weights and its encoding.

    The training data need not be there. Random states stay as they are.

    Args:
        directory: of a training.
        checkpoint: "best" or "last"; None for the best weights if there are any, else the last.
        device: auto, cpu, mps, cuda or cuda:N.

    Raises:
        UserError: there is no such run, it has no weights, or a file of it is damaged.
        OutOfMemoryError: the model does not fit in memory.
    """
    path = directory / CONFIG
    settle(directory)
    if not path.is_file():
        raise UserError(f"{directory}: holds no run; there is no {path}")
    if marker.command_of(directory) == "find":
        raise UserError(f"{directory}: is the run of a find, which has no weights")
    document = documents.read(path)
    config, problems = validate(document.data)
    if config is None:
        raise ConfigError(*map(document.locate, problems))
    encoding = encodings.read(directory)
    if encoding is None:
        raise UserError(
            f"{directory}: has no {ENCODING}, which tells how to read data; it was made by an older"
            " version: train again"
        )
    runtime = Runtime(choose_device(device), DTYPES[config.runtime.precision])
    facts = {
        "input_shape": encoding.input_shape,
        "num_outputs": encoding.num_outputs,
        "vocabulary": encoding.vocabulary,
    }
    before, directories = random_states(), directories_of(config, document)
    try:
        with located(document), in_memory(f"the model {config.model.name} was built"):
            own = is_import_path(config.loss.name)
            loss = known_as(config.loss, build_loss(config.loss, directories) if own else None)
            model = build_model(config.model, facts, directories)
            if config.model.peft is not None:
                add_adapter(model, config.model.peft, directories)
    finally:
        restore_random_states(before)
    load_stored_weights(model, directory, checkpoint)
    return Trained(model.to(runtime.device).eval(), encoding, config, loss, runtime)
