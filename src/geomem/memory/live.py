"""The memory of a variant while it generates: built anew from whatever frames are finished."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from geomem.memory.bank import elapsed, pad_bank
from geomem.memory.reconstruction import FeatureBasis, compressed_features, reconstruct
from geomem.memory.registry import Memory, MemoryKind, Seen
from geomem.memory.selection import choose_frames
from geomem.networks.vggt.model import VGGT


@dataclass(frozen=True, kw_only=True)
class Reconstructor:
    """The frozen teacher at work on finished frames.

    Attributes:
        teacher: The frozen model.
        basis: Compression of its features.
        scale_from: As for `reconstruct`; empty where nobody asks for geometry.
        scale_prior_weight: As for `reconstruct`.
    """

    teacher: VGGT
    basis: FeatureBasis
    scale_from: str = ""
    scale_prior_weight: float = 0.0


@dataclass(frozen=True, kw_only=True)
class LiveMemory:
    """Chooses finished frames of a clip, builds the memory of them and reads it.

    Attributes:
        kind: Of the memory.
        settings: Of the kind.
        frames: Number of memory frames K; 0: always empty.
        channels: Of the compressed features.
        selection: How frames are chosen.
        near: Depth at which views begin, for `choose_frames`.
        far: Depth at which they end.
        truth: Whether depth is the truth instead of the teacher's.
        reconstructor: Tells what the kind needs of its frames; None where it needs nothing.
    """

    kind: MemoryKind
    settings: Any
    frames: int
    channels: int
    selection: str
    near: float
    far: float
    truth: bool = False
    reconstructor: Reconstructor | None = None

    def choose(self, known: list[int], targets: Sequence[int], cameras_T16: Tensor) -> list[int]:
        """Return which of the finished frames `known` enter the memory."""
        return choose_frames(
            known,
            targets,
            cameras_T16,
            self.frames,
            selection=self.selection,
            near=self.near,
            far=self.far,
        )

    def build(
        self,
        video_T3SS: Tensor,
        cameras_T16: Tensor,
        known: list[int],
        targets: Sequence[int],
        depth_TSS: Tensor | None,
        context: int | None = None,
    ) -> Memory:
        """Build the memory of a clip; arguments as `read`."""
        if not self.frames:
            return self.kind.empty(self.channels, video_T3SS.device)
        chosen = self.choose(known, targets, cameras_T16)
        images, cameras = (video_T3SS[chosen] + 1) / 2, cameras_T16[chosen]
        told = self._told(images, cameras)
        if self.truth:
            assert depth_TSS is not None
            told["depth"] = depth_TSS[chosen]
        if context is not None:
            told["given"] = torch.tensor(chosen, device=images.device) < context
        told["elapsed"] = elapsed(chosen, [*targets], images)
        return self.kind.build(Seen(frames=images, cameras=cameras, **told), self.settings)

    def _told(self, images: Tensor, cameras: Tensor) -> dict[str, Tensor]:
        """Return what the kind needs of the chosen frames."""
        if not self.kind.needs:
            return {}
        assert self.reconstructor is not None
        teacher, basis = self.reconstructor.teacher, self.reconstructor.basis
        if "geometry" not in self.kind.needs:
            return {"features": compressed_features(teacher, images[None], basis=basis)[0]}
        made = reconstruct(
            teacher,
            images[None],
            cameras[None],
            basis=basis,
            scale_from=self.reconstructor.scale_from,
            prior_weight=self.reconstructor.scale_prior_weight,
        )
        return {
            "depth": made.depth[0],
            "confidence": made.confidence[0],
            "features": made.features[0],
        }

    @torch.no_grad()
    def read(
        self,
        video_T3SS: Tensor,
        cameras_T16: Tensor,
        known: list[int],
        targets: Sequence[int],
        depth_TSS: Tensor | None,
        context: int | None = None,
    ) -> dict[str, Tensor]:
        """Return what finished frames of one clip tell of target frames, by name.

        Args:
            video_T3SS: Frames in [-1, 1]; only known ones are looked at.
            cameras_T16: Cameras of all frames.
            known: Numbers of the finished frames, rising.
            targets: Numbers of the target frames.
            depth_TSS: True depth, looked at with `truth` alone.
            context: How many frames, the first ones, are true; None: all that are known.
        """
        built = self.build(video_T3SS, cameras_T16, known, targets, depth_TSS, context)
        told = built.read(cameras_T16[list(targets)], video_T3SS.shape[-1])
        # clips that are generated together may have chosen different numbers of frames
        return pad_bank(told, self.frames) if self.kind.form == "bank" else told
