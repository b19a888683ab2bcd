"""Weights of VGGT on disk: strict loading of the published file and of the small models."""

import logging
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from geomem.networks.vggt.config import VGGTConfig
from geomem.networks.vggt.model import VGGT

TRACKER_PREFIX = "track_head."
SHOWN_KEYS = 3

log = logging.getLogger(__name__)


def save_vggt(model: VGGT, path: str | Path, *, dtype: torch.dtype = torch.float16) -> None:
    """Write all parameters to a safetensors file in the given precision."""
    state = model.state_dict()
    save_file({name: x.to("cpu", dtype).contiguous() for name, x in state.items()}, path)


def load_vggt(
    path: str | Path,
    config: VGGTConfig,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> VGGT:
    """Load a VGGT of the given size, in evaluation mode; every parameter comes from the file.

    The tracker's weights in the published file are known and unused (a log line counts them).

    Args:
        path: Safetensors file with the published parameter names.
        config: Sizes the file must have, `VGGT_1B` for the published one.
        device: Where the parameters go.
        dtype: Precision they are held in.

    Raises:
        ValueError: If the file is missing, truncated, or differs in any name or shape.
    """
    with torch.device("meta"):
        model = VGGT(config)
    expected = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            _check(path, expected, found)
            state = {name: file.get_tensor(name).to(dtype) for name in expected}
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{path} cannot be read as a safetensors file ({error}); it is missing or truncated: "
            "fetch it again and compare its checksum"
        ) from error
    model.load_state_dict(state, assign=True)
    return model.eval()


def _check(
    path: str | Path, expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]
) -> None:
    """Raise ValueError unless names and shapes agree, the tracker's apart."""
    tracker = [name for name in found if name.startswith(TRACKER_PREFIX)]
    if tracker:
        log.info("%s: %d tracker tensors are known and unused", path, len(tracker))
    missing = expected.keys() - found.keys()
    unexpected = found.keys() - expected.keys() - set(tracker)
    reshaped = {
        f"{name} {found[name]} instead of {expected[name]}"
        for name in expected.keys() & found.keys()
        if expected[name] != found[name]
    }
    faults = {"missing": missing, "unexpected": unexpected, "wrong shape": reshaped}
    told = "; ".join(f"{len(x)} {name}: {_first(x)}" for name, x in faults.items() if x)
    if told:
        raise ValueError(
            f"{path} does not hold the weights of this VGGT ({told}); give the configuration the "
            "file was made with, or the file that belongs to this configuration"
        )


def _first(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:SHOWN_KEYS]) + (", ..." if len(ordered) > SHOWN_KEYS else "")
