"""Loader of the public U-ViT checkpoints (DFoT, arXiv 2502.06764), refusing what does not fit.

Two forms are published. The light one (`DFoT_RE10K.ckpt`) holds averaged (EMA) weights in its state
dict and no optimizer state. The `full:` one holds raw weights in its state dict, and the averaged
ones as a list in the optimizer state, in the order of `named_parameters()`.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from geomem.networks.uvit.model import UViT3DPose

PREFIX = "diffusion_model.model."


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
