"""The implicit memory: learned queries that compress the features of a history."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from geomem.memory.registry import KINDS, Memory, MemoryKind, Seen, TokenSettings
from geomem.registry.strict import Positive


class ImplicitSettings(TokenSettings):
    """Its size, however long the history."""

    queries: int = Field(default=64, ge=2, description="tokens of the memory")
    width: Positive = Field(default=64, description="width of those tokens")
    heads: Positive = Field(default=4, description="attention heads of the queries")
    layers: Positive = Field(default=2, description="looks of the queries at the history")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} do not divide width {self.width}")
        return self


class Implicit(MemoryKind):
    """`geomem.memory.implicit`; what compresses it belongs to the method's network."""

    name = "implicit"
    version = 2
    summary = "learned queries that compress the features of a history and the rays they lie on"
    form = "tokens"
    needs = frozenset({"features"})
    Settings = ImplicitSettings

    def channels(self, features: int) -> dict[str, int]:
        """Return the channels of a history."""
        # stated here, since the module that lays them out needs torch; a test holds both equal
        return {"features": features, "rays": 180, "presence": 1}

    def build(self, seen: Seen, settings: ImplicitSettings) -> Memory:
        """Keep the history; its rays depend on who reads it."""
        from geomem.memory.implicit import History

        assert seen.features is not None
        return History(features=seen.features, cameras=seen.cameras)


KINDS.add(Implicit())
