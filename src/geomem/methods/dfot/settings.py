"""Sizes of the U-ViT."""

from typing import Literal, Self

from pydantic import model_validator

from geomem.registry.strict import Positive, Share, Strict


class UViTSettings(Strict):
    """The U-ViT 3D (fields of `UViT3DPose`)."""

    channels: tuple[Positive, ...]
    emb_channels: Positive
    block_types: tuple[Literal["ResBlock", "TransformerBlock"], ...]
    block_dropouts: tuple[Share, ...]
    num_updown_blocks: tuple[Positive, ...]
    num_mid_blocks: Positive
    num_heads: Positive
    patch_size: Positive = 2
    camera_dropout: Share = 0.1

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        levels = len(self.channels)
        if (len(self.block_types), len(self.block_dropouts)) != (levels, levels):
            raise ValueError(f"block_types and block_dropouts need {levels} entries each")
        if len(self.num_updown_blocks) != levels - 1:
            raise ValueError(f"num_updown_blocks needs {levels - 1} entries")
        kinds = zip(self.channels, self.block_types, strict=True)
        attending = [width for width, kind in kinds if kind == "TransformerBlock"]
        odd = [width for width in attending if width % (2 * self.num_heads)]
        if odd:
            raise ValueError(f"{odd[0]} channels do not split into {self.num_heads} even heads")
        return self
