"""Sizes of the teacher as configuration files say them; loads nothing."""

from typing import Any

from geomem.networks.vggt.config import VGGT_1B, VGGTConfig


def teacher_config(architecture: dict[str, Any]) -> VGGTConfig:
    """Return the sizes of the teacher; those of VGGT-1B where none are given.

    Raises:
        ValueError: If they do not fit together, or one is unknown, missing or no number.
    """
    if not architecture:
        return VGGT_1B
    sizes: dict[str, Any] = {
        name: tuple(size) if isinstance(size, list) else size for name, size in architecture.items()
    }
    try:
        return VGGTConfig(**sizes)
    except TypeError as error:
        raise ValueError(str(error).removeprefix("VGGTConfig.__init__() ")) from None
