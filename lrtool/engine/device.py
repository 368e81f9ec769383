"""Device, precision and memory: where and how the numbers are computed."""

from __future__ import annotations

import os
import platform
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lrtool.errors import ConfigError, Problem, said
from lrtool.ranks import ALONE, Ranks
from lrtool.report.records import RankFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lrtool.config.schema import RuntimeConfig

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a step needs to know about the machine.

    Attributes:
        device: where model and batches live.
        dtype: what autocast computes in; float32 means no autocast.
        memory_format: "auto" (channels_last for convolutions), "contiguous" or "channels_last".
        compile: hand the model to torch.compile.
        gradients: evaluate with gradients switched on, for a model that differentiates in its
            forward.
        shard: how a model is divided among the ranks, as in the configuration.
        static_graph: the same parameters take part in the loss of each step.
        own_statistics: each rank's batch norm sees its share alone, as in a DDP of the caller's.
        ranks: that share each batch.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    memory_format: str = "contiguous"
    compile: bool = False
    gradients: bool = False
    shard: bool | Sequence[str] = False
    static_graph: bool = True
    own_statistics: bool = False
    ranks: Ranks = ALONE

    @property
    def sharded(self) -> bool:
        """Whether models are divided among the ranks."""
        return self.ranks.several and bool(self.shard)

    def alone(self) -> Runtime:
        """Return the runtime of this process by itself, though it may be one of several ranks."""
        return replace(self, ranks=ALONE)

    def no_grad(self) -> AbstractContextManager[Any]:
        """Return a context in which a model is evaluated: without gradients, unless it needs them.

        What is computed in it may have a graph, so it is detached before it is kept.
        """
        return torch.enable_grad() if self.gradients else torch.no_grad()

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which a forward pass runs in `dtype`."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def scaler(self) -> torch.amp.GradScaler | None:
        """Return a new gradient scaler for fp16, None for the other precisions."""
        if self.dtype != torch.float16:
            return None
        return torch.amp.GradScaler(self.device.type)


def open_runtime(config: RuntimeConfig, ranks: Ranks = ALONE) -> Runtime:
    """Choose the device, and set torch's determinism and threads for the whole process.

    Raises:
        ConfigError: the device does not exist here, or cannot compute in the precision.
        UserError: several ranks cannot work on it.
    """
    device = choose_device(config.device, ranks)
    dtype = DTYPES[config.precision]
    if device.type == "cuda" and dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported():
        problem = "this GPU cannot compute in bf16; use fp16 or fp32"
        raise ConfigError(Problem(("runtime", "precision"), problem))
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it once
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(mode=True)
    if isinstance(config.threads, int):
        torch.set_num_threads(config.threads)
    ranks = ranks.on(device, config.timeout)
    return Runtime(
        device,
        dtype,
        config.memory_format,
        config.compile,
        shard=config.shard,
        static_graph=config.static_graph,
        ranks=ranks,
    )


def choose_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """Turn auto, cpu, cuda, cuda:N or mps into a device that exists.

    Each rank of a launch has the GPU of its number on its machine.

    Raises:
        ConfigError: it does not, or several ranks would share it.
    """
    if ranks.several and (name == "cuda" or (name == "auto" and torch.cuda.is_available())):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if 0 < count <= ranks.local_rank:
            raise _no_device(
                f"process {ranks.local_rank} of this machine, from 0, has no GPU of its own: torch "
                f"finds {count}; torchrun --nproc-per-node {count} starts so many, or use cpu"
            )
        device = choose_device(f"cuda:{ranks.local_rank}")
        torch.cuda.set_device(device)
        return device
    if ranks.several and name.startswith("cuda:"):
        raise _no_device(f"{name} is one GPU for {ranks.world_size} ranks; use cuda, one for each")
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise _no_device(f"{name} is not a device: {error}") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            devices = f"{count} CUDA device(s)" if count else "no CUDA device"
            raise _no_device(f"{name} is not available: torch finds {devices}; use auto")
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise _no_device("mps is not available: it needs an Apple GPU; use auto")
    return device


def _no_device(problem: str) -> ConfigError:
    return ConfigError(Problem(("runtime", "device"), problem))


def to_memory_format(runtime: Runtime, model: nn.Module) -> torch.memory_format:
    """Return the memory format of the model's 4-D tensors.

    `auto` is channels_last where there are 2-D convolutions: 1.3 to 1.6 times as fast on CPU. The
    tensors of a sharded model are contiguous.
    """
    if runtime.sharded:
        return torch.contiguous_format
    auto = runtime.memory_format == "auto" and any(
        isinstance(module, nn.Conv2d) for module in model.modules()
    )
    if auto or runtime.memory_format == "channels_last":
        return torch.channels_last
    return torch.contiguous_format


def place(model: nn.Module, runtime: Runtime) -> nn.Module:
    """Move a model to the device, in its memory format."""
    model = model.to(runtime.device)
    # a new model is contiguous already
    if to_memory_format(runtime, model) == torch.channels_last:
        set_memory_format(model, torch.channels_last)
    return model


def set_memory_format(model: nn.Module, memory_format: torch.memory_format) -> None:
    """Give the model's 4-D tensors a memory format; the others have none."""
    for tensor in (*model.parameters(), *model.buffers()):
        if not nn.parameter.is_lazy(tensor) and tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=memory_format)


def environment(runtime: Runtime) -> dict[str, Any]:
    """Describe the machine of a run, and its ranks, for its report."""
    device, ranks = runtime.device, runtime.ranks
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(device),
        "device_name": name,
        "threads": torch.get_num_threads(),
        "world_size": ranks.world_size,
        "backend": ranks.backend,
        "ranks": tuple(RankFacts(*place) for place in ranks.places),
    }


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception means that the device or the host ran out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # Other devices, and torch's CPU allocator, raise a RuntimeError that only its text tells apart.
    words = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(each in said(error) for each in words)
