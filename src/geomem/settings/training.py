"""Recipes of training, and the variants."""

from typing import Literal, Self

from pydantic import Field, model_validator

from geomem.memory.registry import KINDS, KindName
from geomem.methods.registry import METHODS, MethodName
from geomem.metrics.registry import MetricName, metric_of
from geomem.registry.strict import Positive, Share, Strict

ADAM_EPS = 1e-8


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
    eps: float = Field(
        default=ADAM_EPS,
        gt=0,
        exclude_if=lambda eps: eps == ADAM_EPS,
        description="added to the root of Adam's second moment; gradients of what lies behind an "
        "end that starts at zero are below the default, which keeps it where it is",
    )
    weight_decay: float = Field(ge=0)
    clip_norm: float = Field(gt=0)
    ema_decay: Share
    precision: Literal["fp32", "bf16"] = "fp32"
    history: Share = Field(
        default=0.0,
        description="share of windows in which a random part of the frames is clean and all others "
        "have the same noise, as when a sampler continues a history",
    )
    # What follows changes nothing about what is learned.
    checkpoint_steps: Positive = Field(
        exclude=True, description="optimizer steps between resumable states"
    )
    states: Positive = Field(
        default=2, exclude=True, description="newest resumable states that are kept"
    )
    workers: int = Field(default=0, ge=0, exclude=True, description="loader processes")
    parallel: Literal["ddp", "fsdp2"] = Field(
        default="ddp",
        exclude=True,
        description="several processes: each holds the whole model, or a share of it",
    )
    passes: Positive = Field(
        default=1, exclude=True, description="how often a plan's windows may be gone through"
    )
    compile: bool = Field(
        default=False,
        exclude=True,
        description="compile the method's blocks on a GPU: a minute at the start for faster steps; "
        "without effect on a CPU, where it brings nothing",
    )
    checkpointing: bool = Field(
        default=False,
        exclude=True,
        description="keep the inputs of a network's blocks alone and compute the blocks again in "
        "the backward pass: a third more work for a fraction of the memory",
    )
    deterministic: bool = Field(
        default=False,
        exclude=True,
        description="the same bits in every run on the same hardware; slower",
    )

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.batch % self.accumulation:
            raise ValueError(f"accumulation {self.accumulation} does not divide batch {self.batch}")
        return self


Objective = Literal["angular+scale", "angular", "mse", "repa", "trd", "as_released"]


class Alignment(Strict):
    """3D-REPA."""

    objective: Objective = "angular+scale"
    teacher: Literal["3d", "2d"] = Field(
        default="3d", description="VGGT, or the frozen image model of `image_teacher`"
    )
    level: int = Field(
        ge=0,
        description="index into the method's hidden states; of DFoT the down levels come first",
    )
    frames: Positive | None = Field(
        default=None, description="frames of a window that are aligned, spread evenly; all if none"
    )
    depth: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="how deep in the 3D teacher, as a share of its layers (1: the last), the raw "
        "tokens are taken from that are compared, computed while training; none: compressed ones, "
        "of the layers that `features` keeps",
    )
    teacher_sees: Literal["window", "aligned"] = Field(
        default="window",
        description="whether the 3D teacher sees a whole window or the aligned frames alone",
    )
    weight: float = Field(default=0.5, ge=0)
    scale_weight: float = Field(default=0.05, ge=0)

    @model_validator(mode="after")
    def _raw_tokens_are_the_3d_teacher_s(self) -> Self:
        if self.depth is not None and self.teacher == "2d":
            raise ValueError("`depth` is of the 3D teacher: leave it out with `teacher: 2d`")
        if self.depth is None and self.teacher_sees == "aligned":
            raise ValueError("cached features are of whole windows: name `depth` beside them")
        return self


class VariantMemory(Strict):
    """What a variant remembers."""

    frames: int | tuple[int, int] = Field(
        description="memory frames K; 0: always empty, the control of equal compute; two numbers: "
        "trained with any number between them, drawn for every window"
    )
    kind: KindName = "explicit"
    geometry: Literal["teacher", "truth"] = "teacher"
    selection: Literal["time", "overlap", "worldmem"] = Field(
        default="time",
        description="frames spread over the history, those that see most of the target views, or "
        "as WorldMem: drawn among similar views in training, retrieved by views and time in "
        "generation, in balls of radius `memory.overlap.far`",
    )
    backbone: Literal["frozen", "trained"] = Field(
        default="frozen",
        description="whether the branch is trained on a frozen backbone, or both together",
    )
    gate: bool = Field(
        default=False,
        description="a copy gate, which pulls each pixel towards the memory's colours",
    )
    new_branch: bool = Field(
        default=False,
        description="train a new branch, where the weights that it starts from have one already",
    )
    dropout: Share | None = Field(
        default=None, description="overrides `memory.dropout`; generation does not read it"
    )
    guidance: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="overrides `rollouts.memory_guidance`; training does not read it",
    )

    @property
    def fewest(self) -> int:
        """The smallest number of memory frames."""
        return self.frames if isinstance(self.frames, int) else self.frames[0]

    @property
    def most(self) -> int:
        """The largest number of memory frames."""
        return self.frames if isinstance(self.frames, int) else self.frames[1]

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        kind = KINDS[self.kind]
        if self.fewest < 0 or (not isinstance(self.frames, int) and self.fewest < 1):
            raise ValueError(f"frames: {self.frames}: need 0 or more, or two numbers from 1 on")
        if self.fewest > self.most:
            raise ValueError(f"frames: {self.frames}: the smaller number comes first")
        if "geometry" not in kind.needs and self.geometry == "truth":
            raise ValueError(f"a memory of kind {self.kind} has no points: leave out `geometry`")
        if self.gate and not {"rgb", "coverage"} <= kind.channels(0).keys():
            raise ValueError(f"a memory of kind {self.kind} shows no colours: leave out `gate`")
        if self.selection == "worldmem" and kind.form != "bank":
            raise ValueError(f"selection worldmem is not for a memory of kind {self.kind}")
        if kind.shows_frames and self.guidance is not None:
            raise ValueError(f"a memory of kind {self.kind} is history: leave out `guidance`")
        if not self.most and not kind.can_be_empty:
            raise ValueError(f"a memory of kind {self.kind} needs `frames` of at least 1")
        return self


class Criterion(Strict):
    """A metric that decides between candidates; its registry says which way is better."""

    metric: MetricName

    @model_validator(mode="after")
    def _is_known_of_every_clip(self) -> Self:
        metric = metric_of(self.metric)
        if metric.level == "set":
            raise ValueError(f"{self.metric} is of a set: candidates are compared clip by clip")
        if metric.better == "neither":
            raise ValueError(f"{self.metric} describes, it has no better")
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


class Checkpoint(Strict):
    """Weights that are there already: tracked here, or published."""

    weights: str = Field(
        description="file; `{scale}` is replaced. A method says which files it reads: of DFoT "
        ".safetensors with its own names, .ckpt as published"
    )
    sha256: str = Field(
        default="",
        pattern="^([0-9a-f]{64})?$",
        description="of the file, checked before use; a download may go by its commit alone",
    )
    window: Positive = Field(description="frames that the model sees at once")
    repository: str = Field(default="", description="hub repository that has it; downloads only")
    file: str = Field(default="", description="path in that repository")
    revision: str = Field(default="", description="commit of that repository; pinned")

    @model_validator(mode="after")
    def _is_pinned(self) -> Self:
        if self.repository and not (self.file and self.revision):
            raise ValueError(f"{self.repository} is downloaded: name `file` and `revision`")
        if not (self.repository or self.sha256):
            raise ValueError(f"{self.weights} is not downloaded: name its `sha256`")
        return self


Noise = Literal["per_frame", "per_clip", "prefix", "dropout"]


class Variant(Strict):
    """One row of the study: a model that is trained, the best of several (`best_of`), weights that
    are there already (`checkpoint`), another variant's weights with another memory
    (`checkpoint_of`), or a method without a network."""

    method: MethodName = "dfot"
    initial: str | None = Field(default=None, description="variant it starts from; none = scratch")
    plan: str | None = Field(default=None, description="clip plan it is trained on")
    recipe: str | None = Field(default=None, description="optimization it is trained with")
    noise: Noise = Field(
        default="per_frame",
        description="noise of a window's frames in training: a level each (diffusion forcing), one "
        "for all (full sequence), or one for those that do not follow a clean `prefix` (fixed "
        "context) or are left by a `dropout` of half of them (binary dropout)",
    )
    alignment: Alignment | None = None
    memory: VariantMemory | None = None
    best_of: BestOf | None = Field(default=None, description="not trained but picked by this rule")
    checkpoint: Checkpoint | None = Field(
        default=None, description="not trained: weights that are there already"
    )
    checkpoint_of: str | None = Field(
        default=None,
        description="not trained: generates with this variant's weights and its own `memory`",
    )

    @property
    def floor(self) -> bool:
        """Whether it has no network, and so neither weights nor seeds."""
        return not METHODS[self.method].trained

    @property
    def trained(self) -> bool:
        """Whether it has a training of its own."""
        return not (self.floor or self.best_of or self.checkpoint or self.checkpoint_of)

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        given, method = self.model_fields_set, METHODS[self.method]
        if self.best_of and given != {"best_of"}:
            raise ValueError("a variant with `best_of` is not trained: leave out all other keys")
        if self.checkpoint and not given <= {"checkpoint", "method"}:
            raise ValueError("a variant with `checkpoint` takes `method` beside it alone")
        if self.checkpoint_of and given != {"checkpoint_of", "memory"}:
            raise ValueError("a variant with `checkpoint_of` takes its `memory` beside it alone")
        if self.floor:
            allowed = {"method", "memory"} if method.needs_memory else {"method"}
            if given != allowed:
                raise ValueError(f"`method: {self.method}` goes with {sorted(allowed)} alone")
            if self.memory and not self.memory.most:
                raise ValueError(f"`method: {self.method}` shows a memory of at least one frame")
        elif method.needs_memory and not self.memory:
            raise ValueError(f"`method: {self.method}` needs a `memory`")
        if self.trained and not (self.plan and self.recipe):
            raise ValueError("a trained variant needs `plan` and `recipe`")
        return self

    @model_validator(mode="after")
    def _memory_can_be_read(self) -> Self:
        if self.memory is None:
            return self
        method, form = METHODS[self.method], KINDS[self.memory.kind].form
        if not self.checkpoint_of and form not in method.reads:
            raise ValueError(
                f"method {self.method} cannot read the {form} of memory {self.memory.kind}"
            )
        of_training = {"backbone", "gate", "new_branch", "dropout"} & self.memory.model_fields_set
        if not self.trained and of_training:
            raise ValueError(f"memory.{min(of_training)} is said where the branch is trained")
        if not self.trained and self.memory.fewest != self.memory.most:
            raise ValueError("memory.frames: a range is for training; name one number here")
        if self.trained and not self.initial:
            raise ValueError("a variant with memory needs `initial`, the base of its branch")
        return self
