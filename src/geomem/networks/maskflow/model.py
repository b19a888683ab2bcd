"""MaskFlow's video model: the U-ViT on grids of tokens, some of them masked.

Shape suffixes: B clips, T frames, h, w rows and columns of tokens, K codes, S rows of a ray image.
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from torch import Tensor, nn

from geomem.networks.uvit.model import UViT3DPose


class MaskedUViT(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' own clash
    """Tokens in, logits over the codes out; both ends share the codes' embeddings."""

    @register_to_config
    def __init__(
        self,
        *,
        codes: int,
        embedding: int,
        channels: tuple[int, ...],
        emb_channels: int,
        num_updown_blocks: tuple[int, ...],
        num_mid_blocks: int,
        num_heads: int,
        block_types: tuple[str, ...],
        block_dropouts: tuple[float, ...],
        patch_size: int = 1,
        camera_dropout: float = 0.1,
    ) -> None:
        """Build the network; untrained, all codes are equally probable.

        Args:
            codes: Number K of codes; number K itself is the mask.
            embedding: Width of an embedded token.
            channels: As all that follow, of `UViT3DPose`, with tokens for pixels.
            emb_channels: See there.
            num_updown_blocks: See there.
            num_mid_blocks: See there.
            num_heads: See there.
            block_types: See there.
            block_dropouts: See there.
            patch_size: See there.
            camera_dropout: See there.
        """
        super().__init__()
        self.mask_token = codes
        self.divisor = patch_size << len(num_updown_blocks)
        self.trunk = UViT3DPose(
            channels,
            emb_channels=emb_channels,
            num_updown_blocks=num_updown_blocks,
            num_mid_blocks=num_mid_blocks,
            num_heads=num_heads,
            block_types=block_types,
            block_dropouts=block_dropouts,
            in_channels=embedding,
            patch_size=patch_size,
            camera_dropout=camera_dropout,
        )
        self.embed_tokens = nn.Embedding(codes + 1, embedding)
        self.bias = nn.Parameter(torch.zeros(codes))

    def forward(
        self,
        tokens_BThw: Tensor,
        times_BT: Tensor,
        camera_embedding: Tensor,
        camera_mask: Tensor | None = None,
    ) -> Tensor:
        """Return the logits (B, T, h, w, K) of the code behind every token.

        Args:
            tokens_BThw: Codes 0 to K - 1 and masks K.
            times_BT: 0 where a frame is all masks, 1 where it is clean.
            camera_embedding: Result of `embed_cameras`.
            camera_mask: (B,) bool, True where a clip's cameras are dropped; None draws it in
                training.
        """
        embedded = rearrange(self.embed_tokens(tokens_BThw), "b t h w c -> b t c h w")
        out = self.trunk(embedded, times_BT, None, camera_mask, camera_embedding=camera_embedding)
        out = rearrange(out, "b t c h w -> b t h w c")
        known = self.embed_tokens.weight[: self.mask_token]
        # of unit variance each, so that their products grow with the width
        return out @ known.T / known.shape[1] ** 0.5 + self.bias

    @torch.no_grad()
    def start_from(self, codes_KD: Tensor) -> None:
        """Give the codes embeddings that are as far from each other as the codes of a codebook are:
        random projections of them, of unit variance."""
        spread = (codes_KD - codes_KD.mean(0)) / (codes_KD - codes_KD.mean(0)).std()
        width = codes_KD.shape[1]
        projection = torch.randn(width, self.embed_tokens.embedding_dim) / width**0.5
        self.embed_tokens.weight[: self.mask_token] = spread @ projection

    def embed_cameras(self, origins: Tensor, directions: Tensor) -> Tensor:
        """Embed a ray a token, (B, T, 90) and (B, T, 90, h, w); see `UViTTrunk.embed_cameras`."""
        return self.trunk.embed_cameras(origins, directions)
