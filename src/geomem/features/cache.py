"""Fit the basis of the teacher's features and cache them for the windows of a plan.

Shape suffixes: W windows, K frames of a set, C channels, h, w patch grid, S pixels.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geomem.errors import InputError
from geomem.formats import (
    ClipStore,
    Plan,
    Window,
    dequantise,
    mirror_cameras,
    quantise,
    write_feature_part,
    write_tensors,
)
from geomem.formats.cache_kinds import CacheKind
from geomem.formats.clip_sets import read_sets
from geomem.formats.records import write_record
from geomem.formats.teachers import read_basis
from geomem.geometry.cameras import camera_centres, split_cameras
from geomem.geometry.points import resize_nearest
from geomem.geometry.scale import solve_scale
from geomem.memory.reconstruction import (
    FeatureBasis,
    compressed_features,
    fit_basis,
    on_grid,
    patch_tokens,
    predicted_poses,
    reconstruct,
    restored_layers,
    teacher_images,
)
from geomem.memory.selection import choose_frames
from geomem.networks.vggt.model import VGGT
from geomem.settings.jobs import FeaturesJob
from geomem.settings.memory import Features, Overlap

MIN_BASELINE = 0.1  # metres
QUANTISATION = {"int8": "int8 per window and channel", "bf16": "bf16"}


def frames_of(
    window: Window, kind: CacheKind, store: ClipStore, overlap: Overlap, *, row: int
) -> list[int]:
    """Return the frames of a plan's window that a kind of cache holds.

    Args:
        window: The window.
        kind: Whether its own frames, or those of its history that the memory is built from.
        store: Clips of the plan's split.
        overlap: Depths between which views overlap.
        row: Place of the window in its plan.
    """
    if kind.of_window:
        return list(window.frames)
    return choose_frames(
        range(window.history),
        window.frames,
        torch.from_numpy(store.cameras(window.clip).copy()),
        kind.number(row),
        selection=kind.selection,
        near=overlap.near,
        far=overlap.far,
    )


def read_windows(
    store: ClipStore, windows: list[Window], frames: list[list[int]]
) -> tuple[Tensor, Tensor]:
    """Read images (W, K, 3, S, S) in [0, 1] and cameras (W, K, 16), mirrored where planned."""
    sets = [(window.clip, chosen) for window, chosen in zip(windows, frames, strict=True)]
    images, cameras, _ = read_sets(store, sets, depth=False)
    for row, window in enumerate(windows):
        if window.flip:
            images[row] = images[row].flip(-1)
            cameras[row] = torch.from_numpy(mirror_cameras(cameras[row].numpy()))
    return images, cameras


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's weights are."""
    return next(model.parameters()).device


@torch.no_grad()
def write_basis(
    path: Path,
    teacher: VGGT,
    store: ClipStore,
    plan: Plan,
    settings: Features,
    *,
    made_by: Mapping[str, Any],
) -> None:
    """Fit PCA and scale prior on the first windows of a plan and write them, and their record.

    The scale prior is the median of the metres that one unit of the teacher stands for: from true
    depth where the training clips have it, else from the cameras of windows that move.

    Raises:
        InputError: If there is neither depth nor a camera that moves.
    """
    sample = plan.windows[: settings.basis_windows]
    tokens: dict[int, list[Tensor]] = {layer: [] for layer in settings.layers}
    scales: list[float] = []
    grid = teacher.config.image_size // teacher.config.patch_size
    for start in range(0, len(sample), settings.batch):
        windows = list(sample[start : start + settings.batch])
        sets = [(window.clip, list(window.frames)) for window in windows]
        images, cameras, depth = read_sets(store, sets, depth=store.has_depth)
        output = teacher(teacher_images(images.to(device_of(teacher)), teacher))
        for layer, kept in tokens.items():
            maps = patch_tokens(output.tokens[layer], grid).movedim(-1, 2)
            kept.append(on_grid(maps, settings.grid).movedim(2, -1).flatten(0, -2).cpu())
        if depth is not None:
            scales += _scales_of_depth(output.depth.cpu(), depth)
        else:
            scales += _scales_of_cameras(predicted_poses(output.pose_enc[-1].cpu()), cameras)
    if not scales:
        raise InputError(f"no camera of the {len(sample)} windows moves; raise `basis_windows`")
    fitted = {"scale_prior": torch.tensor(scales).median()}
    for layer, kept in tokens.items():
        name = "" if layer == settings.layer else f".{layer}"
        mean, components, unit = fit_basis(torch.cat(kept), settings.channels)
        fitted |= {f"mean{name}": mean, f"components{name}": components, f"unit{name}": unit}
    sha256 = write_tensors(path, fitted, settings.kept)
    write_record(path.with_suffix(".json"), made_by, {"sha256": sha256})


def _scales_of_depth(predicted: Tensor, depth: Tensor) -> list[float]:
    predicted = resize_nearest(predicted, depth.shape[-1])
    pairs = zip(predicted, depth, strict=True)
    return [float((d / p)[d.isfinite()].median()) for p, d in pairs if d.isfinite().any()]


def _scales_of_cameras(predicted: Tensor, cameras: Tensor) -> list[float]:
    given = split_cameras(cameras)[1]
    centres = camera_centres(given)
    moves = (centres - centres[:, :1]).norm(dim=-1).amax(1) > MIN_BASELINE
    pairs = zip(predicted[moves], given[moves], strict=True)
    return [solve_scale(p, g, prior=1.0, prior_weight=1e-6) for p, g in pairs]


def cache_part(
    part: Path,
    number: int,
    *,
    kind: CacheKind,
    teacher: VGGT,
    store: ClipStore,
    plan_path: Path,
    basis_path: Path,
    made_by: Mapping[str, Any],
    settings: FeaturesJob,
    progress: Callable[..., Any],
) -> None:
    """Write one part of a cache; finished shards of an interrupted run are kept."""
    plan, basis = Plan.read(plan_path), read_basis(basis_path, kept=settings.features.kept)
    plan.check_against(store, plan_path)
    total, parts = len(plan.windows), settings.features.shards
    windows = range(total * number // parts, total * (number + 1) // parts)
    key = {**made_by, "kind": kind.name, "quantisation": QUANTISATION[settings.features.stored]}

    def compute(rows: range) -> dict[str, Tensor]:
        return _shard(plan, rows, kind, teacher, store, basis, settings)

    write_feature_part(part, windows, key, compute, progress=progress)


def _shard(
    plan: Plan,
    positions: range,
    kind: CacheKind,
    teacher: VGGT,
    store: ClipStore,
    basis: FeatureBasis,
    settings: FeaturesJob,
) -> dict[str, Tensor]:
    """Compute windows in batches of equally many frames: the teacher never sees padding."""
    windows = [plan.windows[position] for position in positions]
    chosen = [
        frames_of(window, kind, store, settings.overlap, row=position)
        for window, position in zip(windows, positions, strict=True)
    ]
    width = max(len(frames) for frames in chosen)
    device = device_of(teacher)
    basis_there = basis.to(device)
    batch = settings.features.batch
    rows: dict[int, dict[str, Tensor]] = {}
    for count in sorted({len(frames) for frames in chosen}):
        members = [row for row, frames in enumerate(chosen) if len(frames) == count]
        for start in range(0, len(members), batch):
            some = members[start : start + batch]
            images, cameras = read_windows(
                store, [windows[r] for r in some], [chosen[r] for r in some]
            )
            images, cameras = images.to(device), cameras.to(device)
            if kind.of_window:
                made = {"features": compressed_features(teacher, images, basis=basis_there)}
            else:
                made = _memory_rows(teacher, images, cameras, basis_there, settings)
            made = {name: tensor.cpu() for name, tensor in made.items()}
            made["frames"] = torch.tensor([chosen[r] for r in some])
            for position, row in enumerate(some):
                rows[row] = _padded({k: v[position] for k, v in made.items()}, width)
    stacked = {name: torch.stack([rows[r][name] for r in sorted(rows)]) for name in rows[0]}
    stored = quantise(stacked["features"], settings.features.stored)
    return {**stacked, **stored, "fidelity": _fidelity(stacked["features"], stored, basis)}


def _memory_rows(
    teacher: VGGT,
    images: Tensor,
    cameras: Tensor,
    basis: FeatureBasis,
    settings: FeaturesJob,
) -> dict[str, Tensor]:
    made = reconstruct(
        teacher,
        images,
        cameras,
        basis=basis,
        scale_from=settings.geometry.scale_from,
        prior_weight=settings.geometry.scale_prior_weight,
    )
    maps = {"depth": made.depth.half(), "confidence": made.confidence.half()}
    return {**maps, "features": made.features}


def _padded(row: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    missing = width - len(row["frames"])
    if not missing:
        return row
    return {
        name: torch.cat([t, t.new_full((missing, *t.shape[1:]), -1 if name == "frames" else 0)])
        for name, t in row.items()
    }


def _fidelity(features: Tensor, stored: dict[str, Tensor], basis: FeatureBasis) -> Tensor:
    """Return per window the mean cosine between stored and unquantised tokens."""
    exact, kept = (restored_layers(f, basis) for f in (features, dequantise(stored)))
    cosines = [
        torch.nn.functional.cosine_similarity(one, other, dim=-1).flatten(1).mean(1)
        for one, other in zip(exact, kept, strict=True)
    ]
    return torch.stack(cosines).mean(0)
