"""Published weights: files of tensors, read without unpickling anything else, taken whole."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

SHOWN_NAMES = 3


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, 64 digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file, or of a PyTorch file of nothing but tensors.

    Raises:
        ValueError: If the file is missing or damaged, or holds other objects.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return state
    except Exception as error:  # a damaged pickle can raise any
        raise unreadable(path, error) from None


def read_script(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a TorchScript archive, of which no code is run.

    Raises:
        ValueError: If the file is missing or damaged, or no such archive.
    """
    try:
        return dict(torch.jit.load(str(path), map_location="cpu").state_dict())
    except (OSError, ValueError, RuntimeError) as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> ValueError:
    """Return the error that says why a file is no file of weights."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ValueError(
        f"{path} cannot be read as weights ({reason}); it is missing or damaged: bring it again"
    )


def fill(network: nn.Module, found: Mapping[str, Tensor], *, path: Path, name: str) -> None:
    """Give a network the tensors of a file, as float32; they have to be its very names and shapes.

    Args:
        network: On any device, `meta` among them; what it has is replaced.
        found: Tensors by the network's names.
        path: Of the file, for the error.
        name: Of the network, for the error.

    Raises:
        ValueError: On any tensor that is missing, unexpected or of another shape; it lists each.
    """
    expected = network.state_dict()
    faults = {
        "missing": [key for key in expected if key not in found],
        "unexpected": [key for key in found if key not in expected],
        "of another shape": [
            f"{key} {tuple(found[key].shape)}"
            for key, own in expected.items()
            if key in found and found[key].shape != own.shape
        ],
    }
    told = [f"{len(keys)} {fault} ({_shown(keys)})" for fault, keys in faults.items() if keys]
    if told:
        raise ValueError(f"{path} does not hold {name}: tensors {', '.join(told)}")
    floats = {k: x.float() if x.is_floating_point() else x for k, x in found.items()}
    network.load_state_dict(floats, strict=True, assign=True)


def _shown(names: list[str]) -> str:
    return ", ".join(sorted(names)[:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")
