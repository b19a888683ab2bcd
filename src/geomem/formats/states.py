"""Resumable training state in safetensors: no pickle is written or read.

All randomness of a step is drawn from its seed and number, and the data order is the plan's, so
parameters, optimizer, averages and the step number are the whole state.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geomem.formats.files import InputError, digest, read_tensors, write_tensors

KEPT = 2


def save_state(
    folder: Path,
    step: int,
    *,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    averages: list[Tensor],
    log: list[dict[str, float]],
    key: Mapping[str, Any],
) -> None:
    """Write the state after `step` steps atomically and drop all but the newest two."""
    tensors = {
        f"module.{name}.{entry}": tensor
        for name, module in modules.items()
        for entry, tensor in module.state_dict().items()
    }
    tensors |= {f"average.{i:06d}": tensor for i, tensor in enumerate(averages)}
    for i, entries in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i:06d}.{name}": value for name, value in entries.items()}
    write_tensors(
        folder / f"step-{step:08d}.safetensors",
        {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()},
        {"step": step, "log": log, "key": digest(dict(key))},
    )
    for outdated in sorted(folder.glob("step-*.safetensors"))[:-KEPT]:
        outdated.unlink()


def load_state(
    folder: Path,
    *,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    averages: list[Tensor],
    key: Mapping[str, Any],
) -> tuple[int, list[dict[str, float]]]:
    """Load the newest readable state; return its step and log, (0, []) where there is none.

    A damaged newest file is passed over for the one before. States of other settings are ignored.
    """
    for path in sorted(folder.glob("step-*.safetensors"), reverse=True):
        try:
            tensors, metadata = read_tensors(path)
        except InputError:
            continue
        if metadata.get("key") != digest(dict(key)):
            continue
        for name, module in modules.items():
            module.load_state_dict(_below(tensors, f"module.{name}."))
        for average, stored in zip(averages, _below(tensors, "average.").values(), strict=True):
            average.copy_(stored)
        _load_optimizer(optimizer, _below(tensors, "optimizer."))
        return metadata["step"], metadata["log"]
    return 0, []


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    names = sorted(name for name in tensors if name.startswith(prefix))
    return {name.removeprefix(prefix): tensors[name] for name in names}


def _load_optimizer(optimizer: torch.optim.Optimizer, stored: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in stored.items():
        number, entry = name.split(".")
        state.setdefault(int(number), {})[entry] = tensor
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
