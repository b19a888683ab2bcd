"""Where clips come from, and how windows are drawn from them."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from geomem.registry.fields import ByKey
from geomem.registry.strict import Positive, Share, Strict
from geomem.sources.registry import SOURCES, Download, SourceSettings

# A data set's file: its `source` says which model checks it.
Dataset = Annotated[SourceSettings, ByKey(SOURCES, lambda source: source.Settings, "source")]

__all__ = ["Dataset", "Download", "PlanSettings", "Split"]


class Split(Strict):
    """Clips of one split."""

    dataset: str
    role: Literal["train", "validation", "test"] = Field(
        description="scene ids are disjoint by role"
    )
    clips: Positive
    frames: Positive = Field(description="frames per clip")
    shards: Positive = 1
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="what the data set's source lets a split ask for (`geomem list sources`)",
    )

    @model_validator(mode="after")
    def _shards_fit(self) -> "Split":
        if self.shards > self.clips:
            raise ValueError(f"shards ({self.shards}) exceed clips ({self.clips})")
        return self


class PlanSettings(Strict):
    """How training windows are drawn."""

    split: str
    windows: Positive
    frames: Positive = Field(description="frames per window, T")
    strides: tuple[Positive, ...] = Field(description="frame skips to draw from")
    flip: Share = Field(description="probability of a left-right mirror")
    reverse: Share = Field(description="probability of reversed time")
    memory: bool = Field(description="whether each window comes with a history")
    seed: int = 0
