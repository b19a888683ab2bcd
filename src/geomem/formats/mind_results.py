"""What a result file of the MIND benchmark says, and a table's rows of it.

Field names are the file's own; `geomem.formats.mind` reads it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

Count = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
MEASURES = ("mse", "psnr", "ssim", "lpips")
AGREEMENT = 1e-4  # of a mean with the list beside it, relative: sums of float32
MIRROR_TEST = "mirror_test"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Frames against others (`lcm`, `gsc`): values by frame, and their means.

    What was not asked for is None. PSNR, in dB, is infinite for equal frames.
    """

    length: Count | None = None
    mse: tuple[Finite, ...] | None = None
    psnr: tuple[float, ...] | None = None
    ssim: tuple[Finite, ...] | None = None
    lpips: tuple[Finite, ...] | None = None
    avg_mse: Finite | None = None
    avg_psnr: float | None = None
    avg_ssim: Finite | None = None
    avg_lpips: Finite | None = None

    def __post_init__(self) -> None:
        lengths = set[int]() if self.length is None else {self.length}
        for name in MEASURES:
            lengths |= _checked_mean(getattr(self, name), getattr(self, f"avg_{name}"), name)
        if len(lengths) > 1:
            raise ValueError(f"lists and length disagree: {sorted(lengths)} frames")

    @property
    def frames(self) -> int:
        """How many frames were compared."""
        lists = [values for name in MEASURES if (values := getattr(self, name)) is not None]
        return len(lists[0]) if lists else self.length or 0


@dataclass(frozen=True, kw_only=True)
class VisualQuality:
    """Scores of single frames, by frame and their means."""

    imaging: tuple[Finite, ...]
    avg_imaging: Finite
    aesthetic: tuple[Finite, ...]
    avg_aesthetic: Finite

    def __post_init__(self) -> None:
        _checked_mean(self.imaging, self.avg_imaging, "imaging")
        _checked_mean(self.aesthetic, self.avg_aesthetic, "aesthetic")


@dataclass(frozen=True, kw_only=True)
class DinoDistance:
    """Squared distance of DINOv3 features, by frame and the mean."""

    dino_mse: tuple[Finite, ...]
    avg_dino_mse: Finite

    def __post_init__(self) -> None:
        _checked_mean(self.dino_mse, self.avg_dino_mse, "dino_mse")


@dataclass(frozen=True, kw_only=True)
class PoseErrors:
    """Relative errors of estimated poses, a frame apart, of one kind of action."""

    count: Count
    rpe_trans_mean: Finite
    rpe_trans_median: Finite
    rpe_rot_mean_deg: Finite
    rpe_rot_median_deg: Finite


@dataclass(frozen=True, kw_only=True)
class MirrorResult:
    """What was found of a video of a mirror test; `error` says why there is nothing."""

    video_name: str
    error: str | None = None
    mark_time: Count | None = None
    sample_frames: Count | None = None
    gsc: Compared | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was found of a clip, or of the videos in a folder of a mirror test.

    Attributes:
        path: Name of its folder.
        perspective: Whose eyes it is seen by.
        test_type: The test.
        error: Why something is missing.
        mark_time: First generated frame.
        total_time: Frames of the truth.
        sample_frames: Frames of the video.
        lcm: Generated frames against true ones; None too where the video is too short.
        visual_quality: Scores of generated frames.
        dino: Feature distance to true frames.
        action: By `__overall__`, group (`translation`, `rotation`, `other`) and `act:<action>`.
        video_results: Of a mirror test.
    """

    path: str
    perspective: Literal["1st_data", "3rd_data"]
    test_type: Literal["mem_test", "action_space_test", "mirror_test"]
    error: str | None = None
    mark_time: Count | None = None
    total_time: Count | None = None
    sample_frames: Count | None = None
    lcm: Compared | None = None
    visual_quality: VisualQuality | None = None
    dino: DinoDistance | None = None
    action: dict[str, PoseErrors] = field(default_factory=dict)
    video_results: tuple[MirrorResult, ...] = ()

    def __post_init__(self) -> None:
        if self.error is not None:
            return
        if self.test_type == MIRROR_TEST and not self.video_results:
            raise ValueError("a mirror test without error has no video_results")
        if self.test_type != MIRROR_TEST and None in (self.mark_time, self.total_time):
            raise ValueError("a clip without error has no mark_time or no total_time")


@dataclass(frozen=True, kw_only=True)
class Results:
    """A result file; `video_max_time` is how many frames were looked at, None for all."""

    video_max_time: Count | None
    data: tuple[Result, ...]


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """A row of a table: a comparison of one video, with the means over its frames.

    `compared` is `lcm` (with the truth) or `gsc` (with its own mirrored return), `video` the file's
    name. Values are None where nothing was compared, and `error` may say why.
    """

    name: str
    test_type: str
    video: str
    compared: Literal["lcm", "gsc"]
    length: int
    mse: float | None
    psnr: float | None
    ssim: float | None
    lpips: float | None
    error: str | None


def _checked_mean(values: Sequence[float] | None, mean: float | None, name: str) -> set[int]:
    """Return the length of a list that may be there, after comparing its mean."""
    if values is None and mean is None:
        return set()
    if not values or mean is None:
        raise ValueError(f"{name} and avg_{name} do not come together")
    if not math.isclose(sum(values) / len(values), mean, rel_tol=AGREEMENT, abs_tol=1e-9):
        raise ValueError(f"avg_{name} {mean:g} is not the mean of {name}")
    return {len(values)}


def result_rows(results: Results) -> list[ScoreRow]:
    """Return a row for every clip and for every video of a mirror test, in the file's order."""
    rows = []
    for found in results.data:
        if found.test_type != MIRROR_TEST:
            rows.append(_row(found, "video.mp4", "lcm", found.lcm, found.error))
        rows += [
            _row(found, video.video_name, "gsc", video.gsc, video.error or found.error)
            for video in found.video_results
        ]
    return rows


def _row(
    found: Result,
    video: str,
    compared: Literal["lcm", "gsc"],
    values: Compared | None,
    error: str | None,
) -> ScoreRow:
    means: dict[str, Any] = {name: getattr(values, f"avg_{name}", None) for name in MEASURES}
    return ScoreRow(
        name=found.path,
        test_type=found.test_type,
        video=video,
        compared=compared,
        length=values.frames if values else 0,
        error=error,
        **means,
    )
