"""Generate long videos window by window, with the memory refreshed after each.

Shape suffixes: B clips, T frames of a clip, L frames of a window, K memory frames, S pixels.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from geomem.diffusion.guidance import HistoryGuidance
from geomem.diffusion.plans import RolloutPlan, Window
from geomem.diffusion.samplers import sample_window
from geomem.diffusion.schedule import CosineSchedule
from geomem.geometry.rays import encode_cameras_apart
from geomem.memory.explicit import ExplicitMemory
from geomem.memory.implicit import encode_history
from geomem.memory.reconstruction import FeatureBasis, compressed_features, reconstruct
from geomem.memory.selection import choose_frames
from geomem.models.control import MemoryControl
from geomem.models.implicit import ImplicitMemory
from geomem.models.uvit import UViT3DPose
from geomem.models.vggt import VGGT

MAP_AXES = 5


@dataclass(frozen=True, kw_only=True)
class MemoryReader:
    """Builds the memory of a clip from its finished frames.

    Attributes:
        teacher: The frozen teacher.
        basis: Compression of its features.
        settings: `frames`, `geometry`, `selection`, `overlap_near`, `overlap_far`, `voxel_size`,
            `budget`, `confidence_quantile`, `scale_from`, `scale_prior_weight`; and `guidance`, the
            scale of the guidance on the memory.
        implicit: What compresses the history instead of a map of points, or None.
    """

    teacher: VGGT
    basis: FeatureBasis
    settings: dict[str, Any]
    implicit: ImplicitMemory | None = None

    def choose(self, known: list[int], targets: Sequence[int], cameras_T16: Tensor) -> list[int]:
        """Return which of the finished frames `known` enter the memory."""
        return choose_frames(
            known,
            targets,
            cameras_T16,
            self.settings["frames"],
            selection=self.settings["selection"],
            near=self.settings["overlap_near"],
            far=self.settings["overlap_far"],
        )

    def compress(
        self, video_T3SS: Tensor, cameras_T16: Tensor, known: list[int], targets: Sequence[int]
    ) -> Tensor:
        """Return the implicit memory (Q, D) of one clip's finished frames; arguments as `build`."""
        assert self.implicit is not None
        chosen = self.choose(known, targets, cameras_T16)
        images = (video_T3SS[chosen] + 1) / 2
        features = compressed_features(self.teacher, images[None], basis=self.basis)[0]
        first = cameras_T16[targets[0]]
        history = encode_history(features, cameras_T16[chosen], first, frames=len(chosen))
        memory: Tensor = self.implicit(history[None])[0]
        return memory

    def build(
        self,
        video_T3SS: Tensor,
        cameras_T16: Tensor,
        known: list[int],
        targets: Sequence[int],
        depth_TSS: Tensor | None,
    ) -> ExplicitMemory:
        """Build the memory from the finished frames `known` of one clip.

        Args:
            video_T3SS: Frames in [-1, 1]; only known ones are read.
            cameras_T16: Cameras of all frames.
            known: Numbers of finished frames, rising.
            targets: Numbers of the frames that will read it.
            depth_TSS: True depth, read with `geometry: truth` alone.
        """
        settings = self.settings
        if not settings["frames"]:
            return ExplicitMemory.empty(self.basis.components.shape[1], device=video_T3SS.device)
        chosen = self.choose(known, targets, cameras_T16)
        images, cameras = (video_T3SS[chosen] + 1) / 2, cameras_T16[chosen]
        made = reconstruct(
            self.teacher,
            images[None],
            cameras[None],
            basis=self.basis,
            scale_from=settings["scale_from"],
            prior_weight=settings["scale_prior_weight"],
        )
        truth = settings["geometry"] == "truth"
        if truth:
            assert depth_TSS is not None
        depth = depth_TSS[chosen] if truth and depth_TSS is not None else made.depth[0]
        return ExplicitMemory.build(
            images,
            cameras,
            depth,
            made.confidence[0],
            made.features[0],
            budget=settings["budget"],
            voxel_size=settings["voxel_size"],
            confidence_quantile=settings["confidence_quantile"],
        )


@dataclass(kw_only=True)
class Clips:
    """A batch of clips in the making.

    Attributes:
        ids: Clip ids; they seed the noise, so a clip does not depend on its batch.
        video: Frames (B, T, 3, S, S) in [-1, 1]; the context is given.
        cameras: (B, T, 16).
        depth: True depth (B, T, S, S) or None.
        coverage: Share of pixels that the memory covered when a frame was made, (B, T); NaN for
            given frames and without memory.
    """

    ids: list[str]
    video: Tensor
    cameras: Tensor
    depth: Tensor | None
    coverage: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.coverage = self.video.new_full(self.video.shape[:2], torch.nan)


def noise_generator(clip_id: str, window: Window, seed: int) -> torch.Generator:
    """Return the generator of one clip's noise in one window, the same in every batch."""
    name = f"{seed}/{clip_id}/{window.frames}".encode()
    number = int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(number)


def generate(
    clips: Clips,
    plan: RolloutPlan,
    *,
    backbone: UViT3DPose,
    control: MemoryControl | None,
    memory: MemoryReader | None,
    schedule: CosineSchedule,
    keyframe_guidance: HistoryGuidance,
    interpolation_guidance: HistoryGuidance,
    steps: int,
    seed: int,
    progress: Callable[..., Any],
    precision: str = "fp32",
) -> None:
    """Fill `clips.video` in place: keyframes first, then the frames between them (METHOD 8).

    Models and clips are on one device. With precision `bf16` the networks run under autocast; the
    sampler's own arithmetic, the memory and the rays are float32 always.
    """
    known, device = list(range(plan.context)), clips.video.device
    stages = [(window, keyframe_guidance) for window in plan.keyframe_windows]
    stages += [(w, interpolation_guidance) for batch in plan.interpolation for w in batch]
    for window, guidance in progress(stages, total=len(stages)):
        maps = None
        if memory is not None:
            maps = _memory_inputs(clips, window, sorted(known), memory)
        made = sample_window(
            _bind(clips, window, backbone, control, maps, precision == "bf16"),
            clips.video[:, list(window.frames)],
            torch.tensor(window.context_mask, device=device).expand(len(clips.ids), -1),
            schedule=schedule,
            guidance=guidance,
            steps=steps,
            generators=[noise_generator(name, window, seed) for name in clips.ids],
            memory_scale=1.0 if memory is None else memory.settings["guidance"],
        )
        for position, frame in enumerate(window.frames):
            if frame in window.generated:
                clips.video[:, frame] = made[:, position].clamp(-1, 1)
                if maps is not None and maps.ndim == MAP_AXES:
                    clips.coverage[:, frame] = maps[:, position, -2].mean((-2, -1))
        known.extend(window.generated)


def _memory_inputs(clips: Clips, window: Window, known: list[int], memory: MemoryReader) -> Tensor:
    """Return what the branch reads for a window: maps (B, L, M, S, S) of every clip's memory in the
    window's views, or implicit memories (B, Q, D)."""
    if memory.implicit is not None:
        pairs = zip(clips.video, clips.cameras, strict=True)
        return torch.stack([memory.compress(v, c, known, window.frames) for v, c in pairs])
    maps = []
    for clip in range(len(clips.ids)):
        depth = None if clips.depth is None else clips.depth[clip]
        built = memory.build(clips.video[clip], clips.cameras[clip], known, window.frames, depth)
        cameras = clips.cameras[clip, list(window.frames)]
        maps.append(built.render(cameras, clips.video.shape[-1]))
    return torch.stack(maps)


def _bind(
    clips: Clips,
    window: Window,
    backbone: UViT3DPose,
    control: MemoryControl | None,
    maps: Tensor | None,
    bf16: bool,
) -> Callable[..., Tensor]:
    """Return the network with the window's cameras and memory bound."""
    rays = encode_cameras_apart(clips.cameras[:, list(window.frames)], clips.video.shape[-1])
    autocast = torch.autocast(clips.video.device.type, torch.bfloat16, enabled=bf16)
    with autocast:
        own = backbone.embed_cameras(*rays)
        branch = None if control is None else control.embed_cameras(*rays)

    @autocast
    def predict_v(
        x: Tensor,
        noise_levels: Tensor,
        camera_mask: Tensor,
        clip: Tensor,
        with_memory: bool,
    ) -> Tensor:
        residuals = None
        if with_memory and control is not None and branch is not None and maps is not None:
            residuals = control(
                x,
                noise_levels,
                None,
                maps[clip],
                camera_mask,
                camera_embedding=branch[clip],
            )
        out: Tensor = backbone(
            x, noise_levels, None, camera_mask, camera_embedding=own[clip], control=residuals
        )
        return out

    return predict_v
