"""The recurrent U-ViT under diffusion forcing, and rollouts that carry its state along.

Shape suffixes: B clips, L frames of a window, S pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geomem.diffusion.samplers import VelocityModel
from geomem.diffusion.schedule import CosineSchedule
from geomem.errors import InputError
from geomem.formats.checkpoints import load_module
from geomem.geometry.rays import encode_cameras_apart
from geomem.methods.clips import Clips, Sampling, WindowSampling
from geomem.methods.dfot.method import schedule_for
from geomem.methods.dfot.reading import ReadingModel
from geomem.methods.recurrent.spec import RecurrentSettings
from geomem.methods.registry import Generator, Weights
from geomem.methods.training import MEMORY
from geomem.methods.windows import WindowedGenerator
from geomem.networks.uvit.layers import seed_dropout
from geomem.networks.uvit.model import UViT3DPose
from geomem.networks.uvit.recurrent import Carried, UViTRecurrent


def clean_level(schedule: CosineSchedule, like: Tensor) -> Tensor:
    """Return what the network is told of finished frames: time 0."""
    return schedule.training_noise_levels(torch.zeros((), device=like.device))


class RecurrentModel(ReadingModel):
    """The network under training: draws and loss are those of diffusion forcing.

    The history of a window is written first, from an empty state; the loss is of the window alone.
    """

    backbone: UViTRecurrent

    def blocks(self) -> list[nn.Module]:
        """Return the blocks of all levels and the states."""
        return [*super().blocks(), *self.backbone.places]

    def remembered(self, windows: dict[str, Tensor]) -> Carried:
        """Return the state after the windows' histories; their frames have their clip's dropout."""
        images, cameras = windows[MEMORY + "images"], windows[MEMORY + "cameras"]
        seeds, size = windows["dropout_seeds"], images.shape[-1]
        seed_dropout(self, seeds.repeat_interleave(images.shape[1]))
        carried = self.backbone.begin(cameras[:, 0], size)
        present = windows[MEMORY + "present"] > 0
        level = clean_level(schedule_for(size), images)
        carried = self.backbone.write(carried, images, cameras, level, present)
        seed_dropout(self, seeds)
        return carried

    def reading(self, memory: Carried, cameras: Tensor) -> dict[str, Any]:
        """Return the state, and where the windows' frames look."""
        return {"carried": memory, "where": self.backbone.locate(memory, cameras)}


def build(settings: RecurrentSettings, *, initial: Path | None) -> RecurrentModel:
    """Return the untrained states on the backbone of a checkpoint; see `Method.build`.

    Raises:
        InputError: If there is no checkpoint to start from.
    """
    if initial is None:
        raise InputError("recurrent starts from the backbone of a checkpoint: name `initial`")
    base = load_module(UViT3DPose, initial, "backbone")
    return _on(base, settings)


def build_on(start: Any, settings: RecurrentSettings) -> RecurrentModel:
    """Return untrained states on the backbone of an untrained `dfot`."""
    return _on(start.backbone, settings)


def _on(base: UViT3DPose, settings: RecurrentSettings) -> RecurrentModel:
    return RecurrentModel(UViTRecurrent.from_base(base, **settings.model_dump()))


@dataclass(frozen=True, kw_only=True)
class RecurrentGenerator(Generator):
    """The trained network at work."""

    backbone: UViTRecurrent

    def generate(self, clips: Clips, sampling: Sampling, *, progress: Callable[..., Any]) -> None:
        """Fill `clips.video` in place; the state begins empty with the clips' first frames."""
        begun = self.backbone.begin(clips.cameras[:, 0], clips.video.shape[-1])
        _Rollout(self.backbone, begun).generate(clips, sampling, progress=progress)


class _Rollout(WindowedGenerator):
    """One rollout, with the state that it carries along."""

    def __init__(self, backbone: UViTRecurrent, carried: Carried) -> None:
        self.backbone, self.carried = backbone, carried
        self.written = 0  # frames, from the first one on

    def remembered(self, clips: Clips, known: list[int], frames: list[int]) -> dict[str, Tensor]:
        """Write what has been finished since the last window; every frame is written once."""
        new = [frame for frame in sorted(known) if frame >= self.written]
        images, cameras = clips.video[:, new], clips.cameras[:, new]
        present = torch.ones(images.shape[:2], dtype=torch.bool, device=images.device)
        level = clean_level(schedule_for(images.shape[-1]), images)
        self.carried = self.backbone.write(self.carried, images, cameras, level, present)
        self.written = new[-1] + 1
        return {}

    def bind(
        self, cameras_BL16: Tensor, size: int, memory: dict[str, Tensor], sampling: WindowSampling
    ) -> VelocityModel:
        """Return the network with a window's cameras and the state before it bound."""
        rays = encode_cameras_apart(cameras_BL16, size)
        autocast = torch.autocast(
            cameras_BL16.device.type, torch.bfloat16, enabled=sampling.precision == "bf16"
        )
        with autocast:
            own = self.backbone.embed_cameras(*rays)
            where = self.backbone.locate(self.carried, cameras_BL16)
        carried = self.carried

        @autocast
        def predict_v(x: Tensor, levels: Tensor, unconditional: Tensor, clip: Tensor) -> Tensor:
            v: Tensor = self.backbone(
                x,
                levels,
                None,
                unconditional,
                carried=carried.of(clip),
                where={level: e[clip] for level, e in where.items()},
                camera_embedding=own[clip],
            )
            return v.float()

        return predict_v


def load(weights: Weights, *, device: torch.device) -> RecurrentGenerator:
    """Return the trained network on a device; see `Method.load`."""
    backbone = load_module(UViTRecurrent, weights.checkpoint, "backbone").eval().to(device)
    return RecurrentGenerator(backbone=backbone)
