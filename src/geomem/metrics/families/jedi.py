"""JEDi (Luo et al. 2024): a kernel distance between sets of videos on V-JEPA features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from geomem.metrics.families.sets import SetScorer, set_score
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

FOLDER, ADDRESS = "data/weights/vjepa", "https://dl.fbaipublicfiles.com/jepa/vith16"
TERMS = "V-JEPA is under CC BY-NC 4.0: not for commercial use"


class JediSettings(Strict):
    """Where V-JEPA's weights lie, and which frames it sees."""

    encoder: WeightFile = WeightFile(
        path=f"{FOLDER}/vith16.pth.tar", url=f"{ADDRESS}/vith16.pth.tar", terms=TERMS
    )
    probe: WeightFile = WeightFile(
        path=f"{FOLDER}/ssv2-probe.pth.tar", url=f"{ADDRESS}/ssv2-probe.pth.tar", terms=TERMS
    )
    stride: Positive = Field(default=1, description="every n-th frame is seen")
    fetch: bool = Field(
        default=False, exclude=True, description="weights are downloaded by the workflow"
    )


class JediScorer(SetScorer):
    """Features of clips, and the distances between their sets."""

    def __init__(self, network: VideoFeatures, stride: int) -> None:
        self.network, self.stride = network, stride
        self.networks = {"jedi": network.details}

    def sets(self, real: np.ndarray, generated: np.ndarray) -> dict[str, Any]:
        """Return both distances, None of one clip; the biased one has no interval."""
        from geomem.metrics.distances import jedi, jedi_u

        if len(real) < 2:
            return {"jedi": None, "jedi_u": None}
        return {
            "jedi": {"value": jedi(real, generated), "clips": len(real)},
            "jedi_u": set_score(real, generated, jedi_u),
        }


class Jedi(MetricFamily):
    """The family of JEDi as released, and without its bias."""

    name = "jedi"
    summary = "JEDi on V-JEPA features, as released and without bias; needs V-JEPA's weights"
    metrics = (
        Metric(name="jedi", level="set", of_videos=True, label="JEDi", better="lower", precision=3),
        Metric(
            name="jedi_u",
            level="set",
            of_videos=True,
            label="JEDi, unbiased",
            better="lower",
            precision=3,
        ),
    )
    Settings = JediSettings

    def weights(self, settings: JediSettings) -> Mapping[str, WeightFile]:
        """Return by path where the files come from, if they are to be downloaded."""
        files = (settings.encoder, settings.probe) if settings.fetch else ()
        return {file.path: file for file in files if file.url}

    def left_out(self, settings: JediSettings) -> dict[str, str]:
        """Return why there is no distance, the same for both."""
        paths = (settings.encoder.path, settings.probe.path)
        missing = ", ".join(f"no {path}" for path in paths if not Path(path).is_file())
        return {metric.name: missing for metric in self.metrics} if missing else {}

    def open(self, settings: JediSettings, device: device) -> Scorer:
        """Load the network.

        Raises:
            InputError: If a file is missing, or not the one that the settings name.
        """
        from geomem.errors import InputError
        from geomem.metrics.video_networks import VJepaFeatures

        if missing := self.left_out(settings):
            raise InputError(
                f"jedi: {missing['jedi']}; bring V-JEPA's files, or set `fetch: true` below "
                "`scores.families.jedi`"
            )
        files = (settings.encoder, settings.probe)
        try:
            for file in files:
                file.checked()
            encoder, probe = (Path(file.path) for file in files)
            return JediScorer(VJepaFeatures(encoder, probe, device=device), settings.stride)
        except ValueError as error:
            raise InputError(f"jedi: {error}") from None


FAMILIES.add(Jedi())
