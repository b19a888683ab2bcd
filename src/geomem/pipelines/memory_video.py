"""A diffusers pipeline: given frames and cameras in, a long video out.

It is the rollouts' own sampler, plan and memory behind diffusers' interface: equal frames, settings
and seed give the videos that the stage `rollouts` makes. Shape suffixes: T frames, S pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import BaseOutput
from pydantic import ValidationError
from torch import Tensor, nn

from geomem.diffusion.rollout_plans import density_for
from geomem.errors import InputError
from geomem.geometry.cameras import check_cameras
from geomem.memory.live import LiveMemory, Reconstructor
from geomem.methods.clips import Clips, Sampling
from geomem.methods.dfot.method import Sampler
from geomem.networks.uvit.control import MemoryControl
from geomem.networks.uvit.gate import CopyGate
from geomem.networks.uvit.implicit import ImplicitMemory
from geomem.networks.uvit.model import UViT3DPose
from geomem.pipelines.components import FrozenTeacher, TeacherBasis
from geomem.pipelines.settings import PipelineSettings
from geomem.rollouts.protocols import live_memory, window_sampling
from geomem.settings.jobs import MemoryJob, SamplingJob


@dataclass
class MemoryVideo(BaseOutput):
    """What the pipeline returns.

    Attributes:
        video: All frames (T, 3, S, S) in [0, 1], the given ones first, as they were given.
        coverage: Share of pixels that the memory covered when a frame was made (T,); NaN of given
            frames and without a memory.
    """

    video: Tensor
    coverage: Tensor


class MemoryVideoPipeline(DiffusionPipeline):
    """The U-ViT with its memory branch, the frozen teacher and the basis of its features."""

    _optional_components = ["control", "gate", "compress", "teacher", "basis"]  # noqa: RUF012

    def __init__(
        self,
        backbone: UViT3DPose,
        control: MemoryControl | None = None,
        gate: CopyGate | None = None,
        compress: ImplicitMemory | None = None,
        teacher: FrozenTeacher | None = None,
        basis: TeacherBasis | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        """Put the components together.

        Args:
            backbone: The U-ViT.
            control: The memory's branch, or None.
            gate: The copy gate, or None.
            compress: What compresses a memory of tokens for the branch, or None.
            teacher: Tells the memory of finished frames; None where it asks nobody.
            basis: Of the teacher's features; likewise.
            settings: Of `PipelineSettings`, as plain values.

        Raises:
            InputError: If the settings are not those of a pipeline.
        """
        super().__init__()
        try:
            self.settings = PipelineSettings.model_validate(dict(settings or {}))
        except (ValidationError, ValueError) as error:
            told = " ".join(str(error).split())
            raise InputError(f"the pipeline's `settings` cannot be read: {told}") from None
        modules: dict[str, nn.Module | None] = {
            "backbone": backbone,
            "control": control,
            "gate": gate,
            "compress": compress,
            "teacher": teacher,
            "basis": basis,
        }
        self.register_modules(
            **{name: module and module.eval() for name, module in modules.items()}
        )
        self.register_to_config(settings=self.settings.recorded())

    @torch.no_grad()
    def __call__(
        self,
        frames: Tensor,
        cameras: Tensor,
        *,
        keyframe_density: float | None = None,
        steps: int | None = None,
        guidance: Mapping[str, Any] | None = None,
        memory_guidance: float | None = None,
        memory_frames: int | None = None,
        seed: int | None = None,
        clip_id: str = "clip",
    ) -> MemoryVideo:
        """Generate the frames after the given ones. What is None is as the settings say.

        Args:
            frames: Given frames (T0, 3, S, S) in [0, 1], at least one.
            cameras: Of all T > T0 frames (T, 16): normalised fx fy cx cy, then the 3x4
                world-to-camera matrix row by row, OpenCV axes, metres.
            keyframe_density: Share of frames that are made first, in (0, 1]; the others are made
                between them.
            steps: Of the sampler.
            guidance: On the history: `scheme` and its arguments, as `rollouts.keyframes`.
            memory_guidance: Scale of the guidance on the memory; 1 is none, 0 is without memory.
            memory_frames: Finished frames that enter the memory, at most.
            seed: Of the noise.
            clip_id: Part of the noise's seed, as the id of a clip is in a rollout.

        Raises:
            InputError: If an argument does not fit the model, or is out of its range.
        """
        self._check(frames, cameras)
        context, length = len(frames), len(cameras)
        asked = {
            "keyframe_density": keyframe_density,
            "steps": steps,
            "keyframes": guidance and dict(guidance),
            "interpolation": guidance and dict(guidance),
            "memory_guidance": memory_guidance,
            "seed": seed,
        }
        sampling = self._sampling(length, {k: v for k, v in asked.items() if v is not None})
        device = self._execution_device
        video = torch.full(
            (1, length, *frames.shape[1:]), torch.nan, device=device, dtype=torch.float32
        )
        video[0, :context] = frames.to(video) * 2 - 1
        try:
            windows = window_sampling(
                sampling, frames=length, context=context, resolution=frames.shape[-1]
            )
        except ValueError as error:
            raise InputError(str(error)) from None
        clips = Clips(
            ids=[clip_id],
            video=video,
            cameras=cameras.to(video)[None],
            memory=self._memory(memory_frames),
            context=context,
        )
        self._sampler().generate(
            clips,
            Sampling(context=context, windows=windows),
            progress=lambda stages, total: self.progress_bar(stages),
        )
        made = (clips.video[0] + 1) / 2
        made[:context] = frames.to(made)  # rounded on the way to [-1, 1]
        return MemoryVideo(video=made, coverage=clips.coverage[0])

    def _check(self, frames: Tensor, cameras: Tensor) -> None:
        """Raise InputError unless frames and cameras are what the model can go on from."""
        size = self.settings.resolution
        if frames.ndim != 4 or tuple(frames.shape[1:]) != (3, size, size) or not len(frames):
            raise InputError(
                f"frames must be (T0, 3, {size}, {size}) with T0 >= 1, got {tuple(frames.shape)}"
            )
        if not (frames.is_floating_point() and frames.min() >= 0 and frames.max() <= 1):
            raise InputError("frames must be numbers in [0, 1]; divide bytes by 255")
        if cameras.ndim != 2 or cameras.shape[1] != 16 or len(cameras) <= len(frames):
            raise InputError(
                f"cameras must be (T, 16) with T above the {len(frames)} given frames, got "
                f"{tuple(cameras.shape)}"
            )
        try:
            check_cameras(cameras)
        except ValueError as error:
            raise InputError(str(error)) from None

    def _sampling(self, frames: int, asked: dict[str, Any]) -> SamplingJob:
        """Return how a video of so many frames is made; the rule of density is the study's."""
        own = self.settings.sampling
        try:
            chosen = SamplingJob.model_validate(own.model_dump() | asked)
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(f"{first['loc'][0]} = {first['input']!r}: {first['msg']}") from None
        if "keyframe_density" not in asked:
            density = density_for(frames, window=own.window, density=own.keyframe_density)
            chosen = chosen.model_copy(update={"keyframe_density": density})
        return chosen

    def _memory(self, frames: int | None) -> LiveMemory | None:
        """Return the memory at work, of as many frames as are asked for."""
        memory = self.settings.memory
        if memory is None:
            if frames is not None:
                raise InputError(f"memory_frames = {frames}: this model has no memory")
            return None
        return live_memory(self._of_frames(memory, frames), self._reconstructor())

    def _of_frames(self, memory: MemoryJob, frames: int | None) -> MemoryJob:
        if frames is None:
            return memory
        if frames < 0 or (frames and self.teacher is None and memory.spec.needs):
            raise InputError(f"memory_frames = {frames}: this model can have 0 at most")
        if frames == 0 and not memory.spec.can_be_empty:
            raise InputError(f"memory_frames = 0: a memory of kind {memory.kind} cannot be empty")
        return memory.model_copy(update={"most": frames})

    def _reconstructor(self) -> Reconstructor | None:
        geometry = self.settings.geometry
        if self.teacher is None or self.basis is None:
            return None
        return Reconstructor(
            teacher=self.teacher.vggt,
            basis=self.basis.basis,
            **(geometry.model_dump() if geometry else {}),
        )

    def _sampler(self) -> Sampler:
        memory = self.settings.memory
        return Sampler(
            backbone=self.backbone,
            control=self.control,
            gate=self.gate,
            memory=self.compress,
            names=tuple(memory.face.channels) if memory and self.control is not None else (),
        )
