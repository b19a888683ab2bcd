"""The explicit memory: a map of points with colours and features, of a fixed size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from geomem.memory.registry import KINDS, Memory, MemoryKind, Seen
from geomem.registry.strict import Positive, Share, Strict

if TYPE_CHECKING:
    from torch import device


class ExplicitSettings(Strict):
    """The map's size and what enters it."""

    voxel_size: float = Field(gt=0, description="metres")
    budget: Positive = Field(description="largest number of points")
    confidence_quantile: Share = Field(description="this share of least confident points is cut")
    generated_weight: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="what points of generated frames count beside those of given ones, where both "
        "show a surface",
    )


class Explicit(MemoryKind):
    """`geomem.memory.explicit`."""

    name = "explicit"
    summary = "a map of points with colours and features, rendered into every target view"
    version = 2
    form = "maps"
    needs = frozenset({"geometry", "features"})
    Settings = ExplicitSettings

    def channels(self, features: int) -> dict[str, int]:
        """Return the channels of a rendered map."""
        return {"rgb": 3, "features": features, "coverage": 1, "inverse_depth": 1}

    def build(self, seen: Seen, settings: ExplicitSettings) -> Memory:
        """Build the map of finished frames."""
        from geomem.memory.explicit import ExplicitMemory

        return ExplicitMemory.build(
            seen,
            budget=settings.budget,
            voxel_size=settings.voxel_size,
            confidence_quantile=settings.confidence_quantile,
            generated_weight=settings.generated_weight,
        )

    def empty(self, features: int, device: device | None = None) -> Memory:
        """Return a map without a point."""
        from geomem.memory.explicit import ExplicitMemory

        return ExplicitMemory.empty(features, device=device)


KINDS.add(Explicit())
