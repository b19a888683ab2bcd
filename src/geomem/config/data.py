"""Where clips come from, and how windows are drawn from them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from geomem.config.basics import Positive, Share, Strict

Trajectory = Literal["walk", "forward", "pan", "spin", "orbit", "out_and_back", "static"]
EMBEDDED = ("rooms", "rooms_ood")  # sources that are rendered, with true depth


class Dataset(Strict):
    """A source of clips (`config/datasets/<name>.yaml`)."""

    source: Literal["rooms", "rooms_ood", "realestate10k"]
    horizontal_fov: float = Field(
        default=80.0, gt=10, lt=150, description="degrees; embedded worlds only"
    )
    intrinsics: Literal["cropped", "as_released"] = Field(
        default="cropped",
        description="whether a square crop changes fx; `as_released` repeats DFoT's omission",
    )
    archive: str = Field(default="", description="hub repository of the archive; downloads only")
    archive_revision: str = Field(
        default="", description="commit of that repository; pinned, since its main branch may move"
    )
    archive_files: dict[str, str] = Field(
        default_factory=dict,
        description="files of it, in order, each with its SHA-256; empty where it is not known "
        "yet: the first download then records it, to be written here",
    )
    choice_seed: int = Field(default=0, description="draws clips and first frames; downloads only")

    @model_validator(mode="after")
    def _has_an_archive(self) -> Self:
        if self.source not in EMBEDDED and not (self.archive and self.archive_files):
            raise ValueError(f"{self.source} is downloaded: name `archive` and `archive_files`")
        if self.archive and not self.archive_revision:
            raise ValueError(f"{self.archive} moves: name its commit as `archive_revision`")
        return self


class Split(Strict):
    """Clips of one split."""

    dataset: str
    role: Literal["train", "validation", "test"] = Field(
        description="scene ids are disjoint by role"
    )
    clips: Positive
    frames: Positive = Field(description="frames per clip")
    trajectories: dict[Trajectory, Positive] = Field(description="relative shares")
    moving_object: bool = Field(default=False, description="regime (c)")
    shards: Positive = 1

    @model_validator(mode="after")
    def _shards_fit(self) -> Self:
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
