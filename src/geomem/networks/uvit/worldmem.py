"""WorldMem (arXiv 2504.12369) on the U-ViT: noisy frames read a bank of remembered ones.

Every remembered frame runs through the network as a clip of its own of one frame, so it sees
itself alone and no noisy frame sees it in ordinary attention. After each transformer block a noisy
frame's tokens attend to the tokens that the remembered frames have there,

    q = W_q (norm(x) + E_q),  k = W_k (norm(m) + E_k),  v = W_v norm(m),
    E = MLP(Plücker coordinates) + MLP(sinusoids of elapsed frames),

E relative to each noisy frame, whose own pose is the identity and whose own time is 0. All gates
start at zero: at initialisation the base's output does not change by a single bit.
Shape suffixes: B clips, T noisy frames, K remembered frames, N = B T, L tokens of a frame, C
channels, E embedding channels, S pixels.
"""

from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from einops import rearrange, repeat
from torch import Tensor, nn

from geomem.geometry.rays import plucker_rays
from geomem.networks.uvit.readers import MemoryReader, PoseEmbedding
from geomem.networks.uvit.visited import VisitedUViT


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """What the readers need of a bank for the windows of some clips.

    Attributes:
        states: Tokens of the remembered frames (B, K, L, C), a reader each.
        own: Pose part of E of the noisy frames' own tokens (B, T, L, C), a level each.
        own_time: Its time part (B, T, 1, C).
        poses: Pose part of E of the remembered frames' tokens (B, T, K, L, C), a level each.
        times: Its time part (B, T, K, 1, C).
        present: Which frames the bank really has (B, K), bool.
    """

    states: tuple[Tensor, ...]
    own: tuple[Tensor, ...]
    own_time: tuple[Tensor, ...]
    poses: tuple[Tensor, ...]
    times: tuple[Tensor, ...]
    present: Tensor

    def of(self, clip_N: Tensor) -> Self:
        """Return it for rows that belong to the given clips."""
        lists = {
            name: tuple(x[clip_N] for x in getattr(self, name))
            for name in ("states", "own", "own_time", "poses", "times")
        }
        return type(self)(**lists, present=self.present[clip_N])


class UViTWorldMem(VisitedUViT):
    """The U-ViT with a reader after each transformer block; these are at its two coarsest levels
    in all sizes of the study."""

    @register_to_config
    def __init__(
        self,
        channels: tuple[int, ...],
        *,
        emb_channels: int,
        num_updown_blocks: tuple[int, ...],
        num_mid_blocks: int,
        num_heads: int,
        block_types: tuple[str, ...],
        block_dropouts: tuple[float, ...],
        in_channels: int = 3,
        patch_size: int = 2,
        camera_channels: int = 180,
        camera_dropout: float = 0.1,
        frame_causal: bool = False,
        pose_channels: int = 64,
    ) -> None:
        """Build the network with random weights; `from_base` fills in the base's.

        Args:
            channels: Widths of the base; so are all arguments not named here.
            pose_channels: Hidden width of the perceptrons of E.

        Raises:
            ValueError: As for UViT3DPose, or if there is no transformer block.
        """
        super().__init__(
            channels,
            emb_channels=emb_channels,
            num_updown_blocks=num_updown_blocks,
            num_mid_blocks=num_mid_blocks,
            num_heads=num_heads,
            block_types=block_types,
            block_dropouts=block_dropouts,
            in_channels=in_channels,
            patch_size=patch_size,
            camera_channels=camera_channels,
            camera_dropout=camera_dropout,
            frame_causal=frame_causal,
        )
        self.places = nn.ModuleList(
            MemoryReader(channels[i], emb_channels, num_heads) for i in self.levels
        )
        self.pose_embeddings = nn.ModuleDict(
            {str(i): PoseEmbedding(pose_channels, channels[i]) for i in sorted({*self.levels})}
        )

    def zero_initialised_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the gates."""
        return [p for reader in self.places for p in reader.get_submodule("gates").parameters()]

    def locate(
        self,
        states: tuple[Tensor, ...],
        cameras: Tensor,
        window: Tensor,
        elapsed: Tensor,
        present: Tensor,
        size: int,
    ) -> Remembered:
        """Return a bank as it is seen from the frames of a window.

        Args:
            states: Result of `remember`.
            cameras: Of the remembered frames (B, K, 16).
            window: Cameras of the noisy frames (B, T, 16).
            elapsed: Frames that a remembered frame comes after a noisy one, (B, K, T).
            present: Which frames the bank really has (B, K), bool.
            size: Side S of the frames.
        """
        clips, frames = window.shape[:2]
        among = repeat(cameras, "b k c -> b t k c", t=frames)
        together = torch.cat([window[:, :, None], among], dim=2).flatten(0, 1)
        since = rearrange(F.pad(elapsed, (0, 0, 1, 0)), "b k t -> b t k")
        parts = []
        for name, embed in self.pose_embeddings.items():
            side = size // (self.patch_size << int(name))
            rays = plucker_rays(together, side).unflatten(0, (clips, frames))
            parts.append(embed(rays, since))
        return Remembered(
            states=states,
            own=tuple(pose[:, :, 0] for pose, _ in parts),
            own_time=tuple(time[:, :, 0] for _, time in parts),
            poses=tuple(pose[:, :, 1:] for pose, _ in parts),
            times=tuple(time[:, :, 1:] for _, time in parts),
            present=present,
        )

    def forward(
        self,
        x: Tensor,
        noise_levels: Tensor,
        rays: Tensor | None = None,
        camera_mask: Tensor | None = None,
        *,
        bank: Remembered | None = None,
        **options: Any,
    ) -> Any:
        """Predict v for every frame, as UViT3DPose does.

        Args:
            x: Noisy frames (B, T, 3, H, W); so are all arguments not named here.
            camera_mask: Where it is True, the readers are not told poses either.
            bank: What is remembered; None runs the base alone.
        """
        if camera_mask is None and self.training:
            camera_mask = self._draw_camera_mask(x)
        reading = None
        if bank is not None:
            reading = _Reading(bank=bank, network=self, dropped=camera_mask)
        return self.run_through(
            reading, x, noise_levels, rays=rays, camera_mask=camera_mask, **options
        )


class _Reading:
    """A pass of noisy frames: each reader in its turn."""

    def __init__(self, *, bank: Remembered, network: UViTWorldMem, dropped: Tensor | None) -> None:
        def told(poses: Tensor, times: Tensor) -> Tensor:
            if dropped is not None:
                poses = poses.masked_fill(dropped.view(-1, *[1] * (poses.ndim - 1)), 0.0)
            return poses + times

        names = list(network.pose_embeddings)
        own = map(told, bank.own, bank.own_time)
        others = map(told, bank.poses, bank.times)
        located = dict(zip(names, zip(own, others, strict=True), strict=True))
        self.present = bank.present
        self.places = iter(
            [
                (reader, state, *located[str(level)])
                for reader, state, level in zip(
                    network.places, bank.states, network.levels, strict=True
                )
            ]
        )

    def visit(self, x_NCHW: Tensor, emb_NEHW: Tensor) -> Tensor:
        reader, state, own, others = next(self.places)
        read: Tensor = reader(x_NCHW, emb_NEHW, state, own, others, self.present)
        return read
