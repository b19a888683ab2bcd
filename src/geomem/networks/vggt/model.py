"""VGGT (arXiv 2503.11651) in compact form, with the published architecture and parameter names.

Shape suffixes: B clips, T frames, N tokens per frame (1 camera, 4 registers, then patches row by
row), C embedding width, H, W image. Cameras are OpenCV, world-to-camera.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from geomem.geometry.cameras import join_cameras, split_cameras
from geomem.networks.vggt.config import VGGTConfig
from geomem.networks.vggt.dpt import DPTHead
from geomem.networks.vggt.layers import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NUM_REGISTERS,
    Block,
    Mlp,
    PatchEmbedder,
    RopeTable,
    init_normal,
    patch_positions,
    rope_table,
)

NUM_SPECIAL = 1 + NUM_REGISTERS
POSE_WIDTH = 9
POSE_STEPS = 4
FRAMES_PER_CHUNK = 8
MIN_FIELD_OF_VIEW = 1e-3  # radians; keeps focal lengths finite where the ReLU gives 0


@dataclass(frozen=True, kw_only=True)
class VGGTDenseOutput:
    """What VGGT's dense heads say; lengths in units of the scene scale it was trained with.

    Attributes:
        depth: Planar depth (B, T, H, W), positive.
        depth_conf: Confidence (B, T, H, W), at least 1.
        world_points: Points (B, T, H, W, 3) in the first camera's frame.
        world_points_conf: Confidence (B, T, H, W), at least 1.
    """

    depth: Tensor
    depth_conf: Tensor
    world_points: Tensor
    world_points_conf: Tensor


@dataclass(frozen=True, kw_only=True)
class VGGTOutput(VGGTDenseOutput):
    """What VGGT says of a clip.

    Attributes:
        tokens: One (B, T, N, 2C) per pair of blocks, special tokens first.
        pose_enc: One (B, T, 9) per refinement step, last one best: translation, quaternion
            (x, y, z, w; not normalised), vertical and horizontal field of view in radians.
    """

    tokens: list[Tensor]
    pose_enc: list[Tensor]


class Aggregator(nn.Module):
    """Patch embedder and alternating frame and global attention."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.head_width = dim // config.num_heads
        self.patch_embed = PatchEmbedder(
            dim,
            depth=config.patch_embed_depth,
            num_heads=config.patch_embed_heads,
            image_size=config.image_size,
            patch_size=config.patch_size,
        )
        self.frame_blocks = nn.ModuleList(_pair_block(config) for _ in range(config.depth))
        self.global_blocks = nn.ModuleList(_pair_block(config) for _ in range(config.depth))
        # Entry 0 marks the first frame of the window, entry 1 all others.
        self.camera_token = nn.Parameter(torch.empty(1, 2, 1, dim))
        self.register_token = nn.Parameter(torch.empty(1, 2, NUM_REGISTERS, dim))
        init_normal(self.camera_token, 1e-6)
        init_normal(self.register_token, 1e-6)

    def forward(self, images: Tensor, last_layer: int) -> list[Tensor]:
        """Return the outputs (B, T, N, 2C) of pairs 0 to last_layer for images (B, T, 3, H, W)."""
        return self.run(self.embed(images), images, range(last_layer + 1))

    def run(self, x: Tensor, images: Tensor, layers: Iterable[int]) -> list[Tensor]:
        """Return the outputs (B, T, N, 2C) of some pairs of blocks, the first fed x (B, T, N, C).

        Args:
            x: Tokens that enter: of `embed`, or the global half of the pair before.
            images: Only their shape (B, T, 3, H, W), type and device matter.
            layers: Which pairs, one behind the other.
        """
        frames = x.shape[1]
        frame_rope, global_rope = self._rope(images)
        outputs = []
        for i in layers:
            x = self.frame_blocks[i](rearrange(x, "b t n c -> (b t) n c"), frame_rope)
            x_frame = rearrange(x, "(b t) n c -> b t n c", t=frames)
            x = self.global_blocks[i](rearrange(x_frame, "b t n c -> b (t n) c"), global_rope)
            x = rearrange(x, "b (t n) c -> b t n c", t=frames)
            outputs.append(torch.cat([x_frame, x], dim=-1))
        return outputs

    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens (B, T, N, C) that enter the first pair: special ones, then patches of
        the image encoder, which sees each frame by itself."""
        batch, frames = images.shape[:2]
        mean = images.new_tensor(IMAGENET_MEAN)[:, None, None]
        std = images.new_tensor(IMAGENET_STD)[:, None, None]
        flat = rearrange((images - mean) / std, "b t c h w -> (b t) c h w")
        patches = rearrange(self.patch_embed(flat), "(b t) n c -> b t n c", t=frames)
        special = torch.cat([self.camera_token, self.register_token], dim=2)
        which = torch.arange(frames, device=images.device).clamp(max=1)
        return torch.cat([special[:, which].expand(batch, -1, -1, -1), patches], dim=2)

    def _rope(self, images: Tensor) -> tuple[RopeTable, RopeTable]:
        frames, _, height, width = images.shape[1:]
        patch = self.patch_embed.patch_size
        positions = patch_positions(
            height // patch, width // patch, special=NUM_SPECIAL, device=images.device
        )
        cos, sin = rope_table(positions, self.head_width, dtype=images.dtype)
        tiled = [repeat(x, "n d -> (t n) d", t=frames) for x in (cos, sin)]
        return (cos, sin), (tiled[0], tiled[1])


class CameraHead(nn.Module):
    """Refines a pose per frame in four steps from the camera tokens (width 2C)."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        dim = 2 * config.embed_dim
        self.token_norm = nn.LayerNorm(dim)
        self.trunk = nn.Sequential(
            *(
                Block(dim, config.camera_heads, qk_norm=False, layer_scale=config.layer_scale)
                for _ in range(config.camera_trunk_depth)
            )
        )
        self.trunk_norm = nn.LayerNorm(dim)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, POSE_WIDTH))
        self.embed_pose = nn.Linear(POSE_WIDTH, dim)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 3 * dim))
        self.adaln_norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.pose_branch = Mlp(dim, dim // 2, POSE_WIDTH)
        # Start near "no motion, fields of view of a radian": four equal deltas add up to it. A
        # field of view that starts below 0 would have no gradient through its ReLU, ever.
        nn.init.trunc_normal_(self.pose_branch.fc2.weight, std=0.01)
        nn.init.zeros_(self.pose_branch.fc2.bias)
        nn.init.constant_(self.pose_branch.fc2.bias[6:], 1 / POSE_STEPS)

    def forward(self, camera_tokens: Tensor) -> list[Tensor]:
        """Return the pose encodings (B, T, 9) of all steps for camera tokens (B, T, 2C)."""
        tokens = self.token_norm(camera_tokens)
        pose = self.empty_pose_tokens.expand(*tokens.shape[:2], -1)
        poses = []
        for step in range(POSE_STEPS):
            # As published: no gradient through the pose as an input, only through the sum.
            given = pose if step == 0 else pose.detach()
            shift, scale, gate = self.poseLN_modulation(self.embed_pose(given)).chunk(3, dim=-1)
            x = gate * (self.adaln_norm(tokens) * (1 + scale) + shift) + tokens
            delta = self.pose_branch(self.trunk_norm(self.trunk(x)))
            pose = delta if step == 0 else pose + delta
            poses.append(torch.cat([pose[..., :7], pose[..., 7:].relu()], dim=-1))
        return poses


class VGGT(nn.Module):
    """Images of one scene in, cameras, depth and points out, all in the first camera's frame.

    Attributes:
        autocast: Whether the aggregator computes in bfloat16 where that is safe, as the published
            model does on GPUs; its outputs are float32 and the heads always compute in float32.
    """

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        self.config = config
        self.autocast = False
        self.aggregator = Aggregator(config)
        self.camera_head = CameraHead(config)
        self.depth_head = _dense_head(config, out_channels=2)
        self.point_head = _dense_head(config, out_channels=4)

    def aggregate(self, images: Tensor, *, last_layer: int | None = None) -> list[Tensor]:
        """Return the tokens (B, T, N, 2C) of every pair of blocks up to last_layer, inclusive.

        Args:
            images: (B, T, 3, H, W) in [0, 1]; H and W multiples of the patch size.
            last_layer: Index of the last pair to compute; None for all.

        Raises:
            ValueError: If the images do not fit or there is no such layer.
        """
        last = self.config.depth - 1 if last_layer is None else last_layer
        if not 0 <= last < self.config.depth:
            raise ValueError(f"last_layer must be in 0..{self.config.depth - 1}, got {last}")
        patch = self.config.patch_size
        fits = images.ndim == 5 and images.shape[2] == 3
        if not fits or images.shape[3] % patch or images.shape[4] % patch:
            raise ValueError(
                f"images must be (B, T, 3, H, W) with sides that are multiples of {patch}, "
                f"got {tuple(images.shape)}"
            )
        if not self.autocast:
            return self.aggregator(images, last)
        with torch.autocast(images.device.type, torch.bfloat16):
            return [tokens.float() for tokens in self.aggregator(images, last)]

    def decode(self, tokens: list[Tensor], *, height: int, width: int) -> VGGTOutput:
        """Run the heads on the tokens of all pairs of blocks; they compute in full precision.

        Args:
            tokens: As from `aggregate` with last_layer=None.
            height: Image height in pixels.
            width: Image width in pixels.
        """
        with torch.autocast(tokens[0].device.type, enabled=False):
            pose_enc = self.camera_head(tokens[-1][:, :, 0])
        dense = self.decode_dense(dict(enumerate(tokens)), height=height, width=width)
        return VGGTOutput(tokens=tokens, pose_enc=pose_enc, **vars(dense))

    def decode_dense(
        self, tokens: Mapping[int, Tensor], *, height: int, width: int
    ) -> VGGTDenseOutput:
        """Run the dense heads alone, on the tokens (B, T, N, 2C) of at least `dpt_layers`.

        Their special tokens are not read.
        """
        layers = [tokens[i] for i in self.config.dpt_layers]
        with torch.autocast(layers[0].device.type, enabled=False):
            depth, depth_conf = _dense(self.depth_head, layers, height, width)
            points, points_conf = _dense(self.point_head, layers, height, width)
        return VGGTDenseOutput(
            depth=depth[..., 0].exp(),
            depth_conf=1 + depth_conf.exp(),
            world_points=points.sign() * points.abs().expm1(),
            world_points_conf=1 + points_conf.exp(),
        )

    def forward(self, images: Tensor) -> VGGTOutput:
        """Return everything for images (B, T, 3, H, W) in [0, 1]."""
        tokens = self.aggregate(images)
        return self.decode(tokens, height=images.shape[-2], width=images.shape[-1])


def _pair_block(config: VGGTConfig) -> Block:
    return Block(config.embed_dim, config.num_heads, qk_norm=True, layer_scale=config.layer_scale)


def _dense_head(config: VGGTConfig, *, out_channels: int) -> DPTHead:
    return DPTHead(
        2 * config.embed_dim,
        patch_size=config.patch_size,
        features=config.dpt_features,
        channels=config.dpt_channels,
        out_channels=out_channels,
    )


def _dense(head: DPTHead, layers: list[Tensor], height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return raw values (B, T, H, W, K-1) and raw confidence (B, T, H, W) of a dense head."""
    frames = layers[0].shape[1]
    flat = [rearrange(x[:, :, NUM_SPECIAL:], "b t n c -> (b t) n c") for x in layers]
    # Full-size maps are large: a few frames at a time, unless the graph keeps them all anyway.
    size = len(flat[0]) if torch.is_grad_enabled() else FRAMES_PER_CHUNK
    chunks = zip(*(x.split(size) for x in flat), strict=True)
    raw = torch.cat([head(chunk, height=height, width=width) for chunk in chunks])
    raw = rearrange(raw, "(b t) k h w -> b t h w k", t=frames)
    return raw[..., :-1], raw[..., -1]


def cameras_to_pose_encoding(cameras: Tensor) -> Tensor:
    """Return the nine numbers VGGT predicts, (..., 9), for cameras (..., 16).

    Translation and quaternion (x, y, z, w; w >= 0) are those of the world-to-camera matrix as it is
    given, then come the vertical and the horizontal field of view in radians. The principal point
    is lost: VGGT takes it to be the image's centre.
    """
    intrinsics, w2c = split_cameras(cameras)
    fields = 2 * torch.atan(0.5 / intrinsics[..., [1, 0]])
    return torch.cat([w2c[..., 3], rotation_to_quaternion(w2c[..., :3]), fields], dim=-1)


def pose_encoding_to_cameras(pose_enc: Tensor, *, height: int, width: int) -> Tensor:
    """Return cameras (..., 16) for pose encodings (..., 9); the inverse of the above.

    Args:
        pose_enc: Translation, quaternion of any non-zero length, fields of view in radians.
        height: Image height in pixels.
        width: Image width in pixels.
    """
    half_fields = pose_enc[..., [8, 7]].clamp(MIN_FIELD_OF_VIEW, torch.pi - MIN_FIELD_OF_VIEW) / 2
    size = pose_enc.new_tensor([width, height])
    focal_pixels = size / 2 / half_fields.tan()
    intrinsics = torch.cat([focal_pixels / size, torch.full_like(half_fields, 0.5)], dim=-1)
    rotation = quaternion_to_rotation(pose_enc[..., 3:7])
    return join_cameras(intrinsics, torch.cat([rotation, pose_enc[..., :3, None]], dim=-1))


def quaternion_to_rotation(quaternion: Tensor) -> Tensor:
    """Return rotations (..., 3, 3) for quaternions (..., 4) as x, y, z, w of any length."""
    x, y, z, w = nn.functional.normalize(quaternion, dim=-1).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def rotation_to_quaternion(rotation: Tensor) -> Tensor:
    """Return unit quaternions (..., 4) as x, y, z, w with w >= 0 for rotations (..., 3, 3)."""
    xx, yy, zz = rotation.diagonal(dim1=-2, dim2=-1).unbind(-1)
    plus, minus = rotation + rotation.mT, rotation.mT - rotation
    xy, xz, yz = plus[..., 0, 1], plus[..., 0, 2], plus[..., 1, 2]
    xw, yw, zw = minus[..., 1, 2], minus[..., 2, 0], minus[..., 0, 1]
    # 4 q q^T: every row is the quaternion, up to its length; the row of the largest entry is exact.
    rows = [
        [1 + xx - yy - zz, xy, xz, xw],
        [xy, 1 - xx + yy - zz, yz, yw],
        [xz, yz, 1 - xx - yy + zz, zw],
        [xw, yw, zw, 1 + xx + yy + zz],
    ]
    outer = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    best = outer.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    row = torch.take_along_dim(outer, best[..., None, None], dim=-2)[..., 0, :]
    quaternion = nn.functional.normalize(row, dim=-1)
    return torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)
