"""Run protocols: which clips, in which batches, kept part by part so that a stopped job resumes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from geomem.diffusion.guidance import history_guidance
from geomem.diffusion.plans import plan_rollout
from geomem.diffusion.schedule import CosineSchedule
from geomem.formats import (
    ClipStore,
    InputError,
    digest,
    load_array,
    load_module,
    read_checkpoint,
    save_array,
    sha256_file,
)
from geomem.formats.teachers import load_teacher, read_basis
from geomem.geometry.cameras import check_cameras
from geomem.models.control import MemoryControl
from geomem.models.implicit import ImplicitControl, ImplicitMemory
from geomem.models.uvit import UViT3DPose
from geomem.rollouts.floors import fill_floor
from geomem.rollouts.generate import Clips, MemoryReader, generate


@dataclass(frozen=True, kw_only=True)
class LoadedVariant:
    """A variant ready to generate; `key` is the digest of all it was loaded from.

    A floor has no backbone. All its models are on `device`, where it generates.
    """

    device: torch.device
    backbone: UViT3DPose | None
    control: MemoryControl | None
    memory: MemoryReader | None
    key: str


def load_variant(
    checkpoint: Path | None,
    base: Path | None,
    settings: dict[str, Any],
    *,
    weights: Path | None,
    basis: Path | None,
    teacher: Any,
    device: torch.device,
) -> LoadedVariant:
    """Load the backbone, and with memory the branch, the teacher and the basis, onto a device."""
    records = [read_checkpoint(folder) for folder in (checkpoint, base) if folder]
    backbone, control, implicit, memory = None, None, None, None
    if not settings["floor"]:
        if checkpoint is None or base is None:
            raise InputError("a variant with a model needs --checkpoint and --base")
        backbone = load_module(UViT3DPose, base, "backbone").eval().to(device)
        if settings["memory"] and "implicit" in settings["memory"]:
            control = load_module(ImplicitControl, checkpoint, "control").eval().to(device)
            implicit = load_module(ImplicitMemory, checkpoint, "memory").eval().to(device)
        elif settings["memory"]:
            control = load_module(MemoryControl, checkpoint, "control").eval().to(device)
    if settings["memory"]:
        if weights is None or basis is None:
            raise InputError("a variant with memory needs --weights and --basis")
        records += [{"teacher": sha256_file(weights), "basis": sha256_file(basis)}]
        memory = MemoryReader(
            teacher=load_teacher(
                weights,
                teacher.architecture,
                sha256=teacher.sha256,
                precision=settings["memory"]["features"]["precision"],
            ).to(device),
            basis=read_basis(basis).to(device),
            settings=settings["memory"],
            implicit=implicit,
        )
    return LoadedVariant(
        device=device,
        backbone=backbone,
        control=control,
        memory=memory,
        key=digest(records),
    )


def run_protocol(
    variant: LoadedVariant,
    clips: Path,
    settings: dict[str, Any],
    *,
    batch: int,
    parts: Path,
    progress: Callable[..., Any],
) -> tuple[np.ndarray, list[list[float | None]]]:
    """Generate every clip of a split.

    Args:
        variant: The loaded variant.
        clips: Directory of the split.
        settings: `Config.rollout_settings`.
        batch: Clips generated together.
        parts: Folder where finished batches are kept until all are done.
        progress: Wraps the iteration over a batch's windows.

    Returns:
        Frames uint8 (N, T, S, S, 3) and per clip and frame the memory's coverage (None where the
        frame was given or there is no memory).
    """
    store = ClipStore(clips)
    videos, coverage = [], []
    for start in range(0, len(store), batch):
        rows = range(start, min(start + batch, len(store)))
        key = digest([variant.key, settings, [store.clips[row].clip_id for row in rows]])
        frames_path = parts / f"part-{start:05d}-{key}-rgb.npy"
        coverage_path = parts / f"part-{start:05d}-{key}-coverage.npy"
        if not (frames_path.is_file() and coverage_path.is_file()):
            made = _run_batch(variant, store, rows, settings, progress)
            frames = rearrange((made.video + 1) * 127.5, "b t c h w -> b t h w c")
            save_array(frames_path, frames.round().clamp(0, 255).byte().cpu().numpy())
            save_array(coverage_path, made.coverage.cpu().numpy())
        videos.append(load_array(frames_path))
        coverage.append(load_array(coverage_path))
    shares = np.concatenate(coverage)
    shown = [[None if np.isnan(x) else round(float(x), 4) for x in row] for row in shares]
    return np.concatenate(videos), shown


def _run_batch(
    variant: LoadedVariant,
    store: ClipStore,
    rows: range,
    settings: dict[str, Any],
    progress: Callable[..., Any],
) -> Clips:
    rollouts, length = settings["rollouts"], settings["frames"]
    frames = list(range(length))
    rgb = torch.from_numpy(np.stack([store.rgb(row, frames) for row in rows]))
    cameras = torch.from_numpy(np.stack([store.cameras(row, frames) for row in rows]))
    try:
        check_cameras(cameras)
    except ValueError as error:
        raise InputError(f"{store.directory}: {error}; make the clips again") from None
    truth = variant.memory is not None and variant.memory.settings["geometry"] == "truth"
    depth = (
        torch.from_numpy(np.stack([store.depth(row, frames) for row in rows])) if truth else None
    )
    rgb, cameras = rgb.to(variant.device), cameras.to(variant.device)
    depth = None if depth is None else depth.to(variant.device)
    video = rearrange(rgb.float() / 127.5 - 1, "b t h w c -> b t c h w").contiguous()
    # What is to be generated must not be readable, by the memory or anyone
    video[:, rollouts["context"] :] = torch.nan
    clips = Clips(
        ids=[store.clips[row].clip_id for row in rows], video=video, cameras=cameras, depth=depth
    )
    with torch.no_grad():
        if variant.backbone is None:
            fill_floor(clips, settings["floor"], context=rollouts["context"], memory=variant.memory)
        else:
            _generate(variant, variant.backbone, clips, settings, progress)
    return clips


def _generate(
    variant: LoadedVariant,
    backbone: UViT3DPose,
    clips: Clips,
    settings: dict[str, Any],
    progress: Callable[..., Any],
) -> None:
    rollouts = settings["rollouts"]
    plan = plan_rollout(
        settings["frames"],
        window=settings["window"],
        keyframe_density=settings["keyframe_density"],
        context=rollouts["context"],
    )
    generate(
        clips,
        plan,
        backbone=backbone,
        control=variant.control,
        memory=variant.memory,
        schedule=CosineSchedule(shift=32 / settings["split"]["resolution"]),
        keyframe_guidance=history_guidance(**rollouts["keyframes"]),
        interpolation_guidance=history_guidance(**rollouts["interpolation"]),
        steps=rollouts["sampling_steps"],
        precision=rollouts["precision"],
        seed=rollouts["seed"],
        progress=progress,
    )
