"""A small VQ autoencoder: a frame as a grid of codes, learned by moving averages.

Shape suffixes: N frames, C channels, S pixels, h, w rows and columns of tokens, K codes, D their
width, L tokens of a pass, R tokens that can replace codes.
"""

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from torch import Tensor, nn


class ConvBlock(nn.Module):
    """Residual block of two 3x3 convolutions.

    All channels are normalised together: in small groups a frame would lose its colour.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.GroupNorm(1, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)),
            *(nn.GroupNorm(1, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)),
        )

    def forward(self, x_NChw: Tensor) -> Tensor:
        return x_NChw + self.layers(x_NChw)


class Codebook(nn.Module):
    """Codes that are the moving averages of what is assigned to them (van den Oord et al., 2017,
    appendix A.1); buffers, since no gradient reaches them.

    Attributes:
        codes: (K, D).
        counts: Moving average of the tokens assigned to each in a step, (K,).
        sums: Moving average of the sums of their features, (K, D).
    """

    codes: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.randn(codes, width))
        self.register_buffer("counts", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, width))

    def nearest(self, features_LD: Tensor) -> Tensor:
        """Return the number of the code nearest to each feature, (L,)."""
        return torch.cdist(features_LD, self.codes).argmin(-1)

    @torch.no_grad()
    def update(
        self, used_K: Tensor, sums_KD: Tensor, spare_RD: Tensor, *, decay: float, dead_share: float
    ) -> None:
        """Move the averages by what a step assigned, and put dead codes where features are.

        Before the first step all averages are zero, so nearly all codes are dead: they start from
        the first features.

        Args:
            used_K: Tokens assigned to each code in the step.
            sums_KD: Sums of their features.
            spare_RD: Features of the step, which dead codes take one after the other.
            decay: Of the averages.
            dead_share: A code is dead where its average is below this share of equal use.
        """
        self.counts.lerp_(used_K.to(self.counts), 1 - decay)
        self.sums.lerp_(sums_KD.to(self.sums), 1 - decay)
        least = dead_share * float(used_K.sum()) / len(self.codes)
        dead = (self.counts < least).nonzero()[:, 0]
        taken = torch.arange(len(dead), device=dead.device) % len(spare_RD)
        self.counts[dead] = 2 * least  # it has some steps to be used before it is dead again
        self.sums[dead] = 2 * least * spare_RD[taken].to(self.sums)
        self.codes.copy_(self.sums / self.counts[:, None])


class VQTokenizer(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' own clash
    """Frames to tokens and back; every level halves the frame."""

    @register_to_config
    def __init__(
        self, *, width: int, levels: int, blocks: int, code_width: int, codes: int
    ) -> None:
        """Build the network.

        Args:
            width: Channels of the finest level; each further one has twice as many.
            levels: Halvings, so that a token stands for 2^levels x 2^levels pixels.
            blocks: Residual blocks of a level, each way.
            code_width: Width D of a code.
            codes: Number K of codes.
        """
        super().__init__()
        self.factor = 2**levels
        widths = [width << level for level in range(levels)]
        down: list[nn.Module] = []
        for before, after in zip([3, *widths], widths, strict=False):
            down.append(nn.Conv2d(before, after, 4, stride=2, padding=1))
            down += [ConvBlock(after) for _ in range(blocks)]
        self.encoder = nn.Sequential(*down, nn.SiLU(), nn.Conv2d(widths[-1], code_width, 1))
        up: list[nn.Module] = [nn.Conv2d(code_width, widths[-1], 3, padding=1)]
        for level in reversed(range(levels)):
            up += [ConvBlock(widths[level]) for _ in range(blocks)]
            if level:
                up.append(nn.Upsample(scale_factor=2.0))
                up.append(nn.Conv2d(widths[level], widths[level - 1], 3, padding=1))
        # the last doubling is one of channels into pixels: convolutions at full size cost most
        last = nn.Conv2d(width, 3 * 4, 3, padding=1)
        self.decoder = nn.Sequential(*up, nn.SiLU(), last, nn.PixelShuffle(2))
        self.codebook = Codebook(codes, code_width)

    def forward(self, frames_N3SS: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what training compares.

        Args:
            frames_N3SS: In [-1, 1]; S divides by the factor.

        Returns:
            The reconstruction (N, 3, S, S), whose gradient passes the codes straight through to the
            features; the features (N, D, h, w); their codes (N, D, h, w); the tokens (N, h, w).
        """
        features = self.encoder(frames_N3SS).float()
        tokens = self._assign(features)
        codes = self._look_up(tokens)
        made = self.decoder(features + (codes - features).detach())
        return made, features, codes, tokens

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Return the tokens (..., h, w) of frames (..., 3, S, S), in float32 under any autocast."""
        with torch.autocast(frames.device.type, enabled=False):
            tokens = self._assign(self.encoder(frames.flatten(0, -4).float()))
        return tokens.unflatten(0, frames.shape[:-3])

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Return the frames (..., 3, S, S) in [-1, 1] of tokens (..., h, w).

        Raises:
            ValueError: If one of them is no code, as a mask is not.
        """
        known = len(self.codebook.codes)
        if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >= known):
            raise ValueError(f"tokens from {tokens.min()} to {tokens.max()} are not all codes")
        with torch.autocast(tokens.device.type, enabled=False):
            made = self.decoder(self._look_up(tokens.flatten(0, -3))).clamp(-1, 1)
        return made.unflatten(0, tokens.shape[:-2])

    def _assign(self, features_NDhw: Tensor) -> Tensor:
        flat = rearrange(features_NDhw.detach(), "n d h w -> (n h w) d")
        with torch.autocast(flat.device.type, enabled=False):
            nearest = self.codebook.nearest(flat)
        n, _, h, w = features_NDhw.shape
        return nearest.view(n, h, w)

    def _look_up(self, tokens_Nhw: Tensor) -> Tensor:
        return rearrange(F.embedding(tokens_Nhw, self.codebook.codes), "n h w d -> n d h w")
