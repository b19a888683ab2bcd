"""The frozen teacher on disk: its weights, and the basis that compresses its features."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from geomem.errors import InputError
from geomem.formats.files import check_sha256, read_tensors, weights_remedy
from geomem.formats.teacher_sizes import teacher_config
from geomem.memory.reconstruction import FeatureBasis
from geomem.networks.dinov2 import load_dinov2
from geomem.networks.vggt.layers import PatchEmbedder
from geomem.networks.vggt.model import VGGT
from geomem.networks.vggt.weights import load_vggt


def load_teacher(
    weights: Path, architecture: dict[str, Any], *, sha256: str = "", precision: str = "fp32"
) -> VGGT:
    """Load the teacher, frozen and on the CPU, after comparing its checksum where one is given.

    Args:
        weights: safetensors file.
        architecture: Sizes, or none for VGGT-1B.
        sha256: Checksum of the file.
        precision: `fp32`, or `bf16` for an aggregator under autocast.

    Raises:
        InputError: If the file is missing, damaged or for other sizes.
    """
    if sha256:
        check_sha256(weights, sha256, weights_remedy(weights))
    try:
        teacher = load_vggt(weights, teacher_config(architecture)).requires_grad_(False)
    except ValueError as error:
        raise InputError(str(error)) from None
    teacher.autocast = precision == "bf16"
    return teacher


def load_image_teacher(weights: Path, *, sha256: str, **sizes: Any) -> PatchEmbedder:
    """Load the 2D teacher DINOv2, frozen and on the CPU.

    Args:
        weights: Official file.
        sha256: Its checksum; compared where one is given.
        sizes: Those of `load_dinov2`.

    Raises:
        InputError: If the file is missing, damaged or for other sizes.
    """
    if sha256:
        check_sha256(weights, sha256, weights_remedy(weights))
    try:
        return load_dinov2(weights, **sizes)
    except ValueError as error:
        raise InputError(str(error)) from None


def read_basis(path: Path, *, kept: dict[str, Any] | None = None) -> FeatureBasis:
    """Read the basis that the features stage fitted.

    Args:
        path: Its file.
        kept: What it has to be fitted for (`Features.kept`); None for anything.

    Raises:
        InputError: If it is missing, damaged or for something else.
    """
    tensors, metadata = read_tensors(path)
    if kept is not None and metadata != kept:
        raise InputError(
            f"{path} is a basis for {metadata}, `features` asks for {kept}; change `features`, or "
            "name no `features.basis` to fit one"
        )
    prior = float(tensors["scale_prior"])

    def of_layer(layer: int, name: str = "") -> FeatureBasis:
        return FeatureBasis(
            layer=layer,
            mean=tensors[f"mean{name}"],
            components=tensors[f"components{name}"],
            unit=float(tensors[f"unit{name}"]),
            scale_prior=prior,
            grid=metadata.get("grid"),
        )

    more = tuple(of_layer(layer, f".{layer}") for layer in metadata.get("more_layers", ()))
    return replace(of_layer(metadata["layer"]), more=more)
