"""The analysis of what features know: its windows, probes, table and figures."""

from typing import Annotated, Literal

from pydantic import Field

from geomem.registry.strict import Positive, Strict


class Analysis(Strict):
    """How features are probed and decoded at a scale."""

    fit_split: str = Field(description="clips that probes are fitted on, one window of each")
    test_split: str = Field(description="held-out clips that they are measured on")
    fit_windows: Annotated[int, Field(ge=4)] = Field(
        description="fitting windows; the last quarter chooses the ridge"
    )
    frames: Annotated[int, Field(ge=2)] = Field(description="frames of a window")
    stride: Positive = Field(description="frames from one to the next")
    noise_time: float = Field(
        default=0.1, ge=0, le=1, description="time of the noise on what the video model sees"
    )
    level: int = Field(
        default=2, ge=0, description="backbone's state that is decoded and stands in the table"
    )
    pck_pixels: tuple[Positive, ...] = Field(
        min_length=1, description="radii of a right match, pixels of the frames; the first tunes"
    )
    strengths: tuple[float, ...] = Field(
        default=(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        min_length=1,
        description="ridges to choose from, in units of the features' mean variance",
    )
    cloud_points: Positive = Field(default=2048, description="points of a cloud, at most")
    shown_clip: int = Field(default=0, ge=0, description="test clip whose clouds are drawn")
    batch: Positive = Field(description="windows per forward pass")


class AnalysisRow(Strict):
    """A variant in the table of the analysis."""

    variant: str
    label: str


class AnalysisTable(Strict):
    """Which video models the table of the analysis shows."""

    rows: tuple[AnalysisRow, ...] = ()


class AnalysisFigure(Strict):
    """Probes by layer, or decoded point clouds (first seed)."""

    kind: Literal["probes", "clouds"]
    rows: tuple[AnalysisRow, ...] = Field(min_length=1)

    @property
    def shown_protocols(self) -> tuple[str, ...]:
        """None: nothing is generated for it."""
        return ()
