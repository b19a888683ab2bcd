"""The teacher and the basis as components that diffusers saves and loads."""

from dataclasses import asdict
from typing import Any, Self

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin

from geomem.formats.teacher_sizes import teacher_config
from geomem.memory.reconstruction import FeatureBasis
from geomem.networks.vggt.model import VGGT


class FrozenTeacher(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' own clash
    """A frozen VGGT.

    Attributes:
        vggt: The network; its weights have the published names below `vggt.`.
    """

    @register_to_config
    def __init__(self, architecture: dict[str, Any], *, precision: str = "fp32") -> None:
        """Build a teacher with random weights.

        Args:
            architecture: Fields of `VGGTConfig`; none for VGGT-1B.
            precision: `fp32`, or `bf16` for an aggregator under autocast.

        Raises:
            ValueError: If the sizes do not fit together.
        """
        super().__init__()
        self.vggt = VGGT(teacher_config(architecture)).requires_grad_(False)
        self.vggt.autocast = precision == "bf16"

    @classmethod
    def of(cls, vggt: VGGT) -> Self:
        """Return a component with the weights of a loaded teacher."""
        made = cls(asdict(vggt.config), precision="bf16" if vggt.autocast else "fp32")
        made.vggt.load_state_dict(vggt.state_dict())
        return made.eval()


class TeacherBasis(ModelMixin, ConfigMixin):  # type: ignore[misc]  # as above
    """The PCA of one layer of the teacher's tokens, which a memory reads.

    Attributes:
        mean: (D,).
        components: (D, C).
    """

    mean: torch.Tensor
    components: torch.Tensor

    @register_to_config
    def __init__(
        self,
        width: int,
        channels: int,
        *,
        layer: int,
        unit: float,
        scale_prior: float,
        grid: int | None = None,
    ) -> None:
        """Build a basis of zeros, to be filled from a file.

        Args:
            width: D of the tokens.
            channels: C that are kept.
            layer: As of `FeatureBasis`, like the others.
            unit: Of the features.
            scale_prior: Metres per unit of the teacher.
            grid: Side of the grid; None for the teacher's.
        """
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("components", torch.zeros(width, channels))

    @classmethod
    def of(cls, basis: FeatureBasis) -> Self:
        """Return a component with the numbers of a basis; memories know its own layer alone."""
        made = cls(
            *basis.components.shape,
            layer=basis.layer,
            unit=basis.unit,
            scale_prior=basis.scale_prior,
            grid=basis.grid,
        )
        made.load_state_dict({"mean": basis.mean, "components": basis.components})
        return made.eval()

    @property
    def basis(self) -> FeatureBasis:
        """The basis on the device of the component."""
        told = {name: self.config[name] for name in ("layer", "unit", "scale_prior", "grid")}
        return FeatureBasis(mean=self.mean, components=self.components, **told)
