"""History of the implicit memory: the teacher's compressed tokens with the rays they were seen by.

What a fixed number of learned queries compress is `geomem.models.implicit`'s. Shape suffixes: K
history frames, C feature channels, h, w patch grid.
"""

import torch
from torch import Tensor

from geomem.geometry.rays import RAY_CHANNELS, encode_cameras

PRESENCE = 1


def history_channels(feature_channels: int) -> int:
    """Return the channels M of a history: features, encoded rays, presence."""
    return feature_channels + RAY_CHANNELS + PRESENCE


def encode_history(
    features: Tensor, cameras: Tensor, first_camera: Tensor, *, frames: int
) -> Tensor:
    """Lay out the tokens of K history frames for the memory, padded to `frames` of them.

    Args:
        features: Compressed features (K, C, h, w) on a square grid.
        cameras: The frames' cameras (K, 16).
        first_camera: Camera (16,) of the first frame of the window that will read the memory;
            rays are relative to it, as those of the window itself are.
        frames: Entries of the result, at least K.

    Returns:
        (frames, C + 180 + 1, h, w): features, encoded rays through the patches' centres, presence;
        all channels of an entry that stands for no frame are zero.

    Raises:
        ValueError: If features and cameras differ in number, or exceed `frames`.
    """
    known = len(features)
    if len(cameras) != known or known > frames:
        raise ValueError(
            f"features of {known} frames, {len(cameras)} cameras, room for {frames} frames"
        )
    together = torch.cat([first_camera[None], cameras])[None]
    rays = encode_cameras(together, features.shape[-1])[0, 1:]
    presence = torch.ones_like(features[:, :PRESENCE])
    history = torch.cat([features, rays, presence], dim=1)
    return torch.cat([history, history.new_zeros(frames - known, *history.shape[1:])])
