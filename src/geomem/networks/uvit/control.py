"""Memory branch: a ControlNet (arXiv 2302.05543) of the U-ViT, steered by a rendered memory map.

The branch is a trainable copy of the base's embeddings, down levels and middle. The map enters
through a zero-initialised projection, every level returns through a zero-initialised 1x1
projection, so at initialisation the base's output does not change by a single bit.
Shape suffixes as in `uvit_layers`.
"""

from typing import Any, Self

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401  # pipelines find it here
from torch import Tensor, nn

from geomem.networks.uvit.layers import PatchEmbedding, zero_init
from geomem.networks.uvit.model import ControlResiduals, UViT3DPose
from geomem.networks.uvit.trunk import UViTTrunk, check_levels, make_blocks, make_down_levels


class MemoryStem(nn.Module):
    """Patch embedding of the memory map with a zero-initialised end.

    The map is added to the branch's embedded frames, and to its noise and camera embedding as
    well, through which it reaches every block of every level by FiLM.
    """

    def __init__(
        self, memory_channels: int, width: int, emb_channels: int, patch_size: int, *, hidden: int
    ) -> None:
        super().__init__()
        self.split = (width, emb_channels)
        self.features = nn.Sequential(
            PatchEmbedding(memory_channels, hidden, patch_size),
            nn.SiLU(),
            nn.Conv2d(hidden, hidden, kernel_size=3, padding=1),
            nn.SiLU(),
        )
        self.zero_proj = zero_init(nn.Conv2d(hidden, sum(self.split), kernel_size=1))

    def forward(self, memory_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is added to the embedded frames and to the embedding."""
        maps = memory_NCHW.contiguous(memory_format=torch.channels_last)
        to_frames, to_emb = self.zero_proj(self.features(maps)).split(self.split, dim=1)
        return to_frames, to_emb


class MemoryControl(UViTTrunk):
    """Trainable copy of the U-ViT's way down that turns a memory map into residuals."""

    @register_to_config
    def __init__(
        self,
        channels: tuple[int, ...],
        *,
        memory_channels: int,
        emb_channels: int,
        num_updown_blocks: tuple[int, ...],
        num_mid_blocks: int,
        num_heads: int,
        block_types: tuple[str, ...],
        block_dropouts: tuple[float, ...],
        in_channels: int = 3,
        patch_size: int = 2,
        camera_channels: int = 180,
        copy_middle: bool = True,
        stem_channels: int = 64,
    ) -> None:
        """Build the branch with random weights; `from_base` fills in the base's.

        Args:
            channels: Widths of the base; so are all arguments not named here.
            memory_channels: Channels M of the memory map.
            copy_middle: Whether the branch has the middle blocks too.
            stem_channels: Width of the stem that reads the memory map.

        Raises:
            ValueError: As for UViT3DPose.
        """
        super().__init__()
        check_levels(channels, num_updown_blocks, block_types, block_dropouts)
        self.widths, self.heads, self.patch_size = tuple(channels), num_heads, patch_size
        self.memory_channels, self.camera_channels = memory_channels, camera_channels
        self._build_embeddings(in_channels, channels[0], emb_channels, camera_channels, patch_size)
        options: dict[str, Any] = {"emb_channels": emb_channels, "heads": num_heads}
        self.down_blocks = make_down_levels(
            channels, num_updown_blocks, block_types, block_dropouts, **options
        )
        self.mid_blocks = nn.ModuleList(
            make_blocks(
                block_types[-1],
                num_mid_blocks if copy_middle else 0,
                channels[-1],
                dropout=block_dropouts[-1],
                **options,
            )
        )
        self.memory_stem = self._make_stem(channels[0], emb_channels, stem_channels)
        self.zero_projections = nn.ModuleList(
            zero_init(nn.Conv2d(width, width, kernel_size=1)) for width in channels
        )

    @classmethod
    def from_base(cls, base: UViT3DPose, memory_channels: int, **options: Any) -> Self:
        """Return a branch for `base`, its copied parts holding the base's weights.

        Args:
            base: The model to steer; it is not changed and shares no memory with the branch.
            memory_channels: Channels M of the memory map.
            options: `copy_middle`, `stem_channels`.

        Raises:
            ValueError: If no frame of `base` sees a later one.
        """
        if base.config["frame_causal"]:
            raise ValueError("a branch sees all frames of a window, its base must do so too")
        names = set(base.config) - {"camera_dropout", "frame_causal"}
        copied = {name: base.config[name] for name in names if not name.startswith("_")}
        branch = cls(**copied, memory_channels=memory_channels, **options)
        source = base.state_dict()
        own = branch.state_dict()
        own.update({name: source[name] for name in own if name in source})
        branch.load_state_dict(own)
        # fake tensors, which are counted and not computed, cannot be moved
        return branch if branch.device == base.device else branch.to(base.device)

    def zero_initialised_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that start at zero; short trainings want them at a higher rate.

        Measured on a toy task (300 steps of AdamW at 1e-3): five times the learning rate on these
        alone reached after 200 steps the loss that one common rate reached after 300.
        """
        stem_end = self.memory_stem.get_submodule("zero_proj").parameters()
        return [*stem_end, *self.zero_projections.parameters()]

    def forward(
        self,
        x: Tensor,
        noise_levels: Tensor,
        rays: Tensor | None,
        memory: Tensor,
        camera_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        *,
        camera_embedding: Tensor | None = None,
    ) -> ControlResiduals:
        """Return the residuals for the base at the same x, noise levels and cameras.

        Args:
            x: Noisy frames (B, T, 3, H, W), as given to the base.
            noise_levels: (B, T), as given to the base.
            rays: Encoded camera rays (B, T, 180, H, W); or None with `camera_embedding` given.
            memory: Memory map (B, T, M, H, W) at the resolution of the frames.
            camera_mask: (B,) bool, True where the camera embedding of a clip is zeroed. Unlike
                the base, the branch never draws it.
            memory_mask: (B,) bool, True where the memory of a clip is dropped: its residuals are
                exactly zero, so the base runs alone.
            camera_embedding: Result of this branch's own `camera_embedding(rays)`.

        Raises:
            ValueError: If the memory map does not fit the frames or the stem, or as for the base.
        """
        self._check_memory(x, memory)
        emb, places = self._apart(self._camera_input(x, rays, camera_embedding))
        to_frames, to_emb = self._read_memory(memory, places)
        if camera_mask is not None:
            emb = emb.masked_fill(camera_mask.view(-1, 1, 1, 1, 1), 0.0)
        emb = emb + to_emb.unflatten(0, x.shape[:2])
        pyramid = self._embedding_pyramid(noise_levels, emb, None)
        ropes = self._rope_pyramid(x)

        before, after = self._descend(self._embed_frames(x) + to_frames, pyramid, ropes)
        mid = self._run(self.mid_blocks, after[-1], pyramid[-1], ropes[-1])
        residuals = []
        for state, projection in zip([*before, mid], self.zero_projections, strict=True):
            residual = projection(state).unflatten(0, x.shape[:2])
            if memory_mask is not None:
                residual = residual.masked_fill(memory_mask.view(-1, 1, 1, 1, 1), 0.0)
            residuals.append(residual)
        return ControlResiduals(down=tuple(residuals[:-1]), mid=residuals[-1])

    def _make_stem(self, width: int, emb_channels: int, hidden: int) -> nn.Module:
        return MemoryStem(self.memory_channels, width, emb_channels, self.patch_size, hidden=hidden)

    def _apart(self, camera_embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embedding of cameras, and what tells the memory where patches look."""
        return camera_embedding, camera_embedding

    def _read_memory(self, memory: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is added to the embedded frames and to the embedding of noise and cameras."""
        to_frames, to_emb = self.memory_stem(memory.flatten(0, 1))
        return to_frames, to_emb

    def _check_memory(self, x: Tensor, memory: Tensor) -> None:
        expected = (*x.shape[:2], self.memory_channels, *x.shape[-2:])
        if tuple(memory.shape) != expected:
            raise ValueError(f"memory map of shape {tuple(memory.shape)}, expected {expected}")
