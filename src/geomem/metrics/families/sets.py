"""Distances between sets of clips: FVD and KVD on I3D, or the stand-ins named as such."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    WeightFile,
)
from geomem.registry.strict import Positive, Strict

if TYPE_CHECKING:
    import numpy as np
    from torch import device

    from geomem.metrics.networks import VideoFeatures

# Of the authors of StyleGAN-V, whose FVD this is.
I3D_URL = "https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1"
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
    i3d_sha256: str = Field(
        default="",
        pattern="^([0-9a-f]{8,64})?$",
        exclude_if=lambda digits: not digits,
        description="of that file, or its first digits; compared before use",
    )
    fetch: bool = Field(
        default=False, exclude=True, description="the workflow downloads I3D's file"
    )
    stride: Positive = Field(default=1, description="every n-th frame enters the video features")


class SetScorer(Scorer):
    """Features of clips, and the distances between their sets.

    Attributes:
        prefix: Of the names of its metrics.
        names_of: How tables name them, by label of the network.
    """

    prefix = ""
    names_of = NAMES

    def __init__(self, network: VideoFeatures, stride: int) -> None:
        self.network, self.stride = network, stride
        frechet, kernel = f"{self.prefix}frechet", f"{self.prefix}kernel_distance"
        self.names = {
            frechet: self.names_of[network.label],
            kernel: self.names_of[network.kernel_label],
        }
        self.networks = {frechet: network.details}

    def clip(self, videos: ClipVideos) -> ClipScores:
        """Return the features of truth and generated clip."""
        import torch

        pair = torch.stack([videos.truth, videos.generated])[:, :: self.stride]
        return ClipScores(features=self.network.features(pair).numpy())

    def sets(self, real: np.ndarray, generated: np.ndarray) -> dict[str, Any]:
        """Return the distances between two sets of features, with what each clip adds.

        The kernel distance is None of one clip, a Frechet distance of fewer than `FRECHET_CLIPS`.
        Two clips leave no set to take one out of, so that there is nothing for an interval. The
        extrapolation is biased too at fewer clips than features have numbers, which its curve, the
        distance against the number of clips, lets one see.
        """
        from geomem.metrics.distances import (
            frechet_curve,
            frechet_distance,
            intercept,
            kernel_distance,
        )

        found = dict[str, Any].fromkeys(("frechet", "kernel_distance", "frechet_infinite"))
        if len(real) > 1:
            found["kernel_distance"] = set_score(real, generated, kernel_distance)
        if len(real) >= FRECHET_CLIPS:
            found["frechet"] = set_score(real, generated, frechet_distance)
            counts, distances = frechet_curve(real, generated, seed=SUBSET_SEED)
            found["frechet_infinite"] = {
                "value": intercept(counts, distances),
                "clips": len(real),
                "curve": {"clips": counts.tolist(), "values": distances.tolist()},
            }
        return {self.prefix + name: entry for name, entry in found.items()}


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
        Metric(name="frechet", level="set", of_videos=True, better="lower", precision=1),
        Metric(name="kernel_distance", level="set", of_videos=True, better="lower"),
        Metric(
            name="frechet_infinite",
            level="set",
            of_videos=True,
            label="Frechet, extrapolated",
            better="lower",
            precision=1,
        ),
    )
    Settings = SetSettings

    def weights(self, settings: SetSettings) -> Mapping[str, WeightFile]:
        """Return by path where I3D's file comes from, if it is to be downloaded."""
        wanted = settings.fetch and settings.network != "efficientnet_lite0"
        return {settings.i3d_weights: _i3d_file(settings)} if wanted else {}

    def open(self, settings: SetSettings, device: device) -> Scorer:
        """Load the network."""
        from geomem.errors import InputError
        from geomem.metrics.networks import load_video_features

        weights = Path(settings.i3d_weights)
        wanted = settings.network == "i3d" or (settings.network == "auto" and weights.is_file())
        try:
            if wanted and weights.is_file():
                _i3d_file(settings).checked()
            network = load_video_features(weights if wanted else None, device=device)
        except ValueError as error:
            raise InputError(f"sets: {error}") from None
        except (ModuleNotFoundError, FileNotFoundError) as error:
            raise InputError(f"{error} (pip install -e '.[scores]')") from None
        return SetScorer(network, settings.stride)


def _i3d_file(settings: SetSettings) -> WeightFile:
    return WeightFile(path=settings.i3d_weights, sha256=settings.i3d_sha256, url=I3D_URL)


FAMILIES.add(SetDistances())
