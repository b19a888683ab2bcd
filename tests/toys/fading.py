"""The network of the toy method: apart from its spec, which must start without torch."""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from geomem.methods.training import Loss, TrainedMethod


class Copier(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' own clash
    """One number."""

    @register_to_config
    def __init__(self, start: float) -> None:
        super().__init__()
        self.brightness = nn.Parameter(torch.tensor(float(start)))


class FadingMethod(TrainedMethod):
    """It under training: each frame against the window's first one, at some brightness."""

    def __init__(self, copier: Copier) -> None:
        super().__init__()
        self.copier = copier

    def trained_modules(self) -> dict[str, nn.Module]:
        """Return its one module."""
        return {"copier": self.copier}

    def draw(
        self,
        shape_BTCSS: tuple[int, ...],
        *,
        noise: str,
        history: float,
        memory_dropout: float | None,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """Draw nothing."""
        return {}

    def loss(self, windows: dict[str, Tensor]) -> Loss:
        """Return the squared error."""
        first = windows["frames"][:, :1]
        error = (self.copier.brightness * first - windows["frames"]).square().mean()
        return Loss(value=error, parts={"error": error.detach()}, states=[])
