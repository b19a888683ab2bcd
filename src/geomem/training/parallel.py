"""The processes of a run: how a model is spread over them and what they tell each other.

One process needs nothing of this; several are started by torchrun. On CPUs they talk through gloo,
on GPUs through NCCL.
"""

import contextlib
import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel


class Team:
    """The processes of a run; each is on its own device and has a number."""

    def __init__(
        self, *, device: torch.device, precision: str, parallel: str, unused_parameters: bool
    ) -> None:
        """Join the other processes, where there are any.

        Args:
            device: Of the job; several processes on GPUs take one each of that kind.
            precision: "fp32" or "bf16": what matrix products are computed in. Parameters, gradients
                and the optimizer stay in float32.
            parallel: "ddp", every process holds the whole model; "fsdp2", each holds a share of
                every parameter, gradient and optimizer state.
            unused_parameters: Whether some parameters get no gradient (DDP alone has to know).
        """
        # accelerate takes torchrun's CPU processes for one each unless it is told
        self.accelerator = Accelerator(
            cpu=device.type == "cpu",
            mixed_precision="bf16" if precision == "bf16" else "no",
            kwargs_handlers=[
                DistributedDataParallelKwargs(
                    find_unused_parameters=unused_parameters, broadcast_buffers=False
                )
            ],
        )
        self.device: torch.device = self.accelerator.device
        self.size: int = self.accelerator.num_processes
        self.number: int = self.accelerator.process_index
        self.is_main: bool = self.accelerator.is_main_process
        self.shards = parallel == "fsdp2" and self.size > 1

    def spread(self, model: nn.Module, blocks: Sequence[nn.Module]) -> nn.Module:
        """Return a model on this process's device that learns together with the others'.

        With FSDP2 its parameters are sharded in place: make the optimizer after this. (accelerate
        gives DDP on CPUs when it is asked for FSDP2, so torch is asked directly.)

        Args:
            model: On the CPU.
            blocks: Parts of it that are sharded, and gathered, one by one.
        """
        model.to(self.device)
        if not self.shards:
            return self.accelerator.prepare_model(model) if self.size > 1 else model
        mesh = init_device_mesh(self.device.type, (self.size,))
        for block in blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)  # in place
        return model

    @contextlib.contextmanager
    def backward(self, model: nn.Module, *, last: bool) -> Any:
        """Compute in the chosen precision; exchange gradients in the last micro-batch alone."""
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(last)
        alone: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if isinstance(model, DistributedDataParallel) and not last:
            alone = model.no_sync()
        with alone, self.accelerator.autocast():
            yield

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over all processes."""
        if self.size == 1:
            return values
        total: Tensor = self.accelerator.reduce(values, reduction="sum")
        return total / self.size

    def any(self, told: bool) -> bool:
        """Return whether it is true of any process; all get the same answer."""
        if self.size == 1:
            return told
        return bool(self.mean(torch.tensor([float(told)], device=self.device)).item())

    def from_main(self, value: Any) -> Any:
        """Return the main process's value."""
        return broadcast_object_list([value])[0] if self.size > 1 else value


def leave_team() -> None:
    """End the connection to the other processes, where there are any."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def is_main() -> bool:
    """Return whether this process is the only one or torchrun's first; known before a team is."""
    return int(os.environ.get("RANK", "0")) == 0


def compute_deterministically() -> None:
    """Choose kernels that give the same bits in every run on the same hardware.

    An operation that has no such kernel is told by a warning of torch's.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
