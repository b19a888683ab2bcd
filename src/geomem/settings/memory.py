"""The teacher, what is kept of its features, and the memory built from them."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from geomem.formats.teacher_sizes import teacher_config
from geomem.memory.registry import KINDS
from geomem.registry.fields import ByName
from geomem.registry.strict import Positive, Share, Strict


class TeacherTraining(Strict):
    """How the small VGGT is trained on the embedded worlds."""

    steps: Positive
    batch_frames: Positive = Field(description="frames per step, over all its windows")
    max_frames: Positive = Field(description="frames per window are drawn from 1 to this")
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(ge=0)
    cooldown_steps: int = Field(ge=0, description="last steps, in which the rate falls to zero")
    matching_weight: float = Field(
        default=0.0, ge=0, description="weight of the attention's loss on true correspondences"
    )
    seed: int = 0


class Teacher(Strict):
    """The frozen 3D reconstruction model."""

    name: str = Field(description="names the cache's folder")
    architecture: dict[str, Any] = Field(description="fields of VGGTConfig, or {} for VGGT-1B")
    weights: str = Field(description="safetensors file; `{scale}` is replaced")
    sha256: str = Field(default="", description="checked before use where given")
    download: str = Field(default="", description="hub repository that has model.safetensors")
    revision: str = Field(default="", description="commit of that repository; pinned")
    terms: str = Field(
        default="", exclude=True, description="what has to be accepted before the download"
    )
    training: TeacherTraining | None = None
    train_split: str = "train"
    validation_split: str = "validation"

    @field_validator("architecture")
    @classmethod
    def _is_an_architecture(cls, given: dict[str, Any]) -> dict[str, Any]:
        teacher_config(given)
        return given

    @property
    def depth(self) -> int:
        """Its layers: pairs of frame and global attention."""
        return teacher_config(self.architecture).depth

    @property
    def width(self) -> int:
        """Width of its tokens: those of frame and global attention."""
        return 2 * teacher_config(self.architecture).embed_dim

    @property
    def grid(self) -> int:
        """Cells along a side of its tokens."""
        sizes = teacher_config(self.architecture)
        return sizes.image_size // sizes.patch_size

    @model_validator(mode="after")
    def _downloads_are_pinned(self) -> Self:
        if self.download and not (self.revision and self.sha256):
            raise ValueError(f"{self.download} is downloaded: name `revision` and `sha256`")
        return self


class ImageTeacher(Strict):
    """The frozen 2D model of the REPA baseline; runs inside training, nothing is cached."""

    weights: str = Field(
        default="",
        description="official DINOv2 file with registers (.pth or .safetensors); empty: the image "
        "encoder inside the 3D teacher stands in for DINOv2, with that one's sizes",
    )
    sha256: str = Field(default="", description="checked before use where given")
    url: str = Field(
        default="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/"
        "dinov2_vitl14_reg4_pretrain.pth",
        exclude=True,
        description="where `weights` is downloaded from, if it is",
    )
    fetch: bool = Field(
        default=False, exclude=True, description="the workflow downloads `weights` from `url`"
    )
    embed_dim: Positive = 1024
    depth: Positive = 24
    num_heads: Positive = 16
    image_size: Positive = Field(default=518, description="pixels; images are resized to this side")
    patch_size: Positive = Field(default=14, description="pixels")


class Features(Strict):
    """What the cache keeps of the teacher."""

    basis: str = Field(
        default="",
        description="file with the PCA that a tracked branch was trained with; empty: it is fitted",
    )
    basis_plan: str = Field(description="plan whose first windows the PCA is fitted on")
    layer: int = Field(ge=0, description="backbone layer whose tokens are kept")
    channels: Positive = Field(description="PCA components kept of each token")
    more_layers: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(),
        exclude_if=lambda layers: not layers,
        description="further layers that alignment compares beside `layer`, with as many "
        "components each, of their own basis; memories know `layer` alone",
    )
    grid: Positive | None = Field(
        default=None,
        exclude_if=lambda grid: grid is None,
        description="side of the grid that tokens are resampled to, as the student's; none: the "
        "teacher's",
    )
    stored: Literal["int8", "bf16"] = Field(
        default="int8",
        exclude_if=lambda stored: stored == "int8",
        description="numbers of the cache: int8 with a step per window and channel, or bf16",
    )
    basis_windows: Positive = Field(description="windows the PCA is fitted on")
    shards: Positive = 1
    batch: Positive = Field(description="windows per forward pass")
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="of the teacher's backbone; its heads compute in fp32"
    )
    online: bool = Field(
        default=False,
        description="alignment targets are computed while training instead of cached: slower, but "
        "a plan of any length needs no storage",
    )

    @field_validator("more_layers")
    @classmethod
    def _layers_differ(cls, layers: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if len({info.data.get("layer"), *layers}) <= len(layers):
            raise ValueError(f"{list(layers)} repeat a layer, or name `layer` again")
        return layers

    @property
    def layers(self) -> tuple[int, ...]:
        """All layers that alignment compares, `layer` first."""
        return (self.layer, *self.more_layers)

    @property
    def aligned_channels(self) -> int:
        """Channels of a cell that alignment compares: those of all layers."""
        return len(self.layers) * self.channels

    @property
    def kept(self) -> dict[str, Any]:
        """What a basis is fitted for, as its file says."""
        more = {"more_layers": list(self.more_layers)} if self.more_layers else {}
        grid = {} if self.grid is None else {"grid": self.grid}
        return {"layer": self.layer, "channels": self.channels, **more, **grid}


class Geometry(Strict):
    """How the teacher's depth comes to metres."""

    scale_from: Literal["cameras", "colours"] = Field(
        description="what tells the teacher's scale: its own cameras against the given ones (least "
        "squares), or the colours of frames warped by the given cameras"
    )
    scale_prior_weight: float = Field(
        gt=0,
        description="strength of the scale prior: square metres of baseline (cameras), or the "
        "colour difference that a factor of 2 is worth (colours)",
    )


class Overlap(Strict):
    """Between which depths the overlap of views is measured."""

    near: float = Field(default=0.5, gt=0, description="metres; where a view begins")
    far: float = Field(default=8.0, gt=0, description="metres; where it ends")

    @model_validator(mode="after")
    def _views_have_depth(self) -> Self:
        if self.far <= self.near:
            raise ValueError(f"far ({self.far}) must exceed near ({self.near})")
        return self


class Corruption(Strict):
    """Errors of memory frames while training, as generated frames and estimated depth have them."""

    share: Share = Field(description="of the memory frames")
    blur: float = Field(ge=0, description="largest sigma, pixels")
    noise: float = Field(ge=0, description="largest sigma, in units of [0, 1]")
    colour: float = Field(ge=0, description="sigma of a shift by channel, in units of [0, 1]")
    depth: float = Field(ge=0, description="sigma of the logarithm of a factor on the depth")


class Memory(Strict):
    """What all memories of a scale share, and the settings of each kind."""

    dropout: Share = Field(description="share of training clips that see no memory")
    geometry: Geometry
    overlap: Overlap = Overlap()
    corruption: Corruption | None = Field(
        default=None, description="errors of the memory frames while training; none if left out"
    )
    kinds: Annotated[dict[str, Any], ByName(KINDS, lambda kind: kind.Settings)] = Field(
        description="by kind; one all of whose settings have defaults need not be named"
    )
