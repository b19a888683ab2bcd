"""Clips in the making, and what a method is told of how to make them.

Shape suffixes: B clips, T frames of a clip, S pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from geomem.diffusion.guidance import HistoryGuidance
from geomem.diffusion.rollout_plans import RolloutPlan
from geomem.diffusion.schedule import CosineSchedule
from geomem.memory.live import LiveMemory


@dataclass(kw_only=True)
class Clips:
    """A batch of clips in the making.

    Attributes:
        ids: Clip ids; they seed the noise, so a clip does not depend on its batch.
        video: Frames (B, T, 3, S, S) in [-1, 1]; the context is given.
        cameras: (B, T, 16).
        memory: The variant's memory, or None.
        depth: True depth (B, T, S, S) for a memory that is given it, or None.
        coverage: Share of pixels that the memory covered when a frame was made, (B, T); NaN for
            given frames and without memory.
        actions: Codes (B, T) of what led to each frame, where the clips have them, or None.
        truth: All true frames, as `video`, for a method that sees them; else None.
        context: Number of given frames, which a memory trusts more; None: all that it reads.
    """

    ids: list[str]
    video: Tensor
    cameras: Tensor
    memory: LiveMemory | None = None
    depth: Tensor | None = None
    actions: Tensor | None = None
    truth: Tensor | None = None
    context: int | None = None
    coverage: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.coverage = self.video.new_full(self.video.shape[:2], torch.nan)

    def remembered(self, known: list[int], targets: Sequence[int]) -> dict[str, Tensor]:
        """Return what the memory of every clip tells of target frames, (B, ...) by name."""
        assert self.memory is not None
        depths = [None] * len(self.ids) if self.depth is None else list(self.depth)
        read = [
            self.memory.read(video, cameras, known, targets, depth, self.context)
            for video, cameras, depth in zip(self.video, self.cameras, depths, strict=True)
        ]
        return {name: torch.stack([one[name] for one in read]) for name in read[0]}


@dataclass(frozen=True, kw_only=True)
class WindowSampling:
    """How a diffusion model makes clips window by window.

    Attributes:
        plan: Windows in their order.
        schedule: Noise schedule.
        keyframes: Guidance while keyframes are made.
        interpolation: Guidance while frames between them are made.
        steps: Of the sampler.
        level_power: Spacing of its noise levels.
        seed: Of the noise.
        precision: `fp32`, or `bf16` for networks under autocast.
        memory_guidance: Scale of the guidance on the memory; 1 is none.
    """

    plan: RolloutPlan
    schedule: CosineSchedule
    keyframes: HistoryGuidance
    interpolation: HistoryGuidance
    steps: int
    seed: int
    precision: str = "fp32"
    memory_guidance: float = 1.0
    level_power: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How clips are made.

    Attributes:
        context: Number of given frames, the first ones.
        windows: How a network makes the others; None for a method without one.
    """

    context: int
    windows: WindowSampling | None = None
