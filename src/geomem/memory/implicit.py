"""History of the implicit memory: the teacher's compressed tokens with the rays they were seen by.

A fixed number of learned queries compresses it: `geomem.networks.uvit.implicit`. Shape suffixes:
K history frames, C feature channels, h, w patch grid.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from geomem.geometry.rays import encode_cameras
from geomem.memory.registry import Memory


@dataclass(frozen=True, kw_only=True)
class History(Memory):
    """Tokens of finished frames.

    Attributes:
        features: Compressed features (K, C, h, w) on a square grid.
        cameras: The frames' cameras (K, 16).

    Raises:
        ValueError: If they differ in number.
    """

    features: Tensor
    cameras: Tensor

    def __post_init__(self) -> None:
        if len(self.features) != len(self.cameras):
            raise ValueError(
                f"features of {len(self.features)} frames, {len(self.cameras)} cameras"
            )

    def read(self, cameras: Tensor, size: int) -> dict[str, Tensor]:
        """Return features, encoded rays through the patches' centres, and presence, (K, M, h, w).

        Rays are relative to the first target camera, as those of the window itself are.
        """
        together = torch.cat([cameras[:1], self.cameras])[None]
        rays = encode_cameras(together, self.features.shape[-1])[0, 1:]
        presence = torch.ones_like(self.features[:, :1])
        return {"features": self.features, "rays": rays, "presence": presence}
