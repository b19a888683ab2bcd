"""Distances between sets of clips: FVD and KVD on I3D, or the stand-ins named as such."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from geomem.metrics.registry import (
    FAMILIES,
    ClipScores,
    ClipVideos,
    Metric,
    MetricFamily,
    NetworkName,
    Scorer,
)
from geomem.registry.strict import Positive, Strict

if TYPE_CHECKING:
    import numpy as np
    from torch import device

    from geomem.metrics.networks import VideoFeatures

SUBSET_SEED = 0
# A Frechet distance of fewer clips than this says more of their number than of the method.
FRECHET_CLIPS = 40
NAMES = {
    "fvd": NetworkName(key="fvd", heading=("FVD",), axis="FVD"),
    "kvd": NetworkName(key="kvd", heading=("KVD",), axis="KVD"),
    "frechet_efficientnet_lite0": NetworkName(
        key="frechet_efficientnet_lite0",
        heading=("EfficientNet-", "Lite0 Frechet"),
        axis="E-Lite0 Frechet distance",
        stands_for="a Frechet distance of EfficientNet-Lite0 features for FVD",
    ),
    "kernel_efficientnet_lite0": NetworkName(
        key="kernel_efficientnet_lite0",
        heading=("EfficientNet-", "Lite0 kernel dist."),
        axis="E-Lite0 kernel distance",
        stands_for="a kernel distance of EfficientNet-Lite0 features for KVD",
    ),
}


class SetSettings(Strict):
    """Which video features, and of which frames."""

    network: Literal["auto", "i3d", "efficientnet_lite0"] = Field(
        default="auto", description="auto: I3D where its torchscript file is there"
    )
    i3d_weights: str = "data/weights/i3d_torchscript.pt"
    stride: Positive = Field(default=1, description="every n-th frame enters the video features")


class SetScorer(Scorer):
    """Features of clips, and the distances between their sets."""

    def __init__(self, network: VideoFeatures, stride: int) -> None:
        self.network, self.stride = network, stride
        self.names = {
            "frechet": NAMES[network.label],
            "kernel_distance": NAMES[network.kernel_label],
        }
        self.networks = {"frechet": network.details}

    def clip(self, videos: ClipVideos) -> ClipScores:
        """Return the features of truth and generated clip."""
        import torch

        pair = torch.stack([videos.truth, videos.generated])[:, :: self.stride]
        return ClipScores(features=self.network.features(pair).numpy())

    def sets(self, real: np.ndarray, generated: np.ndarray) -> dict[str, Any]:
        """Return the distances between two sets of features, with what each clip adds.

        The kernel distance is None of one clip, a Frechet distance of fewer than `FRECHET_CLIPS`.
        Two clips leave no set to take one out of, so that there is nothing for an interval.
        """
        from geomem.metrics.distances import frechet_distance, frechet_infinite, kernel_distance

        result = dict[str, Any].fromkeys(("frechet", "kernel_distance", "frechet_infinite"))
        if len(real) > 1:
            result["kernel_distance"] = set_score(real, generated, kernel_distance)
        if len(real) >= FRECHET_CLIPS:
            result["frechet"] = set_score(real, generated, frechet_distance)
            value = frechet_infinite(real, generated, seed=SUBSET_SEED)
            result["frechet_infinite"] = {"value": value, "clips": len(real)}
        return result


def set_score(
    real: np.ndarray, fake: np.ndarray, distance: Callable[[np.ndarray, np.ndarray], float]
) -> dict[str, Any]:
    """Return a distance between features (C, S, D) as score files keep it, with pseudovalues (C,)
    where more than two clips leave a set to take one out of."""
    from geomem.statistics import pseudovalues

    score: dict[str, Any] = {"value": distance(real, fake), "clips": len(real)}
    if len(real) > 2:
        score["pseudovalues"] = list(pseudovalues(real, fake, distance))
    return score


class SetDistances(MetricFamily):
    """The family of distances between sets of clips."""

    name = "sets"
    summary = "FVD and KVD on I3D, or labelled stand-ins: distances between sets of clips"
    metrics = (
        Metric(name="frechet", level="set", better="lower", precision=1),
        Metric(name="kernel_distance", level="set", better="lower"),
        Metric(
            name="frechet_infinite",
            level="set",
            label="Frechet, extrapolated",
            better="lower",
            precision=1,
        ),
    )
    Settings = SetSettings

    def open(self, settings: SetSettings, device: device) -> Scorer:
        """Load the network."""
        from geomem.errors import InputError
        from geomem.metrics.networks import load_video_features

        weights = Path(settings.i3d_weights)
        wanted = settings.network == "i3d" or (settings.network == "auto" and weights.is_file())
        try:
            network = load_video_features(weights if wanted else None, device=device)
        except (ModuleNotFoundError, FileNotFoundError) as error:
            raise InputError(f"{error} (pip install geomem[scores])") from None
        return SetScorer(network, settings.stride)


FAMILIES.add(SetDistances())
