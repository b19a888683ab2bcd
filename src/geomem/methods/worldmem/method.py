"""WorldMem under diffusion forcing: the loss of windows that read a bank, and their sampling.

Shape suffixes: B clips, T frames of a window, L frames of a sampled window, K remembered frames, S
pixels.
"""

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
from geomem.methods.clips import WindowSampling
from geomem.methods.dfot.method import schedule_for
from geomem.methods.dfot.reading import ReadingModel
from geomem.methods.registry import Weights
from geomem.methods.training import MEMORY
from geomem.methods.windows import WindowedGenerator
from geomem.methods.worldmem.settings import WorldMemSettings
from geomem.networks.uvit.layers import seed_dropout
from geomem.networks.uvit.model import UViT3DPose
from geomem.networks.uvit.worldmem import Remembered, UViTWorldMem

BANK = ("images", "cameras", "elapsed", "present")


class WorldMemModel(ReadingModel):
    """The network under training: draws and loss are those of diffusion forcing.

    No noise is added to remembered frames, and they do not enter the loss.
    """

    backbone: UViTWorldMem

    def __init__(self, backbone: UViTWorldMem, *, level: float) -> None:
        """Bind the network; `level` is the noise time that it is told of remembered frames."""
        super().__init__(backbone)
        self.level = level

    def blocks(self) -> list[nn.Module]:
        """Return the blocks of all levels and the readers."""
        return [*super().blocks(), *self.backbone.places]

    def remembered(self, windows: dict[str, Tensor]) -> Remembered:
        """Return the bank as the windows see it; its frames have their clip's dropout."""
        bank, seeds = {name: windows[MEMORY + name] for name in BANK}, windows["dropout_seeds"]
        schedule = schedule_for(windows["frames"].shape[-1])
        seed_dropout(self, seeds.repeat_interleave(bank["images"].shape[1]))
        found = recall(self.backbone, bank, windows["cameras"], schedule, self.level)
        seed_dropout(self, seeds)
        return found

    def reading(self, memory: Remembered, cameras: Tensor) -> dict[str, Any]:
        """Return the bank, which knows the windows' cameras already."""
        return {"bank": memory}


def recall(
    backbone: UViTWorldMem,
    bank: dict[str, Tensor],
    cameras: Tensor,
    schedule: CosineSchedule,
    level: float,
) -> Remembered:
    """Run the frames of a bank through the network and return them as a window sees them.

    Args:
        backbone: The network.
        bank: What a memory of form `bank` gives, (B, K, ...) by name.
        cameras: Of the window (B, T, 16).
        schedule: Noise schedule.
        level: Noise time that the network is told of remembered frames.
    """
    images = bank["images"].to(cameras)
    told = schedule.training_noise_levels(torch.tensor(level, device=images.device))
    return backbone.locate(
        backbone.remember(images, bank["cameras"], told),
        bank["cameras"],
        cameras,
        bank["elapsed"],
        bank["present"] > 0,
        images.shape[-1],
    )


def build(settings: WorldMemSettings, *, initial: Path | None) -> WorldMemModel:
    """Return the untrained readers on the backbone of a checkpoint; see `Method.build`.

    Raises:
        InputError: If there is no checkpoint to start from.
    """
    if initial is None:
        raise InputError("worldmem starts from the backbone of a checkpoint: name `initial`")
    base = load_module(UViT3DPose, initial, "backbone")
    return _on(base, settings)


def build_on(start: Any, settings: WorldMemSettings) -> WorldMemModel:
    """Return untrained readers on the backbone of an untrained `dfot`."""
    return _on(start.backbone, settings)


def _on(base: UViT3DPose, settings: WorldMemSettings) -> WorldMemModel:
    backbone = UViTWorldMem.from_base(base, pose_channels=settings.pose_channels)
    return WorldMemModel(backbone, level=settings.memory_level)


@dataclass(frozen=True, kw_only=True)
class WorldMemSampler(WindowedGenerator):
    """The trained network at work.

    Attributes:
        backbone: The network.
        level: Noise time that it is told of remembered frames.
    """

    backbone: UViTWorldMem
    level: float

    def bind(
        self, cameras_BL16: Tensor, size: int, memory: dict[str, Tensor], sampling: WindowSampling
    ) -> VelocityModel:
        """Return the network with a window's cameras and bank bound.

        A window of s steps and R branches costs s R evaluations of its L frames, and one of its K
        remembered ones, which is made here; none where nothing outside the window is finished yet.
        """
        rays = encode_cameras_apart(cameras_BL16, size)
        autocast = torch.autocast(
            cameras_BL16.device.type, torch.bfloat16, enabled=sampling.precision == "bf16"
        )
        bank: Remembered | None = None
        with autocast:
            own = self.backbone.embed_cameras(*rays)
            if memory and memory["present"].shape[1]:
                bank = recall(self.backbone, memory, cameras_BL16, sampling.schedule, self.level)

        @autocast
        def predict_v(x: Tensor, levels: Tensor, unconditional: Tensor, clip: Tensor) -> Tensor:
            v: Tensor = self.backbone(
                x,
                levels,
                None,
                unconditional,
                bank=bank and bank.of(clip),
                camera_embedding=own[clip],
            )
            return v.float()

        return predict_v


def load(settings: WorldMemSettings, weights: Weights, *, device: torch.device) -> WorldMemSampler:
    """Return the trained network on a device; see `Method.load`."""
    backbone = load_module(UViTWorldMem, weights.checkpoint, "backbone").eval().to(device)
    return WorldMemSampler(backbone=backbone, level=settings.memory_level)
