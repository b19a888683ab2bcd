"""What clips are like: camera motion, and newly seen area; the same for every method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from geomem.metrics.families.matches import spread
from geomem.metrics.registry import (
    FAMILIES,
    ClipScores,
    ClipVideos,
    Metric,
    MetricFamily,
    Scorer,
)
from geomem.registry.strict import Positive, Strict

if TYPE_CHECKING:
    from torch import device


class RegimeSettings(Strict):
    """How closely is looked."""

    given: Positive = Field(
        default=64, description="most given frames that are looked into, spread over all"
    )


class RegimeScorer(Scorer):
    """Descriptions of clips by the truth's cameras and depth."""

    def __init__(self, settings: RegimeSettings) -> None:
        self.settings = settings

    def clip(self, videos: ClipVideos) -> ClipScores:
        """Describe one clip."""
        from geomem.metrics.regimes import camera_motion, overlap_with_given

        context, overlap = videos.context, None
        path, turn = camera_motion(videos.cameras, context=context)
        if videos.depth is not None:
            given = spread(range(context), self.settings.given)
            overlap = overlap_with_given(videos.depth, videos.cameras, context=context, given=given)
        new = None if overlap is None else 1 - overlap
        values = {"camera_path": path, "camera_turn": turn, "overlap": overlap, "new_area": new}
        return ClipScores(values=values)


class Regimes(MetricFamily):
    """The family of what clips are like."""

    name = "regimes"
    summary = "what clips are like: camera motion, and area that no given frame shows"
    metrics = (
        Metric(
            name="camera_path",
            level="clip",
            label="camera path",
            unit="m",
            better="neither",
            least=0,
            sanity="none",
        ),
        Metric(
            name="camera_turn",
            level="clip",
            label="camera turn",
            unit="deg",
            better="neither",
            precision=0,
            least=0,
            sanity="none",
        ),
        *(
            Metric(
                name=name,
                level="clip",
                label=label,
                better="neither",
                least=0,
                most=1,
                of_some_clips=True,
                sanity="none",
            )
            for name, label in (
                ("overlap", "overlap with given frames"),
                ("new_area", "newly seen area"),
            )
        ),
    )
    Settings = RegimeSettings

    def open(self, settings: RegimeSettings, device: device) -> Scorer:
        """Return the scorer; it has no network."""
        return RegimeScorer(settings)


FAMILIES.add(Regimes())
