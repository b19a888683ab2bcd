"""Sizes of what WorldMem adds to the U-ViT; the U-ViT's own are those it starts from."""

from pydantic import Field

from geomem.registry.strict import Positive, Share, Strict


class WorldMemSettings(Strict):
    """The readers and the bank."""

    pose_channels: Positive = Field(
        default=64, description="hidden width of the embeddings of poses and times"
    )
    memory_level: Share = Field(
        default=0.02,
        description="noise time that the network is told of remembered frames; none is added",
    )
