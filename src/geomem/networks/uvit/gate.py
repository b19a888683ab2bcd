"""The copy gate: how strongly each pixel is pulled towards what the memory shows there.

Shape suffixes: B clips, T frames, M memory channels.
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from geomem.networks.uvit.layers import zero_init


class CopyGate(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' own clash
    """Pulls the estimate of a clean frame towards the memory's colours.

    With x0 = alpha x_t - sigma v the network's estimate and m the memory's colours, it returns
    x0' = x0 + g w (m - x0) with w = sigma^2 / (sigma^2 + tau^2), the weight of a Wiener filter
    between a frame with noise sigma and a memory with errors tau: nearly full at high noise, none
    where the noisy frame itself says more. In v: v' = v + g w / sigma (x0 - m). g is a small
    convolution of the memory map, of x0 and of the noise level, times the map's coverage; its end
    is zero-initialised, so that untrained v' is v bit for bit.
    """

    @register_to_config
    def __init__(
        self,
        memory_channels: int,
        *,
        rgb_at: int,
        coverage_at: int,
        hidden: int = 24,
        tau: float = 0.3,
    ) -> None:
        """Build the gate.

        Args:
            memory_channels: Channels M of the memory map.
            rgb_at: First of its three colour channels.
            coverage_at: Its channel of coverage.
            hidden: Width of the convolutions.
            tau: Errors of the memory's colours, in units of [-1, 1].
        """
        super().__init__()
        self.rgb_at, self.coverage_at, self.tau = rgb_at, coverage_at, tau
        self.features = nn.Sequential(
            nn.Conv2d(memory_channels + 4, hidden, kernel_size=3, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden, hidden, kernel_size=3, padding=1),
            nn.SiLU(),
        )
        self.end = zero_init(nn.Conv2d(hidden, 1, kernel_size=1))

    def forward(
        self,
        v: Tensor,
        x_t: Tensor,
        log_snr: Tensor,
        memory: Tensor,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        """Return v' (B, T, 3, S, S).

        Args:
            v: The network's (B, T, 3, S, S).
            x_t: Noisy frames (B, T, 3, S, S).
            log_snr: Of every frame (B, T).
            memory: Memory map (B, T, M, S, S), colours in [-1, 1].
            memory_mask: (B,) bool, True where the memory of a clip is dropped: there v' is v.
        """
        log_snr = log_snr.float()[..., None, None, None]
        alpha, sigma = log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
        x0 = alpha * x_t - sigma * v
        pull = sigma / (sigma**2 + self.tau**2) * self.strength(memory, x0, sigma)
        if memory_mask is not None:
            pull = pull.masked_fill(memory_mask.view(-1, 1, 1, 1, 1), 0.0)
        return v + pull * (x0 - memory[:, :, self.rgb_at : self.rgb_at + 3])

    def strength(self, memory: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
        """Return g (B, T, 1, S, S), zero where nothing is known."""
        level = sigma.expand(*x0.shape[:2], 1, *x0.shape[3:])
        told = torch.cat([memory, x0.clamp(-1, 1), level], dim=2).flatten(0, 1)
        maps = told.contiguous(memory_format=torch.channels_last)
        known = memory[:, :, self.coverage_at : self.coverage_at + 1]
        return known * self.end(self.features(maps)).unflatten(0, memory.shape[:2])
