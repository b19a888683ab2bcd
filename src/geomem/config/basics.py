"""What all configuration models share."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Metric = Literal[
    "psnr",
    "psnr_frame_mean",
    "ssim",
    "perceptual",
    "late_psnr",
    "late_distance",
    "closing_psnr",
    "closing_distance",
    "self_psnr",
    "self_distance",
    "contrast",
    "truth_psnr",
    "truth_distance",
    "forgetting",
    "coverage",
    "frechet",
    "frechet_infinite",
    "kernel_distance",
]
# Known of a set of clips alone, not of each.
SET_METRICS = ("frechet", "frechet_infinite", "kernel_distance")


class Strict(BaseModel):
    """Unknown keys are errors; values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
