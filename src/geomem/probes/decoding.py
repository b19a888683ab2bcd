"""Depth and points that the teacher's heads read from tokens of one of its layers alone.

The dense heads read four layers, of which alignment knows one, L. Layers before L are guessed from
the tokens of L, patch by patch, by linear maps; layers behind L are computed from them by the
teacher's own blocks. Shape suffixes: B windows, T frames, N patches, D token width, S pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from geomem.networks.vggt.model import NUM_SPECIAL, VGGT, VGGTDenseOutput
from geomem.probes.ridge import LinearMap


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What stands for the layers, and the special tokens, that were not given.

    Attributes:
        layer: L, the layer that is given.
        earlier: For every earlier layer that the heads read, its map from the tokens of L.
        special: Special tokens of L in the first frame of a window and in any other, (2, n, D);
            their means over windows.
    """

    layer: int
    earlier: Mapping[int, LinearMap]
    special: Tensor


def decode_patches(teacher: VGGT, patches_BTND: Tensor, completion: Completion) -> VGGTDenseOutput:
    """Return what the dense heads say when only the patch tokens of one layer are known.

    Args:
        teacher: The frozen model.
        patches_BTND: Patch tokens of the completion's layer.
        completion: Of the rest.
    """
    batch, frames = patches_BTND.shape[:2]
    which = torch.arange(frames, device=patches_BTND.device).clamp(max=1)
    special = completion.special[which].expand(batch, -1, -1, -1)
    given = torch.cat([special, patches_BTND], dim=2)
    tokens = {completion.layer: given} | later_layers(teacher, given, completion.layer)
    for layer, guess in completion.earlier.items():
        guessed = guess(patches_BTND).to(given.dtype)
        # the heads never read special tokens
        tokens[layer] = torch.cat([torch.zeros_like(special), guessed], dim=2)
    size = teacher.config.image_size
    return teacher.decode_dense(tokens, height=size, width=size)


def later_layers(teacher: VGGT, tokens: Tensor, layer: int) -> dict[int, Tensor]:
    """Run the blocks behind a layer on its tokens (B, T, n + N, D); none behind the last."""
    later = range(layer + 1, teacher.config.depth)
    size = teacher.config.image_size
    shape = tokens.new_empty(1, 1, 3, size, size).expand(*tokens.shape[:2], -1, -1, -1)
    # a layer's tokens are those of its frame block beside those of its global block, which go on
    entering = tokens.chunk(2, dim=-1)[1]
    return dict(zip(later, teacher.aggregator.run(entering, shape, later), strict=True))


def mean_special(tokens_BTnD: Tensor) -> Tensor:
    """Return the mean special tokens (2, n, D) of the first and of the other frames."""
    special = tokens_BTnD[:, :, :NUM_SPECIAL]
    return torch.stack([special[:, 0].mean(0), special[:, 1:].mean((0, 1))])
