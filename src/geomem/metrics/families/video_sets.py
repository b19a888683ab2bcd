"""Distances between sets of clips on a network that passes the content-bias test: TransNetV2.

It stands in for I3D, whose distances hardly see time (Ge et al. 2024), under names of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from geomem.metrics.families.sets import SetScorer
from geomem.metrics.registry import FAMILIES, Metric, MetricFamily, NetworkName, Scorer
from geomem.registry.strict import Positive, Strict

if TYPE_CHECKING:
    from torch import device


NAMES = {
    "frechet_transnetv2": NetworkName(
        key="frechet_transnetv2",
        heading=("TransNetV2", "Frechet"),
        axis="TransNetV2 Frechet distance",
        stands_for="a Frechet distance of TransNetV2 features for FVD",
    ),
    "kernel_transnetv2": NetworkName(
        key="kernel_transnetv2",
        heading=("TransNetV2", "kernel dist."),
        axis="TransNetV2 kernel distance",
        stands_for="a kernel distance of TransNetV2 features for KVD",
    ),
}


class VideoSetSettings(Strict):
    """Of which frames."""

    stride: Positive = Field(default=1, description="every n-th frame enters the video features")


class VideoSetScorer(SetScorer):
    """Features of clips, and the distances between their sets."""

    prefix = "video_"
    names_of = NAMES


class VideoSetDistances(MetricFamily):
    """The family of distances between sets of clips that see time."""

    name = "video_sets"
    summary = "distances between sets of clips on TransNetV2 features, which see time"
    metrics = (
        Metric(name="video_frechet", level="set", of_videos=True, better="lower"),
        Metric(
            name="video_kernel_distance", level="set", of_videos=True, better="lower", precision=4
        ),
        Metric(
            name="video_frechet_infinite",
            level="set",
            of_videos=True,
            label="TransNetV2 Frechet, extrapolated",
            better="lower",
        ),
    )
    Settings = VideoSetSettings

    def open(self, settings: VideoSetSettings, device: device) -> Scorer:
        """Load the network."""
        from geomem.errors import InputError
        from geomem.metrics.video_networks import TransNetV2Features

        try:
            network = TransNetV2Features(device=device)
        except ModuleNotFoundError as error:
            raise InputError(f"{error} (pip install -e '.[video]')") from None
        return VideoSetScorer(network, settings.stride)


FAMILIES.add(VideoSetDistances())
