"""Distances of a perceptual network: LPIPS, or the stand-in that is named as such."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from geomem.metrics.lpips_weights import BACKBONES
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
    from torch import device

    from geomem.metrics.networks import Perceptual

NAMES = {
    "lpips": NetworkName(key="lpips", heading=("LPIPS",), axis="LPIPS"),
    "lpips_vgg": NetworkName(key="lpips_vgg", heading=("LPIPS (VGG)",), axis="LPIPS (VGG)"),
    "efficientnet_lite0_distance": NetworkName(
        key="efficientnet_lite0_distance",
        heading=("EfficientNet-", "Lite0 dist."),
        axis="E-Lite0 distance",
        stands_for="a distance of EfficientNet-Lite0 features for LPIPS",
    ),
}


class PerceptualSettings(Strict):
    """Which network, and how often it looks."""

    network: Literal["auto", "lpips", "lpips_vgg", "efficientnet_lite0"] = Field(
        default="auto", description="auto: LPIPS (AlexNet) where it can run without a download"
    )
    stride: Positive = Field(
        default=1, description="every n-th generated frame gets a perceptual distance"
    )
    fetch: bool = Field(
        default=False,
        exclude=True,
        description="the workflow downloads the weights that the network of LPIPS stands on",
    )


class PerceptualScorer(Scorer):
    """Distances of frames to the truth and between visits of a place."""

    def __init__(self, network: Perceptual, stride: int) -> None:
        self.network, self.stride = network, stride
        self.names = {"perceptual": NAMES[network.label]}
        self.networks = {"perceptual": network.details}

    def clip(self, videos: ClipVideos) -> ClipScores:
        """Score one clip."""
        import torch

        from geomem.metrics.revisits import revisit_distances

        made, true = videos.generated[videos.context :], videos.truth[videos.context :]
        curve = made.new_full((len(made),), torch.nan, dtype=torch.float64)
        distances = self.network.distance(made[:: self.stride], true[:: self.stride])
        curve[:: self.stride] = distances.to(curve)
        values: dict[str, float | None] = {"perceptual": float(curve.nanmean())}
        if len(videos.revisits):
            values |= revisit_distances(
                videos.generated, videos.truth, videos.revisits, distance=self.network.distance
            )
        if videos.partial:
            distances = self.network.distance(
                videos.generated[videos.partial], videos.truth[videos.partial]
            )
            values["partial_distance"] = float(distances.double().mean())
        return ClipScores(values=values, curves={"perceptual": curve})


class PerceptualDistances(MetricFamily):
    """The family of a perceptual network."""

    name = "perceptual"
    summary = "LPIPS or its labelled stand-in: frames, places seen again or in part"
    version = 2
    metrics = (
        Metric(name="perceptual", level="frame", better="lower", precision=3, least=0),
        Metric(
            name="truth_distance",
            level="clip",
            label="revisit distance",
            better="lower",
            precision=3,
            least=0,
        ),
        Metric(
            name="partial_distance",
            level="clip",
            label="partial distance",
            better="lower",
            precision=3,
            least=0,
        ),
        Metric(
            name="self_distance",
            level="clip",
            label="self distance",
            better="lower",
            precision=3,
            least=0,
        ),
        Metric(
            name="closing_distance",
            level="clip",
            label="closing distance",
            better="lower",
            precision=3,
            least=0,
        ),
        Metric(
            name="late_distance",
            level="clip",
            label="late distance",
            better="lower",
            precision=3,
            least=0,
        ),
    )
    Settings = PerceptualSettings

    def weights(self, settings: PerceptualSettings) -> Mapping[str, WeightFile]:
        """Return by path where LPIPS's backbone comes from, if it is to be downloaded."""
        file = BACKBONES.get(settings.network) if settings.fetch else None
        return {file.path: file} if file else {}

    def open(self, settings: PerceptualSettings, device: device) -> Scorer:
        """Load the network."""
        from geomem.errors import InputError
        from geomem.metrics.networks import available_perceptual, load_perceptual

        try:
            name = available_perceptual() if settings.network == "auto" else settings.network
            return PerceptualScorer(load_perceptual(name, device=device), settings.stride)
        except ValueError as error:
            raise InputError(f"perceptual: {error}") from None
        except (ModuleNotFoundError, FileNotFoundError) as error:
            extra = "perceptual" if settings.network in BACKBONES else "scores"
            raise InputError(f"{error} (pip install -e '.[{extra}]')") from None


FAMILIES.add(PerceptualDistances())
