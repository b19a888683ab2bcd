"""The diffusion model, its training, and the variants."""

from typing import Literal, Self

from pydantic import Field, model_validator

from geomem.config.basics import SET_METRICS, Metric, Positive, Share, Strict


class Model(Strict):
    """The U-ViT 3D (fields of UViT3DPose)."""

    channels: tuple[Positive, ...]
    emb_channels: Positive
    block_types: tuple[Literal["ResBlock", "TransformerBlock"], ...]
    block_dropouts: tuple[Share, ...]
    num_updown_blocks: tuple[Positive, ...]
    num_mid_blocks: Positive
    num_heads: Positive
    patch_size: Positive = 2
    camera_dropout: Share = 0.1

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        levels = len(self.channels)
        if (len(self.block_types), len(self.block_dropouts)) != (levels, levels):
            raise ValueError(f"block_types and block_dropouts need {levels} entries each")
        if len(self.num_updown_blocks) != levels - 1:
            raise ValueError(f"num_updown_blocks needs {levels - 1} entries")
        return self


# Keys of a recipe that do not change what is learned: no job is made again when they change.
EXECUTION = frozenset({"checkpoint_steps", "states", "workers", "parallel", "deterministic"})


class Optimization(Strict):
    """One training recipe."""

    steps: Positive
    batch: Positive = Field(description="windows per optimizer step, over all processes")
    accumulation: Positive = Field(
        default=1, description="micro-batches that a process's windows of a step are split into"
    )
    learning_rate: float = Field(gt=0)
    zero_init_rate: float = Field(
        default=1.0, gt=0, description="factor on the learning rate of zero-initialised projections"
    )
    warmup_steps: int = Field(ge=0)
    decay: Literal["constant", "cosine"] = "constant"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(ge=0)
    clip_norm: float = Field(gt=0)
    ema_decay: Share
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpoint_steps: Positive = Field(description="optimizer steps between resumable states")
    states: Positive = Field(default=2, description="newest resumable states that are kept")
    workers: int = Field(default=0, ge=0, description="loader processes")
    parallel: Literal["ddp", "fsdp2"] = Field(
        default="ddp",
        description="several processes: each holds the whole model, or a share of it",
    )
    deterministic: bool = Field(
        default=False, description="the same bits in every run on the same hardware; slower"
    )

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.batch % self.accumulation:
            raise ValueError(f"accumulation {self.accumulation} does not divide batch {self.batch}")
        return self


class Alignment(Strict):
    """3D-REPA."""

    objective: Literal["angular+scale", "angular", "mse", "repa", "trd", "as_released"] = (
        "angular+scale"
    )
    teacher: Literal["3d", "2d"] = Field(
        default="3d", description="VGGT, or the frozen image model of `image_teacher`"
    )
    level: int = Field(description="index into the backbone's states; the down levels come first")
    frames: Positive | None = Field(
        default=None, description="frames of a window that are aligned, spread evenly; all if none"
    )
    weight: float = Field(default=0.5, ge=0)
    scale_weight: float = Field(default=0.05, ge=0)


class VariantMemory(Strict):
    """What a variant remembers."""

    frames: int = Field(
        ge=0, description="memory frames K; 0: always empty, the control of equal compute"
    )
    kind: Literal["explicit", "implicit"] = Field(
        default="explicit",
        description="a map of points and features, or learned queries that compress the features",
    )
    geometry: Literal["teacher", "truth"] = "teacher"
    selection: Literal["time", "overlap"] = Field(
        default="time",
        description="frames spread over the history, or those that see most of the target views",
    )
    guidance: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="overrides `rollouts.memory_guidance`; training does not read it",
    )

    @model_validator(mode="after")
    def _geometry_is_explicit(self) -> Self:
        if self.kind == "implicit" and self.geometry == "truth":
            raise ValueError("an implicit memory has no points: leave out `geometry`")
        if self.kind == "implicit" and not self.frames:
            raise ValueError("an implicit memory needs `frames` of at least 1")
        return self


class Criterion(Strict):
    """A metric that decides between candidates."""

    metric: Metric
    better: Literal["higher", "lower"]

    @model_validator(mode="after")
    def _is_known_of_every_clip(self) -> Self:
        if self.metric in SET_METRICS:
            raise ValueError(f"{self.metric} is of a set: candidates are compared clip by clip")
        return self


class BestOf(Strict):
    """A rule that picks one of several trained variants; all seeds together."""

    among: tuple[str, ...] = Field(min_length=1, description="candidates, simplest first")
    protocol: str = Field(description="protocol whose scores decide; on held-out clips")
    criteria: tuple[Criterion, ...] = Field(
        min_length=1,
        description="the first leaves the best candidate and those whose paired difference to it "
        "has a 95 % interval over 0; each further one chooses among these, then their order",
    )


class Variant(Strict):
    """One trained model, the best of several (`best_of`), or a floor that needs no model."""

    initial: str | None = Field(default=None, description="variant it starts from; none = scratch")
    plan: str | None = Field(default=None, description="clip plan it is trained on")
    recipe: str | None = Field(default=None, description="optimization it is trained with")
    noise: Literal["per_frame", "per_clip"] = "per_frame"
    alignment: Alignment | None = None
    memory: VariantMemory | None = None
    best_of: BestOf | None = Field(default=None, description="not trained but picked by this rule")
    floor: Literal["repeat", "mean_colour", "splat"] | None = Field(
        default=None,
        description="no model at all: the last given frame repeated, the mean colour of the given "
        "frames, or the memory's own rendering with holes in that colour",
    )

    @property
    def trained(self) -> bool:
        """Whether it has a training of its own."""
        return self.best_of is None and self.floor is None

    @model_validator(mode="after")
    def _is_trained_picked_or_a_floor(self) -> Self:
        if self.best_of and self.model_fields_set != {"best_of"}:
            raise ValueError("a variant with `best_of` is not trained: leave out all other keys")
        if self.floor:
            allowed = {"floor", "memory"} if self.floor == "splat" else {"floor"}
            if self.model_fields_set != allowed:
                raise ValueError(f"`floor: {self.floor}` goes with {sorted(allowed)} alone")
            if self.memory and (self.memory.kind == "implicit" or not self.memory.frames):
                raise ValueError("`floor: splat` shows an explicit memory of at least one frame")
        if self.trained and not (self.plan and self.recipe):
            raise ValueError("a trained variant needs `plan` and `recipe`")
        return self

    @model_validator(mode="after")
    def _memory_needs_a_base(self) -> Self:
        if self.memory and self.trained and not self.initial:
            raise ValueError("a variant with memory needs `initial`, the base of its branch")
        return self
