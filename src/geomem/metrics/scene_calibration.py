"""The record that turns what a teacher makes of frames into a probability.

A module of settings: it loads no network.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, ValidationError, model_validator

from geomem.errors import InputError
from geomem.networks.vggt.config import VGGTConfig
from geomem.registry.strict import Positive, Share, Strict

if TYPE_CHECKING:
    from geomem.metrics.calibration import Logistic


class SceneSettings(Strict):
    """How frames are looked at; a calibration holds for the same alone."""

    frames: int = Field(
        default=8, ge=3, description="the last given one, and others spread over the rest"
    )
    tolerance: float = Field(
        default=0.1, gt=0, lt=1, description="relative difference in depth of what agrees"
    )
    prior_weight: float = Field(
        default=0.05,
        gt=0,
        description="difference in colour that a scale of depth twice off its prior is worth",
    )


class CalibratedTeacher(Strict):
    """Whose features are weighed."""

    name: str
    sha256: str = Field(min_length=64, max_length=64)
    architecture: VGGTConfig
    precision: str


class FeatureWeight(Strict):
    """A feature's standardisation, and its weight after that."""

    mean: float
    deviation: float = Field(gt=0)
    weight: float


class ReliabilityBin(Strict):
    """Frames of like probability: its mean, the mean of their labels, and how many they are."""

    predicted: Share
    observed: Share
    count: Positive


class MixtureScore(Strict):
    """Mean probability and mean label of frames of one kind of sets, and how many they are."""

    predicted: Share
    observed: Share
    count: Positive


class SceneCalibration(Strict):
    """A calibration and what it is worth on held-out scenes.

    Attributes:
        teacher: Whose features are weighed.
        settings: How frames were looked at.
        scale_prior: Units of the cameras per unit of the teacher: median over the fitted clips.
        bias: Of the logistic model.
        features: Its weights by feature, all of `scene_features.FEATURES`.
        fit_clips: How many clips it was fitted on.
        test_clips: How many, of other scenes, it was tested on.
        bins: Reliability diagram of the tested frames, in bins of equal mass.
        error: Expected calibration error over those bins.
        error_interval: Of 95 % of the draws of as many tested clips, with replacement.
        brier: Mean squared difference of probability and label, tested.
        kinds: Tested frames by kind of set.
        spliced: Mean probability of clips, by the number of frames of another scene, from 0.
        provenance: How it was made.
    """

    teacher: CalibratedTeacher
    settings: SceneSettings
    scale_prior: float = Field(gt=0)
    bias: float
    features: dict[str, FeatureWeight]
    fit_clips: Positive
    test_clips: Positive
    bins: list[ReliabilityBin] = Field(min_length=2)
    error: Share
    error_interval: tuple[Share, Share]
    brier: Share
    kinds: dict[str, MixtureScore]
    spliced: list[Share]
    provenance: dict[str, Any]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.spliced) != self.settings.frames:
            raise ValueError(
                f"{len(self.spliced)} numbers of spliced frames of {self.settings.frames} frames"
            )
        return self

    def logistic(self, names: tuple[str, ...]) -> Logistic:
        """Return the model over features of these names, in this order.

        Raises:
            ValueError: If the record's features are others.
        """
        import numpy as np

        from geomem.metrics.calibration import Logistic

        if other := sorted(set(self.features) ^ set(names)):
            raise ValueError(f"its features are other ones than are computed: {other}")
        rows = [self.features[name] for name in names]
        return Logistic(
            mean=np.array([row.mean for row in rows]),
            deviation=np.array([row.deviation for row in rows]),
            weights=np.array([row.weight for row in rows]),
            bias=self.bias,
        )


def read_calibration(path: Path) -> SceneCalibration:
    """Read a calibration.

    Raises:
        InputError: If it is missing, damaged or of another form; says how to make it.
    """
    try:
        return SceneCalibration.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; {remedy(path)}") from None
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise InputError(f"{path}: {where}: {fault['msg']}; {remedy(path)}") from None
    except ValueError as error:  # no JSON, or no text
        raise InputError(f"{path} is damaged ({error}); {remedy(path)}") from None


def remedy(path: Path) -> str:
    """Return which command makes a calibration."""
    return (
        f"make {path} again: `snakemake results/SCALE/calibration.json` at the scale of its "
        "teacher (docs/metrics.md)"
    )
