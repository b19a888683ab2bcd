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

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from einops import rearrange, repeat
from torch import Tensor, nn

from geomem.geometry.rays import encode_cameras_apart, plucker_rays
from geomem.networks.uvit.layers import RopeTable, TransformerBlock
from geomem.networks.uvit.model import UViT3DPose
from geomem.networks.uvit.readers import MemoryReader, PoseEmbedding


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


class UViTWorldMem(UViT3DPose):
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
        downs = range(len(num_updown_blocks))
        order = [(i, num_updown_blocks[i]) for i in downs] + [(len(downs), num_mid_blocks)]
        order += [(i, num_updown_blocks[i]) for i in reversed(downs)]
        attending = [i for i, kind in enumerate(block_types) if kind == "TransformerBlock"]
        if not attending:
            raise ValueError("a network without transformer blocks has no place for readers")
        # the level of each reader, in the order in which a pass comes by them
        self.levels = [i for i, count in order if i in attending for _ in range(count)]
        self.readers = nn.ModuleList(
            MemoryReader(channels[i], emb_channels, num_heads) for i in self.levels
        )
        self.pose_embeddings = nn.ModuleDict(
            {str(i): PoseEmbedding(pose_channels, channels[i]) for i in attending}
        )
        self._pass: _Recording | _Reading | None = None

    @classmethod
    def from_base(cls, base: UViT3DPose, *, pose_channels: int) -> Self:
        """Return a network with readers on a copy of `base`, whose output it has at first."""
        copied = {name: value for name, value in base.config.items() if not name.startswith("_")}
        network = cls(**copied, pose_channels=pose_channels)
        network.load_state_dict(network.state_dict() | base.state_dict())
        return network.to(base.device)

    def zero_initialised_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the gates."""
        return [p for reader in self.readers for p in reader.get_submodule("gates").parameters()]

    def remember(self, images: Tensor, cameras: Tensor, level: Tensor) -> tuple[Tensor, ...]:
        """Return the tokens (B, K, L, C) of remembered frames where each reader is.

        One evaluation of the network, for a batch of B K clips of one frame.

        Args:
            images: (B, K, 3, S, S) in [-1, 1].
            cameras: (B, K, 16); every frame is the first of its clip, so its own pose is the
                identity and it is never dropped.
            level: Noise level that the network is told, a scalar.
        """
        clips = images.shape[0]
        rays = encode_cameras_apart(cameras.flatten(0, 1)[:, None], images.shape[-1])
        recording = _Recording()
        self._run_through(
            recording,
            images.flatten(0, 1)[:, None],
            level.expand(images.shape[:2].numel(), 1),
            camera_embedding=self.embed_cameras(*rays),
            camera_mask=torch.zeros(len(rays[0]), dtype=torch.bool, device=images.device),
        )
        pattern = "(b k) c h w -> b k (h w) c"
        return tuple(rearrange(state, pattern, b=clips) for state in recording.states)

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
        return self._run_through(
            reading, x, noise_levels, rays=rays, camera_mask=camera_mask, **options
        )

    def _run_through(
        self, reading: "_Recording | _Reading | None", *given: Any, **named: Any
    ) -> Any:
        """Return the base's forward pass, with a visit after each transformer block."""
        self._pass = reading
        try:
            return super().forward(*given, **named)
        finally:
            self._pass = None

    def _run(
        self, blocks: Iterable[nn.Module], x_NCHW: Tensor, emb_NEHW: Tensor, rope: RopeTable
    ) -> Tensor:
        for block in blocks:
            x_NCHW = super()._run([block], x_NCHW, emb_NEHW, rope)
            if self._pass is not None and isinstance(block, TransformerBlock):
                x_NCHW = self._pass.visit(x_NCHW, emb_NEHW)
        return x_NCHW


class _Recording:
    """A pass of remembered frames: keeps their states."""

    def __init__(self) -> None:
        self.states: list[Tensor] = []

    def visit(self, x_NCHW: Tensor, emb_NEHW: Tensor) -> Tensor:
        self.states.append(x_NCHW)
        return x_NCHW


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
                    network.readers, bank.states, network.levels, strict=True
                )
            ]
        )

    def visit(self, x_NCHW: Tensor, emb_NEHW: Tensor) -> Tensor:
        reader, state, own, others = next(self.places)
        read: Tensor = reader(x_NCHW, emb_NEHW, state, own, others, self.present)
        return read
