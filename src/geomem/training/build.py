"""Build the modules of a variant from its settings."""

from pathlib import Path
from typing import Any

from geomem.formats import load_module, read_checkpoint
from geomem.models.control import MemoryControl
from geomem.models.projectors import AlignmentProjector, RepaProjector
from geomem.models.uvit import UViT3DPose
from geomem.training.data import WindowDataset
from geomem.training.network import VideoModel


def build_model(
    settings: dict[str, Any], dataset: WindowDataset, *, initial: Path | None
) -> VideoModel:
    """Return the untrained model of a variant.

    Args:
        settings: `Config.training_settings`.
        dataset: Tells the channels of memory maps and teacher features.
        initial: Checkpoint the backbone starts from, or None for random weights.
    """
    if initial is None:
        backbone = UViT3DPose(**settings["model"])
    else:
        read_checkpoint(initial)
        backbone = load_module(UViT3DPose, initial, "backbone")
    control = None
    if settings["variant"]["memory"]:
        channels = dataset[0]["memory"].shape[1]
        control = MemoryControl.from_base(backbone, channels)
    return VideoModel(backbone, control=control, projector=_projector(settings, dataset))


def _projector(
    settings: dict[str, Any], dataset: WindowDataset
) -> AlignmentProjector | RepaProjector | None:
    alignment = settings["variant"]["alignment"]
    if not alignment:
        return None
    widths = settings["model"]["channels"]
    # down levels, the middle, then the up levels in reverse order of width
    states = [*widths, *reversed(widths[:-1])]
    kind = RepaProjector if alignment["objective"] == "repa" else AlignmentProjector
    return kind(states[alignment["level"]], dataset[0]["tokens"].shape[1])
