"""Whether the frames of a clip show one scene, as a calibrated probability."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
from geomem.metrics.scene_calibration import (
    SceneCalibration,
    SceneSettings,
    read_calibration,
    remedy,
)

if TYPE_CHECKING:
    from torch import Tensor, device

    from geomem.networks.vggt.model import VGGT


class VggtScoreSettings(SceneSettings):
    """Which teacher judges, and how it looks at frames."""

    calibration: str = Field(
        default="",
        description="tracked record of `python -m geomem.scores calibrate`; empty: the scale makes "
        "its own of its teacher (`scores.calibration`)",
    )
    sha256: str = Field(default="", description="of that record; compared where given")
    weights: str = Field(
        default="", description="the teacher's; empty: model.safetensors beside the calibration"
    )

    @property
    def scene(self) -> SceneSettings:
        """How frames are looked at."""
        return SceneSettings(**{name: getattr(self, name) for name in SceneSettings.model_fields})


class VggtScorer(Scorer):
    """The teacher with its calibration."""

    def __init__(self, teacher: VGGT, calibration: SceneCalibration, sha256: str) -> None:
        """Bind them.

        Args:
            teacher: On the device that scores.
            calibration: Of this teacher.
            sha256: Of its record.

        Raises:
            ValueError: If it was made for other features than are computed here.
        """
        from geomem.metrics.scene_features import FEATURES
        from geomem.networks.vggt.config import VGGT_1B

        self.teacher, self.calibration = teacher, calibration
        self.logistic = calibration.logistic(FEATURES)
        name, small = calibration.teacher.name, calibration.teacher.architecture != VGGT_1B
        self.names = {
            metric.name: NetworkName(
                key=f"{name}_{metric.name}",
                heading=(metric.label, *([f"({name})"] if small else [])),
                axis=f"{metric.label} ({name})" if small else metric.label,
                stands_for="VGGT-1B" if small else "",
            )
            for metric in VggtScore.metrics
        }
        self.networks = {
            "vggt_score": {
                "teacher": name,
                "weights": calibration.teacher.sha256,
                "calibration": sha256,
                "calibration_error": f"{calibration.error:.4f}",
            }
        }

    def clip(self, videos: ClipVideos) -> ClipScores:
        """Score one clip; no value of one that has too few frames."""
        numbers = judged_frames(videos.context, len(videos.truth), self.calibration.settings.frames)
        if numbers is None:
            return ClipScores(values={metric.name: None for metric in VggtScore.metrics})
        cameras, truth = videos.cameras[numbers], videos.truth[numbers]
        generated = videos.generated[numbers]
        generated[0] = truth[0]
        return ClipScores(
            values={
                "vggt_score": self.score(generated, cameras),
                "truth_vggt_score": self.score(truth, cameras),
            }
        )

    def score(self, images: Tensor, cameras: Tensor) -> float:
        """Return the mean probability of all frames (K, 3, S, S) but the first, which is given."""
        return float(self.probabilities(images, cameras).mean())

    def probabilities(self, images: Tensor, cameras: Tensor) -> Tensor:
        """Return the probability (K - 1,) of each frame but the first, float64."""
        import torch

        from geomem.metrics.scene_features import scene_features

        chosen = self.calibration.settings
        found = scene_features(
            self.teacher,
            images,
            cameras,
            scale_prior=self.calibration.scale_prior,
            prior_weight=chosen.prior_weight,
            tolerance=chosen.tolerance,
        )
        return torch.from_numpy(self.logistic.probability(found.cpu().numpy()))


def judged_frames(context: int, length: int, count: int) -> list[int] | None:
    """Return the last given frame and `count` - 1 generated ones, spread to the last of a clip.

    Args:
        context: Number of given frames, at least 1.
        length: Of the clip.
        count: Of frames.

    Returns:
        Their numbers, rising; None where the clip has not as many frames.
    """
    first, steps = context - 1, count - 1
    if length - context < steps:
        return None
    return [first + round(step * (length - 1 - first) / steps) for step in range(count)]


class VggtScore(MetricFamily):
    """The family of the VGGT score."""

    name = "vggt_score"
    summary = "calibrated probability, by a frozen VGGT, that frames show the given frame's scene"
    metrics = (
        Metric(
            name="vggt_score",
            level="clip",
            label="VGGT score",
            better="higher",
            precision=3,
            least=0,
            most=1,
        ),
        Metric(
            name="truth_vggt_score",
            level="clip",
            label="truth's VGGT score",
            better="neither",
            precision=3,
            least=0,
            most=1,
        ),
    )
    Settings = VggtScoreSettings

    def calibrated_by_scale(self, settings: VggtScoreSettings) -> bool:
        """Return whether no calibration is named."""
        return not settings.calibration

    def open(self, settings: VggtScoreSettings, device: device) -> Scorer:
        """Load the teacher and its calibration.

        Raises:
            InputError: If one is missing, damaged or not of the other, or the calibration was made
                for other settings.
        """
        from geomem.errors import InputError
        from geomem.networks.published import file_sha256
        from geomem.networks.vggt.weights import load_vggt

        path = Path(settings.calibration)
        if not settings.calibration:
            raise InputError(
                "scores.families.vggt_score.calibration is not set, and no --calibration is given; "
                "run the workflow, which makes the scale's own"
            )
        calibration = read_calibration(path)
        sha256 = file_sha256(path)
        if settings.sha256 and sha256 != settings.sha256:
            raise InputError(
                f"{path} is not the record that scores.families.vggt_score.sha256 names "
                f"({sha256[:12]}..., expected {settings.sha256[:12]}...)"
            )
        if calibration.settings != settings.scene:
            raise InputError(
                f"{path} was made for {calibration.settings}, not {settings.scene}; {remedy(path)}"
            )
        weights = (
            Path(settings.weights) if settings.weights else path.with_name("model.safetensors")
        )
        known = calibration.teacher
        if not weights.is_file():
            raise InputError(f"{weights} is missing, the teacher {known.name} of {path}")
        if file_sha256(weights) != known.sha256:
            raise InputError(f"{path} is not of the teacher in {weights}; {remedy(path)}")
        try:
            teacher = load_vggt(weights, known.architecture).requires_grad_(False).to(device)
            teacher.autocast = known.precision == "bf16"
            return VggtScorer(teacher, calibration, sha256)
        except ValueError as error:
            raise InputError(f"{path}: {error}; {remedy(path)}") from None


FAMILIES.add(VggtScore())
