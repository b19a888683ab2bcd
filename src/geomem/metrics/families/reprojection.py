"""Whether generated frames are one rigid scene: reprojection error after bundle adjustment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import Field

from geomem.metrics.registry import (
    FAMILIES,
    ClipScores,
    ClipVideos,
    Metric,
    MetricFamily,
    Scorer,
    WeightFile,
)
from geomem.registry.strict import Positive, Strict

if TYPE_CHECKING:
    from torch import Tensor, device

    from geomem.metrics.droid import DroidInstallation
    from geomem.networks.vggt.model import VGGT

# Depth as it would be where a clip's cameras do not move: a metre a unit of the teacher.
SCALE_PRIOR, PRIOR_WEIGHT = 1.0, 0.01
# Of its authors, as their README names it; on Google's servers, which tell no checksum.
DROID_URL = (
    "https://drive.usercontent.google.com/download?id=1PpqVt1H4maBa_GbPJp4NwxRsd9jk-elh"
    "&export=download&confirm=t"
)
METRICS = (
    Metric(
        name="reprojection_error",
        level="clip",
        label="reproj. error",
        unit="cells",
        better="lower",
        precision=3,
        least=0,
    ),
    Metric(
        name="held_reprojection_error",
        level="clip",
        label="reproj. error, cameras held",
        unit="cells",
        better="lower",
        precision=3,
        least=0,
        # of other places as of noise: as far as patches are looked for
        sanity="truth first",
    ),
    Metric(
        name="consistency_3d",
        level="clip",
        label="3D consistency",
        better="higher",
        least=0,
        most=1,
        # 0 of any error beyond WorldScore's bound
        sanity="truth first",
    ),
    Metric(
        name="camera_control",
        level="clip",
        label="camera control",
        better="higher",
        least=0,
        most=1,
        sanity="truth first",  # 0 where consistency is
    ),
    Metric(
        name="reprojection_failures",
        level="clip",
        label="not solved",
        better="lower",
        least=0,
        most=1,
        sanity="none",  # truth and its shuffled frames can both be solved, noise as well
    ),
)
DROID = (
    Metric(
        name="droid_error",
        level="clip",
        label="DROID error",
        unit="cells",
        better="lower",
        precision=3,
        least=0,
    ),
    *(
        Metric(
            name=f"droid_{end}",
            level="clip",
            label=f"DROID error, {word}",
            unit="cells",
            better="neither",
            precision=3,
            least=0,
        )
        for end, word in (("low", "least"), ("high", "largest"))
    ),
    Metric(
        name="droid_failures",
        level="clip",
        label="DROID not solved",
        better="lower",
        least=0,
        most=1,
        sanity="none",  # likewise
    ),
)


class TeacherStart(Strict):
    """The frozen VGGT whose depth bundle adjustment starts from; its sizes are the small one's."""

    weights: str = "weights/vggt_tiny/model.safetensors"
    architecture: dict[str, Any] | None = Field(
        default={
            **{"image_size": 32, "patch_size": 4, "embed_dim": 96, "depth": 4, "num_heads": 4},
            **{"patch_embed_depth": 2, "patch_embed_heads": 4, "dpt_features": 32},
            **{"dpt_channels": [16, 32, 48, 48], "dpt_layers": [0, 1, 2, 3]},
            **{"camera_trunk_depth": 1, "camera_heads": 4, "layer_scale": 1.0},
        },
        description="its sizes; null: VGGT-1B",
    )


class DroidSettings(Strict):
    """An installed DROID-SLAM."""

    python: str = Field(description="interpreter of its environment")
    repository: str = Field(description="folder of its source")
    weights: str = Field(description="its droid.pth")
    fetch: bool = Field(
        default=False, exclude=True, description="the workflow downloads `weights` from its authors"
    )
    repeats: Positive = Field(default=5, description="runs of a clip; it is not deterministic")
    timeout: float = Field(default=600.0, gt=0, description="seconds of a run")


class ReprojectionSettings(Strict):
    """Which frames and cells are followed."""

    frames: int = Field(default=12, ge=3, description="of a clip at most, spread over it")
    grid: int = Field(default=12, ge=4, description="cells along either side that are followed")
    reach: Positive = Field(
        default=2, description="compared frames on either side; and one farther one, if covisible"
    )
    teacher: TeacherStart = TeacherStart()
    droid: DroidSettings | None = Field(
        default=None, description="scores by DROID-SLAM beside; none: left out"
    )


class ReprojectionScorer(Scorer):
    """Bundle adjustment of a clip, with the truth's own error beside it."""

    def __init__(
        self, teacher: VGGT, settings: ReprojectionSettings, droid: DroidInstallation | str
    ) -> None:
        """Keep what it works with.

        Args:
            teacher: Whose depth is the start.
            settings: Of the family.
            droid: An installation of DROID-SLAM, or why there is none.
        """
        self.teacher, self.settings, self.droid = teacher, settings, droid
        self.networks = {
            "reprojection_error": {"start": settings.teacher.weights},
            "droid_error": {"left out": droid} if isinstance(droid, str) else vars(droid),
        }

    def clip(self, videos: ClipVideos) -> ClipScores:
        """Score one clip."""
        values: dict[str, float | None] = {}
        for prefix, frames in (("", videos.generated), ("truth_", videos.truth)):
            found = self.scores(frames, videos.cameras)
            values |= {prefix + metric.name: found.get(metric.name) for metric in METRICS}
        return ClipScores(values=values | self._by_droid(videos))

    def scores(self, frames: Tensor, cameras: Tensor) -> dict[str, float | None]:
        """Return the scores of frames (T, 3, H, W) of given cameras (T, 16).

        What cannot be solved is a failure and has no other score.
        """
        from geomem.metrics.camera_control import camera_errors, consistency_score, control_score
        from geomem.metrics.families.matches import spread
        from geomem.metrics.reprojection import reprojection, started

        chosen = [t for (t,) in spread([(t,) for t in range(len(frames))], self.settings.frames)]
        frames, cameras = frames[chosen], cameras[chosen]
        start = started(
            frames,
            cameras,
            self._depth(frames, cameras),
            grid=self.settings.grid,
            reach=self.settings.reach,
        )
        free, held = (reprojection(start, poses=poses) for poses in (True, False))
        values: dict[str, float | None] = {"reprojection_failures": float(free is None)}
        if held is not None:
            values["held_reprojection_error"] = held.error
        if free is not None:
            values["reprojection_error"] = free.error
            consistency = consistency_score(free.error)
            values["consistency_3d"] = consistency
            given = cameras[:, 4:].unflatten(1, (3, 4))
            # cameras of what is no scene are no cameras, and would be where they started
            known = consistency > 0
            control = control_score(*camera_errors(free.poses, given)) if known else 0.0
            values["camera_control"] = control
        return values

    def _depth(self, frames: Tensor, cameras: Tensor) -> Tensor:
        """Return the teacher's depth (T, S, S) in the unit of the given cameras."""
        import torch

        from geomem.geometry.scale import solve_scale
        from geomem.memory.reconstruction import predicted_poses, teacher_images

        with torch.no_grad():
            output = self.teacher(teacher_images(frames[None], self.teacher))
        scale = solve_scale(
            predicted_poses(output.pose_enc[-1])[0],
            cameras[:, 4:].unflatten(1, (3, 4)),
            prior=SCALE_PRIOR,
            prior_weight=PRIOR_WEIGHT,
        )
        return output.depth[0] * scale

    def _by_droid(self, videos: ClipVideos) -> dict[str, float | None]:
        """Return what DROID-SLAM says of the generated clip, no values where it is left out."""
        from geomem.metrics.droid import droid_errors

        chosen = self.settings.droid
        if isinstance(self.droid, str) or chosen is None:
            return {metric.name: None for metric in DROID}
        found = droid_errors(
            videos.generated,
            videos.cameras[0, :4],
            self.droid,
            repeats=chosen.repeats,
            timeout=chosen.timeout,
        )
        return found.values()


class ReprojectionErrors(MetricFamily):
    """The family of 3D consistency."""

    name = "reprojection"
    summary = "what bundle adjustment cannot explain by one rigid scene, and the cameras it finds"
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
        *DROID,
    )
    Settings = ReprojectionSettings

    def weights(self, settings: ReprojectionSettings) -> Mapping[str, WeightFile]:
        """Return by path where DROID-SLAM's weights come from, if they are to be downloaded."""
        chosen = settings.droid
        if chosen is None or not chosen.fetch:
            return {}
        return {chosen.weights: WeightFile(path=chosen.weights, url=DROID_URL)}

    def open(self, settings: ReprojectionSettings, device: device) -> Scorer:
        """Load the teacher, and look for DROID-SLAM."""
        from pathlib import Path

        from geomem.errors import InputError
        from geomem.metrics.droid import DroidInstallation
        from geomem.networks.vggt.config import VGGT_1B, VGGTConfig
        from geomem.networks.vggt.weights import load_vggt

        start, droid = settings.teacher, settings.droid
        sizes = start.architecture
        fixed: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in (sizes or {}).items()
        }
        try:
            config = VGGTConfig(**fixed) if sizes is not None else VGGT_1B
            teacher = load_vggt(Path(start.weights), config, device=device).requires_grad_(False)
        except (TypeError, ValueError) as error:
            raise InputError(f"scores.families.reprojection.teacher: {error}") from None
        if droid is None:
            return ReprojectionScorer(teacher, settings, "not asked for (droid)")
        found = DroidInstallation(**droid.model_dump(include={"python", "repository", "weights"}))
        return ReprojectionScorer(teacher, settings, found.missing() or found)


FAMILIES.add(ReprojectionErrors())
