"""Building blocks of VGGT: attention blocks, 2D RoPE and the DINOv2 patch embedder.

Parameter names are those of the published weights. Shape suffixes: B sequences, N tokens,
C width, D head width, H image height, W image width, h and w patch grid.
"""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

ROPE_BASE = 100.0
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NUM_REGISTERS = 4

RopeTable = tuple[Tensor, Tensor]


def patch_positions(height: int, width: int, *, special: int, device: torch.device) -> Tensor:
    """Return the (row, column) position of every token of one frame, (special + height*width, 2).

    Special tokens sit at (0, 0), so patches start at (1, 1).
    """
    rows = torch.arange(1, height + 1, device=device)
    cols = torch.arange(1, width + 1, device=device)
    patches = torch.cartesian_prod(rows, cols)
    return torch.cat([patches.new_zeros(special, 2), patches])


def rope_table(positions_N2: Tensor, head_width: int, *, dtype: torch.dtype) -> RopeTable:
    """Return cos and sin, each (N, head_width): the row turns the first half, the column the rest.

    Raises:
        ValueError: If the head width is not a multiple of 4 (two axes, each in two halves).
    """
    if head_width % 4:
        raise ValueError(f"2D RoPE needs a head width that is a multiple of 4, got {head_width}")
    half = head_width // 2
    exponents = torch.arange(0, half, 2, device=positions_N2.device, dtype=torch.float32) / half
    angles = positions_N2[..., None].float() * ROPE_BASE**-exponents
    angles = repeat(angles, "n ax f -> n (ax two f)", two=2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def apply_rope(x: Tensor, table: RopeTable) -> Tensor:
    """Rotate (..., N, D) by the table; within each axis (x1, x2) -> (-x2, x1) on halves."""
    cos, sin = table
    x1, x2 = rearrange(x, "... (ax two f) -> two ... ax f", ax=2, two=2)
    turned = rearrange(torch.stack([-x2, x1]), "two ... ax f -> ... (ax two f)")
    return x * cos + turned * sin


class LayerScale(nn.Module):
    """Learned gain per channel on a residual branch."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Attention(nn.Module):
    """Multi-head self-attention with optional LayerNorm on queries and keys, and optional RoPE."""

    def __init__(self, dim: int, num_heads: int, *, qk_norm: bool) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"width {dim} is not a multiple of the {num_heads} heads")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = nn.LayerNorm(dim // num_heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(dim // num_heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)

    def queries_keys_values(
        self, x: Tensor, rope: RopeTable | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (B, heads, N, d) of tokens (B, N, C)."""
        q, k, v = rearrange(self.qkv(x), "b n (qkv h d) -> qkv b h n d", qkv=3, h=self.num_heads)
        q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = apply_rope(q, rope), apply_rope(k, rope)
        return q, k, v

    def forward(self, x: Tensor, rope: RopeTable | None = None) -> Tensor:
        q, k, v = self.queries_keys_values(x, rope)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(out, "b h n d -> b n (h d)"))


class Mlp(nn.Module):
    """Two linear layers around an exact GELU."""

    def __init__(self, dim: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block with LayerScale and MLP ratio 4; (B, N, C) to (B, N, C)."""

    def __init__(
        self, dim: int, num_heads: int, *, qk_norm: bool, layer_scale: float, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, num_heads, qk_norm=qk_norm)
        self.ls1 = LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, 4 * dim, dim)
        self.ls2 = LayerScale(dim, layer_scale)

    def attention_logits(self, x: Tensor, rope: RopeTable | None = None) -> Tensor:
        """Return the attention's logits (B, heads, N, N) for tokens (B, N, C)."""
        q, k, _ = self.attn.queries_keys_values(self.norm1(x), rope)
        return q @ k.mT / q.shape[-1] ** 0.5

    def forward(self, x: Tensor, rope: RopeTable | None = None) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), rope))
        return x + self.ls2(self.mlp(self.norm2(x)))


def init_normal(parameter: nn.Parameter, std: float) -> None:
    """Draw a parameter; not on the meta device, where a file's weights take its place.

    (PyTorch has no compiled kernel for it there and imports its compiler: 3 seconds of every job.)
    """
    if not parameter.is_meta:
        nn.init.normal_(parameter, std=std)


class PatchProjection(nn.Module):
    """Convolution with kernel = stride = patch; (B, 3, H, W) to (B, h*w, C)."""

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return rearrange(self.proj(images), "b c h w -> b (h w) c")


class PatchEmbedder(nn.Module):
    """DINOv2 vision transformer with registers; gives its normalised patch tokens.

    Args:
        dim: Width C.
        depth: Number of blocks.
        num_heads: Attention heads.
        image_size: Side in pixels of the square for which position embeddings are stored.
        patch_size: Side of a patch in pixels.
    """

    def __init__(
        self, dim: int, *, depth: int, num_heads: int, image_size: int, patch_size: int
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.grid = image_size // patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, NUM_REGISTERS, dim))
        self.mask_token = nn.Parameter(torch.zeros(1, dim))  # published, never used
        self.patch_embed = PatchProjection(dim, patch_size)
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, qk_norm=False, layer_scale=1.0, eps=1e-6) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        init_normal(self.cls_token, 1e-6)
        init_normal(self.register_tokens, 1e-6)

    def position_embedding(self, height: int, width: int) -> Tensor:
        """Return (1, height*width, C), resized from the stored grid where the grid differs."""
        patches = self.pos_embed[:, 1:]
        if (height, width) == (self.grid, self.grid):
            return patches
        plane = rearrange(patches.float(), "b (h w) c -> b c h w", h=self.grid)
        plane = F.interpolate(plane, size=(height, width), mode="bicubic", antialias=True)
        return rearrange(plane, "b c h w -> b (h w) c").to(patches.dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, h*w, C) for ImageNet-normalised images (B, 3, H, W)."""
        batch, _, height, width = images.shape
        patches = self.patch_embed(images)
        patches = patches + self.position_embedding(
            height // self.patch_size, width // self.patch_size
        )
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)
        x = torch.cat([cls, self.register_tokens.expand(batch, -1, -1), patches], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1 + NUM_REGISTERS :]
