"""Loader of the public U-ViT checkpoints (DFoT, arXiv 2502.06764), refusing what does not fit.

Two forms are published. The light one (`DFoT_RE10K.ckpt`) holds averaged (EMA) weights in its state
dict and no optimizer state. The `full:` one holds raw weights in its state dict, and the averaged
ones as a list in the optimizer state, in the order of `named_parameters()`.
"""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from geomem.networks.uvit.control import MemoryControl
from geomem.networks.uvit.gate import CopyGate
from geomem.networks.uvit.model import UViT3DPose

PREFIX = "diffusion_model.model."
MODULES = "modules"  # in the metadata of our own files
TRACKED: dict[str, Any] = {"backbone": UViT3DPose, "control": MemoryControl, "gate": CopyGate}


def load_public_uvit(path: Path, model: UViT3DPose) -> None:
    """Load the averaged weights of a public checkpoint into `model`.

    Args:
        path: Checkpoint file, of either form.
        model: Network of the checkpoint's configuration; changed in place, and only if all fits.

    Raises:
        ValueError: If the file is no such checkpoint, or a key is missing, unexpected, or of
            another shape than in `model`; names the file and the keys.
    """
    checkpoint = _read(path)
    state = dict(checkpoint["state_dict"])
    optimizer_states = checkpoint.get("optimizer_states") or []
    own = {PREFIX + name: value for name, value in model.state_dict().items()}
    _check_fit(path, state, own)
    if optimizer_states:
        names = [PREFIX + name for name, _ in model.named_parameters()]
        averaged = _averaged_weights(path, optimizer_states[0], names)
        _check_fit(path, averaged, {name: own[name] for name in names})
        state.update(averaged)
    model.load_state_dict({name.removeprefix(PREFIX): value for name, value in state.items()})


def load_safetensors(path: Path, model: UViT3DPose) -> None:
    """Load tracked weights, a safetensors file with the model's own names, into `model`.

    Raises:
        ValueError: As `load_public_uvit`.
    """
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or no safetensors file ({error})") from None
    _check_fit(path, state, model.state_dict())
    model.load_state_dict(state)


def save_modules(path: Path, modules: Mapping[str, ModelMixin]) -> None:
    """Write a backbone and what was trained with it to one file, in half precision.

    Names begin with the module's; the metadata hold every module's sizes.
    """
    tensors = {
        f"{name}.{key}": value.half().contiguous()
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    sizes = {name: dict(module.config) for name, module in modules.items()}
    shown = {
        name: {key: value for key, value in config.items() if not key.startswith("_")}
        for name, config in sizes.items()
    }
    save_file(tensors, path, metadata={MODULES: json.dumps(shown, sort_keys=True)})


def load_modules(path: Path) -> dict[str, Any]:
    """Return the modules of a file that `save_modules` wrote, in single precision; none where it is
    a file of another kind.

    Raises:
        ValueError: If the file is damaged, or a module or key is missing or unknown; names them.
    """
    try:
        with safe_open(path, framework="pt") as file:
            shown = (file.metadata() or {}).get(MODULES)
        state = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or no safetensors file ({error})") from None
    if shown is None:
        return {}
    modules: dict[str, Any] = {}
    for name, sizes in json.loads(shown).items():
        if name not in TRACKED:
            raise ValueError(f"{path} has a module {name!r}, not one of {sorted(TRACKED)}")
        modules[name] = TRACKED[name](**sizes)
    own = {f"{n}.{k}": v for n, module in modules.items() for k, v in module.state_dict().items()}
    _check_fit(path, state, own)
    for name, module in modules.items():
        prefix = f"{name}."
        module.load_state_dict(
            {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
        )
    return modules


def _read(path: Path) -> Mapping[str, Any]:
    """Read a checkpoint without running code from it."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be read as a checkpoint of tensors: {error}") from error
    if not isinstance(checkpoint, Mapping) or "state_dict" not in checkpoint:
        raise ValueError(f"{path} has no state_dict")
    return checkpoint


def _averaged_weights(
    path: Path, optimizer_state: Mapping[str, Any], names: list[str]
) -> dict[str, Tensor]:
    """Return the averaged weights by name; the file has them as a list without names."""
    if "ema" not in optimizer_state:
        raise ValueError(f"{path} has an optimizer state without averaged weights ('ema')")
    weights = list(optimizer_state["ema"])
    if len(weights) != len(names):
        raise ValueError(f"{path} has {len(weights)} averaged weights, expected {len(names)}")
    return dict(zip(names, weights, strict=True))


def _check_fit(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise one ValueError with all keys that keep `found` from filling `expected`."""
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(found.keys() & expected.keys())
        if found[name].shape != expected[name].shape
    ]
    problems = {
        "missing": sorted(expected.keys() - found.keys()),
        "unexpected": sorted(found.keys() - expected.keys()),
        "of another shape": shapes,
    }
    listed = [f"{what}: {', '.join(names)}" for what, names in problems.items() if names]
    if listed:
        raise ValueError(f"{path} does not fit the model; keys {'; '.join(listed)}")
