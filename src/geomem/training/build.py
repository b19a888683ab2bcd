"""Build the modules of a variant, and the teacher that it may be aligned with, from settings."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from geomem.formats import InputError, load_module, read_checkpoint
from geomem.formats.teachers import load_image_teacher, load_teacher, read_basis, teacher_config
from geomem.memory.reconstruction import FeatureBasis, compressed_features
from geomem.models.control import MemoryControl
from geomem.models.dinov2 import image_tokens
from geomem.models.implicit import ImplicitControl, ImplicitMemory
from geomem.models.projectors import AlignmentProjector, RepaProjector
from geomem.models.uvit import UViT3DPose
from geomem.models.vggt import VGGT
from geomem.models.vggt_layers import PatchEmbedder
from geomem.training.data import WindowDataset
from geomem.training.network import VideoModel


def build_model(
    settings: dict[str, Any], dataset: WindowDataset, *, initial: Path | None
) -> VideoModel:
    """Return the untrained model of a variant.

    Args:
        settings: `Config.training_settings`.
        dataset: Tells the channels of memory maps or histories.
        initial: Checkpoint the backbone starts from, or None for random weights.
    """
    if initial is None:
        backbone = UViT3DPose(**settings["model"])
    else:
        read_checkpoint(initial)
        backbone = load_module(UViT3DPose, initial, "backbone")
    control, memory = None, None
    if settings["variant"]["memory"]:
        channels = dataset[0]["memory"].shape[1]
        if "implicit" in settings["memory"]:
            memory = ImplicitMemory(channels, **settings["memory"]["implicit"])
            control = ImplicitControl.from_base(backbone, settings["memory"]["implicit"]["width"])
        else:
            control = MemoryControl.from_base(backbone, channels)
    return VideoModel(backbone, control=control, memory=memory, projector=_projector(settings))


def _projector(settings: dict[str, Any]) -> AlignmentProjector | RepaProjector | None:
    alignment = settings["variant"]["alignment"]
    if not alignment:
        return None
    widths = settings["model"]["channels"]
    # down levels, the middle, then the up levels in reverse order of width
    states = [*widths, *reversed(widths[:-1])]
    image = settings.get("image_teacher")
    channels = image_teacher_sizes(image)[0] if image else settings["features"]["channels"]
    kind = RepaProjector if alignment["objective"] == "repa" else AlignmentProjector
    projector = kind(states[alignment["level"]], channels)
    # the released code leaves its projector and scale head out of the optimizer
    return projector.requires_grad_(alignment["objective"] != "as_released")


@dataclass(frozen=True, kw_only=True)
class OnlineTeacher:
    """The frozen teacher at work while a variant is trained, instead of a cache."""

    teacher: VGGT
    basis: FeatureBasis

    def tokens(self, frames: Tensor) -> Tensor:
        """Return the compressed features (B, T, D, h, w) of frames (B, T, 3, S, S) in [-1, 1]."""
        return compressed_features(self.teacher, (frames + 1) / 2, basis=self.basis)

    def to(self, device: torch.device) -> Self:
        """Return it on a device."""
        return replace(self, teacher=self.teacher.to(device), basis=self.basis.to(device))


@dataclass(frozen=True, kw_only=True)
class OnlineImageTeacher:
    """The frozen 2D teacher at work while a variant is trained; its tokens are not compressed."""

    encoder: PatchEmbedder
    size: int

    def tokens(self, frames: Tensor) -> Tensor:
        """Return the tokens (B, T, D, h, w) of frames (B, T, 3, S, S) in [-1, 1]."""
        return image_tokens(self.encoder, (frames + 1) / 2, size=self.size)

    def to(self, device: torch.device) -> Self:
        """Return it on a device."""
        return replace(self, encoder=self.encoder.to(device))


def image_teacher_sizes(settings: dict[str, Any]) -> tuple[int, int]:
    """Return width and image size of the 2D teacher of `Config.training_settings`."""
    if "dinov2" in settings:
        return settings["dinov2"]["embed_dim"], settings["dinov2"]["image_size"]
    config = teacher_config(settings["encoder_of"]["teacher"])
    return config.embed_dim, config.image_size


def online_teacher(
    settings: dict[str, Any], weights: Path | None, basis: Path | None
) -> OnlineTeacher | OnlineImageTeacher | None:
    """Load the teacher of a variant that is aligned without a cache; None where there is no such.

    Raises:
        InputError: If it is needed and its files were not given.
    """
    if image := settings.get("image_teacher"):
        if weights is None:
            raise InputError("alignment with a 2D teacher needs --weights")
        encoder = load_image_teacher(weights, image)
        return OnlineImageTeacher(encoder=encoder, size=image_teacher_sizes(image)[1])
    if not (settings["variant"]["alignment"] and settings["features"]["online"]):
        return None
    if weights is None or basis is None:
        raise InputError("alignment with `features.online` needs --weights and --basis")
    teacher = load_teacher(
        weights,
        settings["teacher"],
        sha256=settings["sha256"],
        precision=settings["features"]["precision"],
    )
    return OnlineTeacher(teacher=teacher, basis=read_basis(basis))
