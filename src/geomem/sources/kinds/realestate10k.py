"""RealEstate10K: walks through houses on video, with cameras from structure from motion."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from geomem.sources.registry import (
    SOURCES,
    ClipsOfSplit,
    Download,
    Shard,
    Source,
    SourceSettings,
)


class RealEstate10KSettings(SourceSettings):
    """The data set as preprocessed for DFoT."""

    archive: Download
    intrinsics: Literal["cropped", "as_released"] = Field(
        default="cropped",
        description="whether a square crop changes fx; `as_released` repeats DFoT's omission",
    )
    choice_seed: int = Field(default=0, description="draws clips and first frames")


class RealEstate10K(Source):
    """Real videos."""

    name = "realestate10k"
    summary = "walks through houses on video, cameras from structure from motion, no depth"
    terms = "poses CC BY 4.0 (Google); the videos belong to their uploaders: research use alone"
    Settings = RealEstate10KSettings

    def make_shard(
        self, split: ClipsOfSplit, shard: Shard, *, progress: Callable[..., Any]
    ) -> None:
        """Convert one shard."""
        from geomem.sources.realestate10k import import_shard

        import_shard(split, shard, progress=progress)

    def choose(self, split: ClipsOfSplit, archive: Path) -> dict[str, Any]:
        """Choose clips and first frames by a hash of seed and id."""
        from geomem.sources.realestate10k import choose_clips

        return choose_clips(archive, split)


SOURCES.add(RealEstate10K())
