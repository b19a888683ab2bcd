"""What the cache of features is weighed by: settings of it, windows, and a small alignment."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from geomem.registry.strict import Positive, Strict


class CacheSetting(Strict):
    """What a cache may keep."""

    layers: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        min_length=1, description="layers of the teacher"
    )
    channels: Positive = Field(description="PCA components of each layer")
    grid: Positive | None = Field(
        default=None, description="side of the grid; none: the teacher's own"
    )
    stored: Literal["int8", "bf16"] = "int8"
    trained: bool = Field(default=False, description="whether a small alignment is run with it")

    @property
    def label(self) -> str:
        """What it is called in messages and tables."""
        shown = ", ".join(map(str, self.layers))
        layers = f"layer{'s' * (len(self.layers) > 1)} {shown}"
        grid = f", grid {self.grid}" if self.grid else ""
        return f"{layers}{grid}, {self.channels} channels, {self.stored}"


class CacheFidelity(Strict):
    """Settings of the cache that are weighed: bytes, cosine to raw features, effect on alignment.

    It is made when it is asked for by name alone, and nothing else depends on it.
    """

    fit_split: str = Field(default="train", description="clips that bases are fitted on")
    test_split: str = Field(default="validation", description="clips of other scenes")
    fit_windows: Positive = Field(description="windows of a basis, one of each clip")
    test_windows: Positive = Field(description="held-out windows, one of each clip")
    frames: Positive = Field(description="frames of a window")
    stride: Positive = Field(description="frames from one to the next")
    variant: str = Field(
        default="repa", description="aligned variant whose method and objective the runs have"
    )
    windows: Positive = Field(
        default=128, description="windows of the alignment runs, seen again and again"
    )
    steps: Positive = Field(default=64, description="of each alignment run, from random weights")
    batch: Positive = Field(default=4, description="windows a step")
    learning_rate: float = Field(default=1e-3, gt=0)
    seed: int = Field(default=0, ge=0)
    rows: tuple[CacheSetting, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _rows_differ(self) -> Self:
        labels = [row.label for row in self.rows]
        for row, label in zip(self.rows, labels, strict=True):
            if labels.count(label) > 1:
                raise ValueError(f"rows name {label} twice")
            if len(set(row.layers)) < len(row.layers):
                raise ValueError(f"rows: layers {list(row.layers)} repeat one")
        return self
