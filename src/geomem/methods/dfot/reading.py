"""Backbones that read a memory by themselves, without a branch: what their training shares.

Shape suffixes: B clips, T frames, S pixels.
"""

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from geomem.geometry.rays import encode_cameras_apart
from geomem.methods.dfot.method import VideoModel


class ReadingModel(VideoModel):
    """A network under training whose readers' gates start at zero."""

    @abstractmethod
    def reading(self, memory: Any, cameras: Tensor) -> dict[str, Any]:
        """Return the options by which the network is given what `remembered` returned.

        Args:
            memory: That.
            cameras: Of the windows (B, T, 16).
        """

    def ends(self) -> list[nn.Parameter]:
        """Return the parameters of the gates."""
        gates: list[nn.Parameter] = self.backbone.zero_initialised_parameters()
        return gates

    def predict(
        self,
        x_t: Tensor,
        noise_levels: Tensor,
        cameras: Tensor,
        camera_mask: Tensor,
        memory: Any,
        memory_mask: Tensor | None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return v (B, T, 3, S, S) and the hidden states; arguments as `VideoModel.predict`."""
        rays = encode_cameras_apart(cameras, x_t.shape[-1])
        v, states = self.backbone(
            x_t,
            noise_levels,
            None,
            camera_mask,
            camera_embedding=self.backbone.embed_cameras(*rays),
            return_states=True,
            **self.reading(memory, cameras),
        )
        return v, states
