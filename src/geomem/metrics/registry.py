"""What a metric is, and the registry from which configuration, scores, tables and figures read.

A family is a set of metrics that are computed together, by one network or none; its scores are one
file a run and protocol, so that a family that is added or mended is computed on stored videos and
nothing else is made again.
Legend: C clips, T frames, S samples of a clip, D feature width, H, W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from geomem.registry.core import Registry
from geomem.registry.fields import Named
from geomem.registry.strict import Strict

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, device

Level = Literal["frame", "clip", "set"]
PSNR_CAP = 100.0  # dB; the PSNR of a perfect copy, which would be infinite and spoil every mean


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number about generated videos.

    Attributes:
        name: By which configuration and score files know it; a network may give it another in
            tables (`NetworkName`).
        level: What it is known of: every frame (and so every clip), every clip, or a set of clips.
        label: Heading of its column, and with the unit the name of its axis; a metric of a network
            is headed by the one that was really used.
        unit: Of the value, or empty.
        better: Which way is better; `neither` for what describes.
        precision: Decimals in a table.
        cap: Its value of a perfect copy, where that is shown as a word instead of a number.
        least: Smallest value that it can have, where there is one; intervals end there.
        most: Largest value.
        of_videos: Whether it compares sets of videos, so that its network has to see time: those
            that fail the content-bias test are told apart in tables.
        of_some_clips: Whether it means something in some clips alone, so that its mean is of those.
        sanity: What has to come before what by it for tables to show it: `geomem.metrics.sanity`.
    """

    name: str
    level: Level
    label: str = ""
    unit: str = ""
    better: Literal["higher", "lower", "neither"]
    precision: int = 2
    cap: float | None = None
    least: float | None = None
    most: float | None = None
    of_videos: bool = False
    of_some_clips: bool = False
    sanity: Literal["ordered", "truth first", "none"] = "ordered"


@dataclass(frozen=True, kw_only=True)
class NetworkName:
    """How tables and figures name a metric by the network that was really used.

    Attributes:
        key: Of the column in a CSV file.
        heading: Of the column in the paper, in lines.
        axis: Of a figure.
        stands_for: What it stands in for, in words; empty for the real one.
    """

    key: str
    heading: tuple[str, ...]
    axis: str
    stands_for: str = ""


class WeightFile(Strict):
    """A file of published weights."""

    path: str = Field(min_length=1, description="where it lies, or is downloaded to")
    sha256: str = Field(
        default="",
        pattern="^([0-9a-f]{8,64})?$",
        description="of the file, or its first digits; compared before use, and recorded whole",
    )
    url: str = Field(default="", pattern="^(https://.*)?$", description="from where it comes")
    terms: str = Field(
        default="",
        exclude=True,
        description="what has to be accepted before it is downloaded; empty: nothing",
    )

    def checked(self) -> str:
        """Return the SHA-256 of the file; ValueError if it is not the one that is named."""
        from geomem.networks.published import file_sha256

        found = file_sha256(Path(self.path))
        if not found.startswith(self.sha256):
            raise ValueError(
                f"{self.path} fails its checksum (SHA-256 {found[:12]}..., expected "
                f"{self.sha256[:12]}...); bring the file again, or name its own sha256"
            )
        return found


@dataclass(frozen=True, kw_only=True)
class ClipVideos:
    """One clip on the device that scores it.

    Attributes:
        generated: (T, 3, H, W) in [0, 1]; the context is the truth.
        truth: (T, 3, H, W) in [0, 1].
        cameras: (T, 16).
        context: Number of given frames, the first ones.
        revisits: Pairs (P, 2) of a first visit and a later frame of the same pose, the later one
            generated; P may be 0.
        coverage: Share of each generated frame that the memory covered; None where there was none.
        partial: Numbers of the generated frames that show in part what given frames show (see
            `geomem.settings.evaluation.Partial`), rising; empty without true depth.
        depth: True planar depth (T, H, W) in world units, infinite where there is no surface; None
            where it is not known.
    """

    generated: Tensor
    truth: Tensor
    cameras: Tensor
    context: int
    revisits: Tensor
    coverage: list[float | None]
    partial: list[int]
    depth: Tensor | None


@dataclass(frozen=True, kw_only=True)
class ClipScores:
    """What a family says of a clip.

    Attributes:
        values: By metric; None, or no entry, where it means nothing in this clip.
        curves: By metric of level `frame`, a value (or NaN) for every generated frame.
        features: Truth's and generated clip's features (2, S, D), for metrics of sets.
    """

    values: Mapping[str, float | None] = field(default_factory=dict)
    curves: Mapping[str, Tensor] = field(default_factory=dict)
    features: np.ndarray | None = None


class Scorer(ABC):
    """A family at work, with its networks loaded.

    Attributes:
        names: How its metrics are named by the networks that are used.
        networks: Which those are, as the record keeps them.
        left_out: By metric, why it is not computed here.
    """

    names: Mapping[str, NetworkName] = {}
    networks: Mapping[str, Mapping[str, str]] = {}
    left_out: Mapping[str, str] = {}

    @abstractmethod
    def clip(self, videos: ClipVideos) -> ClipScores:
        """Score one clip."""

    def sets(self, real: np.ndarray, generated: np.ndarray) -> dict[str, Any]:
        """Return by metric of level `set` an entry of the score file, None where it has none.

        Args:
            real: Features (C, S, D) of the truth.
            generated: The same of the generated clips.
        """
        return {}


class MetricFamily(ABC):
    """Metrics that are computed together.

    Attributes:
        name: Of the family and its score files.
        summary: One line on what it measures.
        version: Raised when its values change; then its scores are computed again, and no others.
        metrics: What it gives.
        Settings: Model of what a scale says of it (`scores.families.<name>`).
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    version: ClassVar[int] = 1
    metrics: ClassVar[tuple[Metric, ...]]
    Settings: ClassVar[type[Strict]] = Strict

    def weights(self, settings: Any) -> Mapping[str, WeightFile]:
        """Return by path the files that the workflow downloads before a job of the family."""
        return {}

    def calibrated_by_scale(self, settings: Any) -> bool:
        """Return whether its jobs read the calibration that the scale makes of its teacher; then
        `Settings` has its path as `calibration`, and that of the teacher's `weights`."""
        return False

    def left_out(self, settings: Any) -> Mapping[str, str]:
        """Return by metric why it cannot be computed on this machine."""
        return {}

    @abstractmethod
    def open(self, settings: Any, device: device) -> Scorer:
        """Load what the family needs onto a device.

        Args:
            settings: Of the model `Settings`.
            device: Where clips and networks are.

        Raises:
            InputError: If a network that is asked for is not installed.
        """


FAMILIES: Registry[MetricFamily] = Registry("metric family", "geomem.metrics.families")


def metrics() -> Mapping[str, tuple[Metric, MetricFamily]]:
    """Return every metric with its family by name."""
    return _metrics_of(tuple(FAMILIES))


@cache  # asked thousands of times whenever a job reads the configuration
def _metrics_of(families: tuple[MetricFamily, ...]) -> dict[str, tuple[Metric, MetricFamily]]:
    return {metric.name: (metric, family) for family in families for metric in family.metrics}


def metric_of(name: str) -> Metric:
    """Return a metric; KeyError if there is none of that name."""
    return metrics()[name][0]


def family_of(name: str) -> str:
    """Return the name of the family that gives a metric; KeyError if there is none."""
    return metrics()[name][1].name


MetricName = Annotated[str, Named("metric", lambda: list(metrics()))]
