"""Sizes of a VGGT; needs no tensors, so that a configuration can be checked with it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class VGGTConfig:
    """Sizes of a VGGT; the defaults of the last two fields are the published ones.

    Attributes:
        image_size: Side in pixels of the square that the stored position embedding is for.
        patch_size: Side of a patch in pixels.
        embed_dim: Width C; tokens that come out have width 2C.
        depth: Pairs of frame and global attention blocks.
        num_heads: Heads of those blocks; C / num_heads must be a multiple of 4.
        patch_embed_depth: Blocks of the DINOv2 patch embedder.
        patch_embed_heads: Heads of the patch embedder.
        dpt_features: Width of the dense heads' fusion path.
        dpt_channels: Widths of the dense heads' four projected layers, shallow first.
        dpt_layers: Which four pairs of blocks feed the dense heads, shallow first.
        camera_trunk_depth: Blocks of the camera head.
        camera_heads: Attention heads of the camera head.
        layer_scale: Initial LayerScale of the attention pairs and of the camera head.
    """

    image_size: int
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    patch_embed_depth: int
    patch_embed_heads: int
    dpt_features: int
    dpt_channels: tuple[int, int, int, int]
    dpt_layers: tuple[int, int, int, int]
    camera_trunk_depth: int
    camera_heads: int = 16
    layer_scale: float = 0.01

    def __post_init__(self) -> None:
        others = ("dpt_channels", "dpt_layers", "layer_scale")
        for name, size in vars(self).items():
            if name not in others and not (isinstance(size, int) and size > 0):
                raise ValueError(f"{name} {size!r} is no size")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )
        for name, width, heads in (
            ("num_heads", self.embed_dim, self.num_heads),
            ("patch_embed_heads", self.embed_dim, self.patch_embed_heads),
            ("camera_heads", 2 * self.embed_dim, self.camera_heads),
        ):
            if width % heads:
                raise ValueError(f"width {width} is not a multiple of the {heads} heads ({name})")
        if self.embed_dim // self.num_heads % 4:
            raise ValueError(f"num_heads {self.num_heads}: a head's width is no multiple of 4")
        outside = [layer for layer in self.dpt_layers if not 0 <= layer < self.depth]
        if outside:
            raise ValueError(f"dpt_layers {outside} are outside 0..{self.depth - 1}")


VGGT_1B = VGGTConfig(
    image_size=518,
    patch_size=14,
    embed_dim=1024,
    depth=24,
    num_heads=16,
    patch_embed_depth=24,
    patch_embed_heads=16,
    dpt_features=256,
    dpt_channels=(256, 512, 1024, 1024),
    dpt_layers=(4, 11, 17, 23),
    camera_trunk_depth=4,
)
