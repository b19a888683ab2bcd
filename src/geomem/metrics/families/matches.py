"""Whether generated frames show one scene: matches of local features against the cameras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field

from geomem.metrics.bins import BINS, shown
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
    from torch import Tensor, device

    from geomem.metrics.matching import Matcher

P = TypeVar("P")
NETWORKS = {"xfeat": "XFeat"}
METRICS = (
    Metric(name="tsed", level="clip", label="TSED", better="higher", least=0, most=1),
    Metric(name="match_share", level="clip", label="match share", better="higher", least=0, most=1),
    Metric(
        name="depth_match_share",
        level="clip",
        label="depth match share",
        better="higher",
        least=0,
        most=1,
    ),
    Metric(
        name="revisit_match_share",
        level="clip",
        label="revisit match share",
        better="higher",
        least=0,
        most=1,
    ),
    Metric(
        name="match_error", level="clip", label="match error", unit="%", better="lower", least=0
    ),
    Metric(
        name="matched_pairs", level="clip", label="matched pairs", better="neither", least=0, most=1
    ),
    *(
        Metric(
            name=f"pair_match_share_{name}",
            level="clip",
            label=f"match share, {shown(*bounds)}",
            better="higher",
            least=0,
            most=1,
            of_some_clips=True,
            # of pairs that share little, what is right of shuffled frames is chance, as of noise
            sanity="truth first" if name == "few" else "ordered",
        )
        for name, bounds in BINS.items()
    ),
)


class MatchSettings(Strict):
    """Which pairs of frames are matched, and when a match is right."""

    side: int = Field(
        default=256,
        ge=64,
        multiple_of=32,
        description="pixels of the shorter side at which frames are shown to the matcher",
    )
    gap: Positive = Field(default=4, description="frames between the two of a pair")
    pairs: Positive = Field(
        default=8, description="of a clip at most, spread over it; as many revisits"
    )
    stride: Positive = Field(
        default=1, description="every n-th frame is looked at for pairs by their overlap"
    )
    threshold: float = Field(
        default=0.015,
        gt=0,
        lt=1,
        description="error below which a match is right, as a share of the image's shorter side",
    )


class MatchScorer(Scorer):
    """Matches between frames of a clip, with the truth's own beside them.

    The matcher was trained on photographs and knows neither the small teacher nor a memory made of
    it, so that it cannot flatter what was made with them.
    """

    def __init__(self, matcher: Matcher, settings: MatchSettings) -> None:
        self.matcher, self.settings = matcher, settings
        network = NETWORKS[matcher.label]
        self.names = {
            metric.name: NetworkName(
                key=f"{matcher.label}_{metric.name}",
                heading=(network, metric.label),
                axis=", ".join([f"{network} {metric.label}", *filter(None, [metric.unit])]),
            )
            for metric in Matches.metrics
        }
        self.networks = {"matches": matcher.details}

    def clip(self, videos: ClipVideos) -> ClipScores:
        """Score one clip."""
        values: dict[str, float | None] = {}
        covisible = self._covisible(videos)
        for prefix, frames in (("", videos.generated), ("truth_", videos.truth)):
            found = self._scores(frames, videos, covisible)
            values |= {prefix + metric.name: found.get(metric.name) for metric in METRICS}
        return ClipScores(values=values)

    def _scores(
        self, frames: Tensor, videos: ClipVideos, covisible: Mapping[str, list[tuple[int, int]]]
    ) -> dict[str, float | None]:
        """Return the scores of frames (T, 3, H, W); no entry where there is nothing to match."""
        from geomem.metrics.matching import match_shares

        gap, threshold = self.settings.gap, self.settings.threshold
        neighbours = [(t - gap, t) for t in range(max(videos.context, gap), len(frames))]
        pairs = spread(neighbours, self.settings.pairs)
        revisits = spread(videos.revisits.tolist(), self.settings.pairs)
        every = [*pairs, *revisits, *chain.from_iterable(covisible.values())]
        features = {
            t: self.matcher.features(frames[t]) for t in sorted({t for pair in every for t in pair})
        }
        values: dict[str, float | None] = {}
        if pairs:
            by_camera, by_depth = self._errors(features, pairs, videos)
            scores = match_shares(by_camera, threshold)
            values["tsed"], values["match_share"] = scores["tsed"], scores["share"]
            values["match_error"], values["matched_pairs"] = scores["error"], scores["pairs"]
            if by_depth:
                values["depth_match_share"] = match_shares(by_depth, threshold)["share"]
        if revisits:
            by_camera, _ = self._errors(features, revisits, videos)
            values["revisit_match_share"] = match_shares(by_camera, threshold)["share"]
        for name, chosen in covisible.items():
            if chosen:
                _, by_depth = self._errors(features, chosen, videos)
                values[f"pair_match_share_{name}"] = match_shares(by_depth, threshold)["share"]
        return values

    def _covisible(self, videos: ClipVideos) -> dict[str, list[tuple[int, int]]]:
        """Return pairs that see the same place, by bin of overlap; none without depth."""
        from geomem.metrics.covisibility import covisible_pairs

        if videos.depth is None:
            return {}
        bins = covisible_pairs(
            videos.depth,
            videos.cameras,
            context=videos.context,
            gap=self.settings.gap,
            stride=self.settings.stride,
        )
        return {
            name: [(p.earlier, p.later) for p in spread(pairs, self.settings.pairs)]
            for name, pairs in bins.items()
        }

    def _errors(
        self, features: dict[int, Any], pairs: Sequence[Sequence[int]], videos: ClipVideos
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the errors of each pair's matches by cameras and, where known, by depth."""
        from geomem.metrics.matching import aspect_of, camera_error, depth_error

        aspect = aspect_of(videos.truth)
        by_camera, by_depth = [], []
        for earlier, later in pairs:
            x, y = self.matcher.match(features[earlier], features[later])
            both = [earlier, later]
            by_camera.append(camera_error(x, y, videos.cameras[both], aspect))
            if videos.depth is not None:
                depth = videos.depth[both]
                by_depth.append(depth_error(x, y, videos.cameras[both], depth, aspect))
        return by_camera, by_depth


def spread(pairs: Sequence[P], count: int) -> list[P]:
    """Return up to `count` of the pairs, spread evenly, with the first and (of two) the last."""
    if len(pairs) <= count:
        return list(pairs)
    steps = max(count - 1, 1)
    return [pairs[i * (len(pairs) - 1) // steps] for i in range(count)]


class Matches(MetricFamily):
    """The family of matches between frames."""

    name = "matches"
    summary = "matches of local features that agree with the cameras, and with true depth"
    version = 2
    metrics = (
        *METRICS,
        *(
            replace(
                metric,
                name=f"truth_{metric.name}",
                label=f"truth's {metric.label}",
                better="neither",
            )
            for metric in METRICS
        ),
    )
    Settings = MatchSettings

    def open(self, settings: MatchSettings, device: device) -> Scorer:
        """Load the matcher."""
        from geomem.errors import InputError
        from geomem.metrics.matching import XFeatMatcher

        try:
            return MatchScorer(XFeatMatcher(settings.side, device=device), settings)
        except ModuleNotFoundError as error:
            raise InputError(f"{error} (pip install -e '.[matches]')") from None


FAMILIES.add(Matches())
