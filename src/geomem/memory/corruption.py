"""What generation does to the frames in a memory, done to true ones while training.

A memory is trained on true frames with the teacher's depth of them, and read while generating with
frames that the model made: a little blurred, noisy, off in colour, and off in depth. Shapes: K
frames of S pixels.
"""

from dataclasses import replace

import torch
from torch import Generator, Tensor
from torch.nn.functional import conv2d, pad

from geomem.memory.registry import Seen


def corrupt(
    seen: Seen,
    generator: Generator,
    *,
    share: float,
    blur: float,
    noise: float,
    colour: float,
    depth: float,
) -> Seen:
    """Return frames and depth of a history with errors; some frames keep theirs.

    Args:
        seen: The history, frames in [0, 1].
        generator: On the CPU.
        share: Of the frames that have errors.
        blur: Largest sigma of the blur, pixels; drawn evenly up to it.
        noise: Largest sigma of noise by pixel and channel, in units of [0, 1]; drawn evenly.
        colour: Sigma of a frame's shift of each channel, in units of [0, 1].
        depth: Sigma of the logarithm of a frame's factor on its depth.

    Returns:
        Frames clamped to [0, 1], depth with one factor a frame; those with errors count as
        generated.
    """
    count = len(seen.frames)
    hit = torch.rand(count, generator=generator) < share
    blurs, noises = torch.rand(2, count, generator=generator) * hit
    tint = colour * torch.randn(count, 3, 1, 1, generator=generator) * hit[:, None, None, None]
    grain = torch.randn(seen.frames.shape, generator=generator) * noises[:, None, None, None]
    factor = (depth * torch.randn(count, generator=generator) * hit).exp()
    blurred = [
        gaussian_blur(frame, blur * float(sigma))
        for frame, sigma in zip(seen.frames, blurs, strict=True)
    ]
    frames = (torch.stack(blurred) + noise * grain + tint).clamp(0, 1)
    told = None if seen.depth is None else seen.depth * factor[:, None, None]
    return replace(seen, frames=frames, depth=told, given=~hit)


def gaussian_blur(frame: Tensor, sigma: float) -> Tensor:
    """Return a frame (3, S, S) blurred by a Gaussian of `sigma` pixels; edges are repeated."""
    radius = int(3 * sigma + 0.5)
    if not radius:
        return frame
    steps = torch.arange(-radius, radius + 1, dtype=frame.dtype)
    kernel = (-0.5 * (steps / sigma) ** 2).exp()
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = pad(frame[None], (radius,) * 4, mode="replicate")
    across = conv2d(padded, kernel, groups=3)
    return conv2d(across, kernel.transpose(2, 3), groups=3)[0]
