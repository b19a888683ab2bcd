"""Generate long videos window by window, with the memory read anew before each.

Shape suffixes: B clips, T frames of a clip, L frames of a window, S pixels.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from geomem.diffusion.guidance import HistoryGuidance
from geomem.diffusion.rollout_plans import SamplerWindow
from geomem.diffusion.samplers import VelocityModel, sample_window
from geomem.methods.clips import Clips, Sampling, WindowSampling
from geomem.methods.registry import Generator


def noise_generator(clip_id: str, window: SamplerWindow, seed: int) -> torch.Generator:
    """Return the generator of one clip's noise in one window, the same in every batch."""
    name = f"{seed}/{clip_id}/{window.frames}".encode()
    number = int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(number)


class WindowedGenerator(Generator):
    """A diffusion model that makes a window at a time: keyframes, then the frames between them
    (the paper, "Rollouts")."""

    @abstractmethod
    def bind(
        self, cameras_BL16: Tensor, size: int, memory: dict[str, Tensor], sampling: WindowSampling
    ) -> VelocityModel:
        """Return the network with a window's conditions bound, as the sampler sees it.

        Args:
            cameras_BL16: Cameras of the window.
            size: Side S of its frames.
            memory: What the memory tells of its frames, (B, ...) by name; empty without one.
            sampling: Precision, and the scale of the guidance on the memory.
        """

    def conditions(self, clips: Clips, frames: list[int]) -> Tensor:
        """Return what `bind` is told of the frames of a window: their cameras (B, L, 16)."""
        return clips.cameras[:, frames]

    def remembered(self, clips: Clips, known: list[int], frames: list[int]) -> dict[str, Tensor]:
        """Return what the clips' memories tell of the frames of a window, (B, ...) by name.

        Args:
            clips: In the making.
            known: Numbers of the finished frames.
            frames: Of the window.
        """
        return clips.remembered(sorted(known), frames) if clips.memory else {}

    def sample(
        self,
        predict_v: VelocityModel,
        context_BTCSS: Tensor,
        context_mask_BT: Tensor,
        sampling: WindowSampling,
        guidance: HistoryGuidance,
        generators: Sequence[torch.Generator],
    ) -> Tensor:
        """Return a batch of windows (B, T, C, S, S) with the missing frames made.

        Args:
            predict_v: What `bind` returned.
            context_BTCSS: Known frames in [-1, 1]; others are not looked at.
            context_mask_BT: `FrameState` values.
            sampling: Schedule and steps.
            guidance: On the history.
            generators: One a clip.
        """
        return sample_window(
            predict_v,
            context_BTCSS,
            context_mask_BT,
            schedule=sampling.schedule,
            guidance=guidance,
            steps=sampling.steps,
            level_power=sampling.level_power,
            generators=generators,
        )

    def generate(self, clips: Clips, sampling: Sampling, *, progress: Callable[..., Any]) -> None:
        """Fill `clips.video` in place.

        Networks and clips are on one device. With precision `bf16` the networks run under autocast;
        the sampler's own arithmetic, the memory and the rays are float32 always.
        """
        how = sampling.windows
        assert how is not None
        known, device = list(range(sampling.context)), clips.video.device
        stages = [(window, how.keyframes) for window in how.plan.keyframe_windows]
        stages += [(w, how.interpolation) for batch in how.plan.interpolation for w in batch]
        for window, guidance in progress(stages, total=len(stages)):
            frames = list(window.frames)
            told = self.remembered(clips, known, frames)
            made = self.sample(
                self.bind(self.conditions(clips, frames), clips.video.shape[-1], told, how),
                clips.video[:, frames],
                torch.tensor(window.context_mask, device=device).expand(len(clips.ids), -1),
                how,
                guidance,
                [noise_generator(name, window, how.seed) for name in clips.ids],
            )
            for position, frame in enumerate(frames):
                if frame in window.generated:
                    clips.video[:, frame] = made[:, position].clamp(-1, 1)
                    if "coverage" in told:
                        clips.coverage[:, frame] = told["coverage"][:, position].mean((1, 2, 3))
            known.extend(window.generated)
