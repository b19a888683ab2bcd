"""Sizes of MaskFlow's networks, and how it unmasks."""

from typing import Annotated, Literal

from pydantic import Field

from geomem.methods.dfot.settings import UViTSettings
from geomem.registry.strict import Positive, Share, Strict


class VQSettings(Strict):
    """The tokenizer (fields of `VQTokenizer`), and how it learns its codes."""

    width: Positive = Field(description="channels of the finest level, doubled at each further one")
    levels: Positive = Field(
        default=2, description="halvings: a token stands for 2^levels x 2^levels pixels"
    )
    blocks: Positive = Field(default=1, description="residual blocks of a level, each way")
    code_width: Positive
    codes: Annotated[int, Field(ge=2)]
    decay: Share = Field(default=0.99, description="of the moving averages that the codes are")
    dead_share: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="a code is put elsewhere where it is used less than this share of equal use",
    )
    commitment: float = Field(
        default=0.25, ge=0, description="weight of the features' distance to their codes"
    )


class MaskFlowSettings(UViTSettings):
    """The masked video model: a U-ViT whose pixels are tokens, and its sampler."""

    patch_size: Positive = 1
    embedding: Positive = Field(description="width of an embedded token")
    sampler: Literal["full", "timestep_free"] = Field(
        default="full",
        description="the discrete flow, which tells the network its time, or the most confident "
        "tokens first at a constant time",
    )
    steps: Positive = Field(description="network evaluations for every window")
    constant_time: Share = Field(
        default=0.5,
        description="time that the network is told of frames in the making, if no other",
    )
