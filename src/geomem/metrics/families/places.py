"""Places that a clip shows more than once: agreement by overlap, and how far the video moved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from geomem.metrics.bins import BINS, shown
from geomem.metrics.families.matches import spread
from geomem.metrics.families.perceptual import NAMES as PERCEPTUAL_NAMES
from geomem.metrics.families.sets import FRECHET_CLIPS, set_score
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
from geomem.registry.strict import Positive, Share, Strict

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, device

    from geomem.metrics.covisibility import CovisiblePair
    from geomem.metrics.image_networks import ImageFeatures
    from geomem.metrics.networks import Perceptual

SET_NAMES = {
    "rfid": NetworkName(key="rfid", heading=("rFID",), axis="rFID"),
    "rkid": NetworkName(key="rkid", heading=("rKID",), axis="rKID"),
    "revisit_frechet_efficientnet_lite0": NetworkName(
        key="revisit_frechet_efficientnet_lite0",
        heading=("EfficientNet-", "Lite0 revisit Frechet"),
        axis="E-Lite0 revisit Frechet distance",
        stands_for="a Frechet distance of EfficientNet-Lite0 features for rFID",
    ),
    "revisit_kernel_efficientnet_lite0": NetworkName(
        key="revisit_kernel_efficientnet_lite0",
        heading=("EfficientNet-", "Lite0 revisit kernel dist."),
        axis="E-Lite0 revisit kernel distance",
        stands_for="a kernel distance of EfficientNet-Lite0 features for rKID",
    ),
}


# Published with StyleGAN2-ADA.
INCEPTION_URL = (
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
    "inception-2015-12-05.pt"
)


class PlaceSettings(Strict):
    """Which pairs of frames are compared, and with which networks."""

    gap: Positive = Field(
        default=4, description="fewest frames between the two of a pair, so that motion counts"
    )
    stride: Positive = Field(default=1, description="every n-th frame is looked at")
    perceptual_pairs: Positive = Field(
        default=8, description="pairs of a bin that get a perceptual distance, spread over them"
    )
    moved: Share = Field(
        default=0.5, description="of the truth's own way from which on a video counts as moved"
    )
    inception_weights: str = Field(
        default="data/weights/inception-2015-12-05.pt",
        description="torchscript of Inception-v3 for rFID; without it a labelled stand-in",
    )
    fetch: bool = Field(
        default=False, exclude=True, description="the workflow downloads Inception's file"
    )


class PlaceScorer(Scorer):
    """Agreement of frames that see one place, with the truth's own beside it."""

    def __init__(
        self, perceptual: Perceptual, features: ImageFeatures, settings: PlaceSettings
    ) -> None:
        self.perceptual, self.features, self.settings = perceptual, features, settings
        network = PERCEPTUAL_NAMES[perceptual.label]
        distances = [metric for metric in Places.metrics if metric.name in DISTANCES]
        self.names = {
            metric.name: NetworkName(
                key=f"{network.key}_{metric.name}",
                heading=(*network.heading, metric.label),
                axis=f"{network.axis}, {metric.label}",
                stands_for=network.stands_for,
            )
            for metric in distances
        }
        self.names |= {
            "revisit_frechet": SET_NAMES[features.label],
            "revisit_kernel_distance": SET_NAMES[features.kernel_label],
        }
        self.networks = {"perceptual": perceptual.details, "revisits": features.details}

    def clip(self, videos: ClipVideos) -> ClipScores:
        """Score one clip."""
        given = [metric.name for metric in Places.metrics if metric.level == "clip"]
        values = dict[str, float | None].fromkeys(given)
        if videos.depth is not None:
            values |= self._pairs(videos, videos.depth)
        if not len(videos.revisits):
            return ClipScores(values=values)
        first, last = widest(videos.revisits)
        features = self.features.images(videos.generated[[first, last]])[:, None]
        return ClipScores(
            values=values | self._moved(videos, first, last), features=features.numpy()
        )

    def _pairs(self, videos: ClipVideos, depth: Tensor) -> dict[str, float | None]:
        """Return the agreement of the pairs of each bin that has any."""
        from geomem.metrics.covisibility import covisible_pairs, pair_agreement, pair_distance

        bins = covisible_pairs(
            depth,
            videos.cameras,
            context=videos.context,
            gap=self.settings.gap,
            stride=self.settings.stride,
        )
        values = dict[str, float | None]()
        where = (depth, videos.cameras)
        for name, pairs in bins.items():
            if not pairs:
                continue
            few: list[CovisiblePair] = spread(pairs, self.settings.perceptual_pairs)
            for prefix, frames in (("", videos.generated), ("truth_", videos.truth)):
                values[f"{prefix}pair_psnr_{name}"] = pair_agreement(frames, *where, pairs)
                values[f"{prefix}pair_distance_{name}"] = pair_distance(
                    frames, *where, few, distance=self.perceptual.distance
                )
            values[f"place_psnr_{name}"] = pair_agreement(
                videos.generated, *where, pairs, reference=videos.truth
            )
        return values

    def _moved(self, videos: ClipVideos, first: int, last: int) -> dict[str, float | None]:
        """Return how far the clip moved from what was given, and its revisits if it did.

        Looked at midway between the widest two visits; where that was given, nothing is said.
        """
        from geomem.metrics.frames import psnr_per_frame

        turn, given = (first + last) // 2, videos.context - 1
        if turn <= given:
            return {}
        ways = [
            float(self.perceptual.distance(frames[[given]], frames[[turn]]))
            for frames in (videos.generated, videos.truth)
        ]
        if not ways[1]:
            return {}
        motion = ways[0] / ways[1]
        moved = motion >= self.settings.moved
        values: dict[str, float | None] = {"motion": motion, "moved": float(moved)}
        if moved:
            later = videos.revisits[:, 1]
            made, true = videos.generated[later], videos.truth[later]
            values["moved_truth_psnr"] = float(psnr_per_frame(made, true).mean())
            distance = self.perceptual.distance(made, true)
            values["moved_truth_distance"] = float(distance.double().mean())
        return values

    def sets(self, real: np.ndarray, generated: np.ndarray) -> dict[str, Any]:
        """Return the distances between first visits and last revisits of all clips.

        They are None of too few clips, as `SetScorer.sets` says.
        """
        from geomem.metrics.distances import frechet_distance, kernel_distance

        result = dict[str, Any].fromkeys(("revisit_frechet", "revisit_kernel_distance"))
        if len(real) > 1:
            result["revisit_kernel_distance"] = set_score(real, generated, kernel_distance)
        if len(real) >= FRECHET_CLIPS:
            result["revisit_frechet"] = set_score(real, generated, frechet_distance)
        return result


def widest(revisits: Tensor) -> tuple[int, int]:
    """Return of pairs (P, 2) the one with most frames between, of equals the first."""
    first, last = revisits[(revisits[:, 1] - revisits[:, 0]).argmax()].tolist()
    return first, last


# Of the perceptual network.
DISTANCES = {
    "moved_truth_distance",
    *(f"{prefix}pair_distance_{name}" for prefix in ("", "truth_") for name in BINS),
}


class Places(MetricFamily):
    """The family of frames that see one place."""

    name = "places"
    summary = "frames that see one place, by overlap; revisits of videos that moved; rFID"
    metrics = (
        *(
            Metric(
                name=f"{prefix}pair_psnr_{name}",
                level="clip",
                label=f"{told}pair PSNR, {shown(*bounds)}",
                unit="dB",
                better="neither" if prefix else "higher",
                cap=100.0,
                most=100.0,
                of_some_clips=True,
                sanity="truth first",  # of two wrongs, the flatter agree better
            )
            for prefix, told in (("", ""), ("truth_", "truth's "))
            for name, bounds in BINS.items()
        ),
        *(
            Metric(
                name=f"{prefix}pair_distance_{name}",
                level="clip",
                label=f"{told}pair distance, {shown(*bounds)}",
                better="neither" if prefix else "lower",
                precision=3,
                least=0,
                of_some_clips=True,
                sanity="truth first",
            )
            for prefix, told in (("", ""), ("truth_", "truth's "))
            for name, bounds in BINS.items()
        ),
        *(
            Metric(
                name=f"place_psnr_{name}",
                level="clip",
                label=f"PSNR of places seen before, {shown(*bounds)}",
                unit="dB",
                better="higher",
                cap=100.0,
                most=100.0,
                of_some_clips=True,
            )
            for name, bounds in BINS.items()
        ),
        Metric(name="motion", level="clip", label="motion / truth's", better="neither", least=0),
        Metric(name="moved", level="clip", label="moved", better="neither", least=0, most=1),
        Metric(
            name="moved_truth_psnr",
            level="clip",
            label="revisit PSNR, if moved",
            unit="dB",
            better="higher",
            cap=100.0,
            most=100.0,
            of_some_clips=True,
        ),
        Metric(
            name="moved_truth_distance",
            level="clip",
            label="revisit distance, if moved",
            better="lower",
            precision=3,
            least=0,
            of_some_clips=True,
        ),
        Metric(name="revisit_frechet", level="set", better="lower"),
        Metric(name="revisit_kernel_distance", level="set", better="lower", precision=3),
    )
    Settings = PlaceSettings

    def weights(self, settings: PlaceSettings) -> Mapping[str, WeightFile]:
        """Return by path where Inception's file comes from, if it is to be downloaded."""
        path = settings.inception_weights
        return {path: WeightFile(path=path, url=INCEPTION_URL)} if settings.fetch else {}

    def open(self, settings: PlaceSettings, device: device) -> Scorer:
        """Load the networks."""
        from geomem.errors import InputError
        from geomem.metrics.image_networks import load_image_features
        from geomem.metrics.networks import available_perceptual, load_perceptual

        weights = Path(settings.inception_weights)
        try:
            return PlaceScorer(
                load_perceptual(available_perceptual(), device=device),
                load_image_features(weights if weights.is_file() else None, device=device),
                settings,
            )
        except (ModuleNotFoundError, FileNotFoundError) as error:
            raise InputError(f"{error} (pip install -e '.[scores]')") from None


FAMILIES.add(Places())
