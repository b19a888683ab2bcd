"""Content-debiased FVD (Ge et al. 2024): distances between sets of videos on VideoMAE features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from geomem.metrics.families.sets import FRECHET_CLIPS, SetScorer, set_score
from geomem.metrics.registry import (
    FAMILIES,
    Metric,
    MetricFamily,
    Scorer,
    WeightFile,
)
from geomem.registry.strict import Positive, Strict

if TYPE_CHECKING:
    import numpy as np
    from torch import device

    from geomem.metrics.networks import VideoFeatures

FILE = "vit_g_hybrid_pt_1200e_ssv2_ft.pth"


class VideoMaeSettings(Strict):
    """Where VideoMAE's weights lie, and which frames it sees."""

    weights: WeightFile = WeightFile(
        path=f"data/weights/videomae/{FILE}",
        url=f"https://huggingface.co/OpenGVLab/InternVideoMAE_models/resolve/main/mae-g/{FILE}",
    )
    stride: Positive = Field(default=1, description="every n-th frame is seen")
    fetch: bool = Field(
        default=False, exclude=True, description="weights are downloaded by the workflow"
    )


class VideoMaeScorer(SetScorer):
    """Features of clips, and the distances between their sets."""

    def __init__(self, network: VideoFeatures, stride: int) -> None:
        self.network, self.stride = network, stride
        self.networks = {"videomae": network.details}

    def sets(self, real: np.ndarray, generated: np.ndarray) -> dict[str, Any]:
        """Return the kernel distance, None of one clip, and the Frechet one of enough clips."""
        from geomem.metrics.distances import frechet_distance, kernel_distance

        found = dict[str, Any].fromkeys(("videomae_frechet", "videomae_kernel"))
        if len(real) > 1:
            found["videomae_kernel"] = set_score(real, generated, kernel_distance)
        if len(real) >= FRECHET_CLIPS:
            found["videomae_frechet"] = set_score(real, generated, frechet_distance)
        return found


class VideoMaeDistances(MetricFamily):
    """The family of distances on VideoMAE features."""

    name = "videomae"
    summary = "FVD and KVD on VideoMAE features (content-debiased FVD); needs VideoMAE's weights"
    metrics = (
        Metric(name="videomae_frechet", level="set", label="VideoMAE FVD", better="lower"),
        Metric(
            name="videomae_kernel", level="set", label="VideoMAE KVD", better="lower", precision=4
        ),
    )
    Settings = VideoMaeSettings

    def weights(self, settings: VideoMaeSettings) -> Mapping[str, WeightFile]:
        """Return by path where the file comes from, if it is to be downloaded."""
        file = settings.weights
        return {file.path: file} if settings.fetch and file.url else {}

    def left_out(self, settings: VideoMaeSettings) -> dict[str, str]:
        """Return why there is no distance, the same for both."""
        path = settings.weights.path
        missing = not Path(path).is_file()
        return {metric.name: f"no {path}" for metric in self.metrics} if missing else {}

    def open(self, settings: VideoMaeSettings, device: device) -> Scorer:
        """Load the network.

        Raises:
            InputError: If the file is missing, or not the one that the settings name.
        """
        from geomem.errors import InputError
        from geomem.metrics.video_networks import VideoMaeFeatures

        path = Path(settings.weights.path)
        if self.left_out(settings):
            raise InputError(
                f"videomae: no {path}; bring VideoMAE's file, or set `fetch: true` below "
                "`scores.families.videomae`"
            )
        try:
            settings.weights.checked()
            return VideoMaeScorer(VideoMaeFeatures(path, device=device), settings.stride)
        except ValueError as error:
            raise InputError(f"videomae: {error}") from None


FAMILIES.add(VideoMaeDistances())
