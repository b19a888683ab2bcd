"""Run protocols: which clips, in which batches, kept part by part so that a stopped job resumes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from geomem.canonical import digest
from geomem.diffusion.guidance import history_guidance
from geomem.diffusion.rollout_plans import plan_rollout
from geomem.diffusion.schedule import CosineSchedule
from geomem.errors import InputError
from geomem.formats import ClipStore, load_array, read_checkpoint, save_array, sha256_file
from geomem.formats.teachers import load_teacher, read_basis
from geomem.geometry.cameras import check_cameras
from geomem.memory.live import LiveMemory, Reconstructor
from geomem.methods.clips import Clips, Sampling, WindowSampling
from geomem.methods.registry import Generator, Weights
from geomem.settings.jobs import MemoryJob, RolloutJob, SamplingJob


@dataclass(frozen=True, kw_only=True)
class LoadedVariant:
    """A variant ready to generate on a device; `key` is the digest of all it was loaded from."""

    device: torch.device
    method: Generator
    memory: LiveMemory | None
    key: str


def load_variant(
    settings: RolloutJob,
    *,
    checkpoint: Path | None,
    base: Path | None,
    weights: Path | None,
    basis: Path | None,
    device: torch.device,
) -> LoadedVariant:
    """Load a method onto a device, and with a memory the teacher and the basis.

    Args:
        settings: Of the job.
        checkpoint: The variant's checkpoint; None for a floor.
        base: The checkpoint with its backbone; None for a floor.
        weights: Of the teacher; with a memory that needs it alone.
        basis: Of the teacher's features; with such a memory alone.
        device: Where everything computes.

    Raises:
        InputError: If a file is missing, damaged, or was not given.
    """
    records = [read_checkpoint(folder) for folder in (checkpoint, base) if folder]
    spec, found = settings.method.spec, None
    if spec.trained:
        if checkpoint is None or base is None:
            raise InputError("a variant with a model needs --checkpoint and --base")
        found = Weights(checkpoint=checkpoint, backbone=base)
    method = spec.load(
        settings.method.settings,
        found,
        memory=settings.memory.face if settings.memory else None,
        device=device,
    )
    if settings.teacher:
        if weights is None or basis is None:
            raise InputError("a variant with memory needs --weights and --basis")
        records += [{"teacher": sha256_file(weights), "basis": sha256_file(basis)}]
    return LoadedVariant(
        device=device,
        method=method,
        memory=_memory(settings, weights, basis, device),
        key=digest(records),
    )


def _memory(
    settings: RolloutJob, weights: Path | None, basis: Path | None, device: torch.device
) -> LiveMemory | None:
    if settings.memory is None:
        return None
    reconstructor = None
    if settings.teacher and weights and basis:
        reconstructor = load_reconstructor(settings, weights, basis, device)
    return live_memory(settings.memory, reconstructor)


def load_reconstructor(
    settings: RolloutJob, weights: Path, basis: Path, device: torch.device
) -> Reconstructor:
    """Return what tells a memory of finished frames, on a device.

    Args:
        settings: Of a job whose memory asks the teacher.
        weights: Of the teacher.
        basis: Of its features.
        device: Where it computes.

    Raises:
        InputError: If a file is missing or damaged.
    """
    assert settings.teacher is not None
    geometry = settings.geometry
    return Reconstructor(
        teacher=load_teacher(weights, **settings.teacher.model_dump()).to(device),
        basis=read_basis(basis).to(device),
        **(geometry.model_dump() if geometry else {}),
    )


def live_memory(memory: MemoryJob, reconstructor: Reconstructor | None) -> LiveMemory:
    """Return a variant's memory while it generates."""
    return LiveMemory(
        kind=memory.spec,
        settings=memory.settings,
        frames=memory.most,
        channels=memory.channels,
        selection=memory.selection,
        near=memory.overlap.near,
        far=memory.overlap.far,
        truth=memory.geometry == "truth",
        reconstructor=reconstructor,
    )


def run_protocol(
    variant: LoadedVariant,
    clips: Path,
    settings: RolloutJob,
    *,
    batch: int,
    parts: Path,
    progress: Callable[..., Any],
) -> tuple[np.ndarray, list[list[float | None]]]:
    """Generate every clip of a split.

    Args:
        variant: The loaded variant.
        clips: Directory of the split.
        settings: Of the job.
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
        ids = [store.clips[row].clip_id for row in rows]
        key = digest([variant.key, settings.recorded(), ids])
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
    settings: RolloutJob,
    progress: Callable[..., Any],
) -> Clips:
    frames = list(range(settings.frames))
    rgb = torch.from_numpy(np.stack([store.rgb(row, frames) for row in rows]))
    cameras = torch.from_numpy(np.stack([store.cameras(row, frames) for row in rows]))
    try:
        check_cameras(cameras)
    except ValueError as error:
        raise InputError(f"{store.directory}: {error}; make the clips again") from None
    depth = None
    if variant.memory is not None and variant.memory.truth:
        depth = torch.from_numpy(np.stack([store.depth(row, frames) for row in rows]))
        depth = depth.to(variant.device)
    actions = None
    if store.has_actions:
        codes = np.stack([store.actions(row, frames) for row in rows]).astype(np.int64)
        actions = torch.from_numpy(codes).to(variant.device)
    rgb, cameras = rgb.to(variant.device), cameras.to(variant.device)
    video = rearrange(rgb.float() / 127.5 - 1, "b t h w c -> b t c h w").contiguous()
    truth = video.clone() if settings.method.spec.sees_truth else None
    # What is to be generated must not be readable, by the memory or anyone
    video[:, settings.context :] = torch.nan
    clips = Clips(
        ids=[store.clips[row].clip_id for row in rows],
        video=video,
        cameras=cameras,
        memory=variant.memory,
        depth=depth,
        actions=actions,
        truth=truth,
        context=settings.context,
    )
    with torch.no_grad():
        variant.method.generate(clips, sampling_of(settings), progress=progress)
    return clips


def sampling_of(settings: RolloutJob) -> Sampling:
    """Return how clips are made."""
    if settings.sampling is None:
        return Sampling(context=settings.context)
    windows = window_sampling(
        settings.sampling,
        frames=settings.frames,
        context=settings.context,
        resolution=settings.clips.resolution,
    )
    return Sampling(context=settings.context, windows=windows)


def window_sampling(
    chosen: SamplingJob, *, frames: int, context: int, resolution: int
) -> WindowSampling:
    """Return how a network makes the frames of clips.

    Args:
        chosen: What the settings say.
        frames: Length of the clips.
        context: Given frames, the first ones.
        resolution: Side of the frames, pixels.

    Raises:
        ValueError: If no windows go over such clips.
    """
    return WindowSampling(
        plan=plan_rollout(
            frames,
            window=chosen.window,
            keyframe_density=chosen.keyframe_density,
            context=context,
            kept=chosen.kept,
        ),
        schedule=CosineSchedule(shift=32 / resolution),
        keyframes=history_guidance(**chosen.keyframes.model_dump()),
        interpolation=history_guidance(**chosen.interpolation.model_dump()),
        steps=chosen.steps,
        level_power=chosen.level_power,
        seed=chosen.seed,
        precision=chosen.precision,
        memory_guidance=1.0 if chosen.memory_guidance is None else chosen.memory_guidance,
    )
