"""Build the modules of a variant, and the teacher that it may be aligned with, from settings."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.formats.teacher_sizes import teacher_config
from geomem.formats.teachers import load_image_teacher, load_teacher, read_basis
from geomem.memory.reconstruction import FeatureBasis, compressed_features, raw_features
from geomem.methods.training import TrainedMethod
from geomem.networks.dinov2 import image_tokens
from geomem.networks.projectors import AlignmentProjector, RepaProjector
from geomem.networks.vggt.layers import PatchEmbedder
from geomem.networks.vggt.model import VGGT
from geomem.settings.jobs import ImageTeacherModel, TrainingJob
from geomem.training.objective import aligned_frames


def build_model(settings: TrainingJob, *, initial: Path | None) -> TrainedMethod:
    """Return the untrained method of a variant.

    Args:
        settings: Of the job.
        initial: Checkpoint the backbone starts from, or None for random weights.
    """
    memory = settings.memory.face if settings.memory else None
    return settings.method.spec.build(settings.method.settings, memory=memory, initial=initial)


def build_projector(settings: TrainingJob) -> AlignmentProjector | RepaProjector | None:
    """Return the projector of the aligned hidden state, with its scale head; None without."""
    alignment = settings.alignment
    if alignment is None:
        return None
    if alignment.image_teacher:
        channels = image_teacher_sizes(alignment.image_teacher)[0]
    elif alignment.layer is not None:
        assert alignment.online is not None
        channels = 2 * teacher_config(alignment.online.architecture).embed_dim
    else:
        assert settings.features is not None
        channels = settings.features.aligned_channels
    kind = RepaProjector if alignment.objective == "repa" else AlignmentProjector
    projector = kind(settings.hidden_states[alignment.level].width, channels)
    # the released code leaves its projector and scale head out of the optimizer
    return projector.requires_grad_(alignment.objective != "as_released")


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
class RawTeacher:
    """The frozen teacher at work while a variant is trained; its tokens are not compressed.

    Attributes:
        teacher: The teacher.
        layer: Whose tokens are compared.
        frames: How many frames of a window it sees, spread evenly; None for all.
    """

    teacher: VGGT
    layer: int
    frames: int | None

    def tokens(self, frames: Tensor) -> Tensor:
        """Return the tokens (B, T', D, h, w) of frames (B, T, 3, S, S) in [-1, 1]."""
        seen = frames[:, aligned_frames(frames.shape[1], self.frames)]
        return raw_features(self.teacher, (seen + 1) / 2, layer=self.layer)

    def to(self, device: torch.device) -> Self:
        """Return it on a device."""
        return replace(self, teacher=self.teacher.to(device))


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


def image_teacher_sizes(model: ImageTeacherModel) -> tuple[int, int]:
    """Return width and image size of the 2D teacher."""
    if model.dinov2:
        return model.dinov2.embed_dim, model.dinov2.image_size
    assert model.encoder_of is not None
    config = teacher_config(model.encoder_of.architecture)
    return config.embed_dim, config.image_size


def open_image_teacher(weights: Path, model: ImageTeacherModel) -> OnlineImageTeacher:
    """Load the 2D teacher: DINOv2, or the image encoder of the VGGT that stands in for it."""
    if model.dinov2:
        encoder = load_image_teacher(weights, **model.dinov2.model_dump())
    else:
        assert model.encoder_of is not None
        stand_in = model.encoder_of
        vggt = load_teacher(weights, stand_in.architecture, sha256=stand_in.sha256)
        encoder = vggt.aggregator.patch_embed
    return OnlineImageTeacher(encoder=encoder, size=image_teacher_sizes(model)[1])


def online_teacher(
    settings: TrainingJob, weights: Path | None, basis: Path | None
) -> OnlineTeacher | RawTeacher | OnlineImageTeacher | None:
    """Load the teacher of a variant that is aligned without a cache; None where there is no such.

    Raises:
        InputError: If it is needed and its files were not given.
    """
    alignment = settings.alignment
    if alignment and alignment.image_teacher:
        if weights is None:
            raise InputError("alignment with a 2D teacher needs --weights")
        return open_image_teacher(weights, alignment.image_teacher)
    if not (alignment and alignment.online):
        return None
    if weights is None or (basis is None and alignment.layer is None):
        raise InputError("alignment with `features.online` needs --weights and --basis")
    teacher = load_teacher(weights, **alignment.online.model_dump())
    if alignment.layer is not None:
        frames = alignment.frames if alignment.teacher_sees == "aligned" else None
        return RawTeacher(teacher=teacher, layer=alignment.layer, frames=frames)
    assert basis is not None
    kept = settings.features.kept if settings.features else None
    return OnlineTeacher(teacher=teacher, basis=read_basis(basis, kept=kept))
