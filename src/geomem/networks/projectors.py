"""Heads that carry hidden states of the video model into the space of teacher features.

Shape suffixes: B clips, T frames, C student channels, h/w rows and columns of the student's grid,
N = h*w tokens of a frame (row-major), D teacher channels.
"""

from itertools import pairwise

import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from torch import Tensor, nn


def _tokens_mlp(in_channels: int, hidden: int, out_channels: int, *, layers: int) -> nn.Sequential:
    """Return a perceptron over the last axis with SiLU between its `layers` linear layers."""
    widths = [in_channels, *[hidden] * (layers - 1), out_channels]
    modules: list[nn.Module] = [nn.Linear(widths[0], widths[1])]
    for fan_in, fan_out in pairwise(widths[1:]):
        modules += [nn.SiLU(), nn.Linear(fan_in, fan_out)]
    return nn.Sequential(*modules)


class AlignmentProjector(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' own clash
    """Projector f and scale head g of Geometry Forcing (arXiv 2507.07982, eq. 5 and 6)."""

    @register_to_config
    def __init__(self, student_channels: int, teacher_channels: int, *, hidden: int = 256) -> None:
        """Build a 3x3 convolution over each frame's grid, a linear layer, and the scale head.

        Args:
            student_channels: Channels C of the aligned hidden state.
            teacher_channels: Channels D of the teacher's tokens.
            hidden: Width inside f and g.
        """
        super().__init__()
        self.conv = nn.Conv2d(student_channels, hidden, kernel_size=3, padding=1)
        self.project = nn.Linear(hidden, teacher_channels)
        self.scale_head = _tokens_mlp(teacher_channels, hidden, teacher_channels, layers=2)

    def forward(self, states_BTChw: Tensor) -> tuple[Tensor, Tensor]:
        """Return f(h) and g(f(h)/|f(h)|), both (B, T, N, D).

        Only the direction of f(h) means anything; g predicts the teacher's features at their own
        scale from that direction alone. Gradients of g's output reach f.
        """
        clips = states_BTChw.shape[0]
        maps = F.silu(self.conv(rearrange(states_BTChw, "b t c h w -> (b t) c h w")))
        f_BTND = self.project(rearrange(maps, "(b t) c h w -> b t (h w) c", b=clips))
        return f_BTND, self.scale_head(F.normalize(f_BTND, dim=-1))


class RepaProjector(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' own clash
    """Three-layer perceptron per token (REPA, arXiv 2410.06940)."""

    @register_to_config
    def __init__(self, student_channels: int, teacher_channels: int, *, hidden: int = 256) -> None:
        """Build the perceptron; arguments as for AlignmentProjector."""
        super().__init__()
        self.mlp = _tokens_mlp(student_channels, hidden, teacher_channels, layers=3)

    def forward(self, states_BTChw: Tensor) -> Tensor:
        """Return projected tokens (B, T, N, D)."""
        return self.mlp(rearrange(states_BTChw, "b t c h w -> b t (h w) c"))
