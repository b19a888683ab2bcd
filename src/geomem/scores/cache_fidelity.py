"""Weigh settings of the feature cache: their bytes, what they lose, and what alignment makes of it.

Shape suffixes: W windows, T frames, h, w cells of a grid, D width of the teacher's tokens, C
channels of compressed features (those of several layers one after the other).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from geomem.formats import ClipStore, dequantise, quantise
from geomem.formats.features import raw_bytes_per_frame
from geomem.formats.teacher_sizes import teacher_config
from geomem.formats.teachers import load_teacher
from geomem.memory.reconstruction import (
    FeatureBasis,
    fit_basis,
    on_grid,
    patch_tokens,
    restored_layers,
    teacher_images,
)
from geomem.networks.vggt.model import NUM_SPECIAL, VGGT
from geomem.scores.cache_alignment import AlignmentRuns, read_windows
from geomem.scores.score import digits
from geomem.settings.fidelity import CacheSetting
from geomem.settings.jobs import CacheFidelityJob

Layers = dict[int, Tensor]  # raw features (W, T, h, w, D) in fp16, as the raw cache would have them
TEACHER_BATCH = 8  # windows


def measure_cache_fidelity(
    fit_clips: Path,
    test_clips: Path,
    weights: Path,
    settings: CacheFidelityJob,
    *,
    device: torch.device,
    progress: Callable[..., Any],
) -> dict[str, Any]:
    """Return for every setting its bytes a frame and its cosines by held-out window.

    The raw cache is every token of every layer in fp16, special ones too. Bases are fitted on one
    window of each of the first clips of `fit_clips`; all cosines are on windows of other clips.

    Args:
        fit_clips: Directory of the split that bases are fitted on and alignment is trained on.
        test_clips: Directory of the held-out split.
        weights: Of the teacher.
        settings: Of the job.
        device: Where the networks are.
        progress: Wraps an iteration, with a `label`.
    """
    chosen = settings.cache_fidelity
    teacher = load_teacher(weights, **settings.teacher.model_dump()).to(device)
    layers = sorted({layer for row in chosen.rows for layer in row.layers})
    look = partial(raw_layers, teacher, layers=layers, device=device)
    read = partial(read_windows, frames=chosen.frames, stride=chosen.stride, seed=chosen.seed)
    held = read(ClipStore(test_clips), chosen.test_windows)
    fit, test = look(read(ClipStore(fit_clips), chosen.fit_windows).images), look(held.images)
    config = teacher_config(settings.teacher.architecture)
    sizes = (config.depth, NUM_SPECIAL + (config.image_size // config.patch_size) ** 2)
    raw = raw_bytes_per_frame(*sizes, 2 * config.embed_dim)
    rows: list[dict[str, Any]] = []
    for row in progress(chosen.rows, label="weighing caches"):
        found = fidelity([test[layer] for layer in row.layers], basis_of(fit, row), row.stored)
        size = found.pop("bytes")
        cosines = {name: _listed(values) for name, values in found.items()}
        rows.append({**row.recorded(), "bytes_per_frame": size, **cosines})
    trained = [row for row in chosen.rows if row.trained]
    aligned: list[dict[str, Any]] = []
    if trained:
        pool = read(ClipStore(fit_clips), chosen.windows)
        runs = AlignmentRuns(settings, pool, held, test, device)
        aligned = _aligned(runs, look(pool.images), fit, trained, progress)
    return {
        "raw": {"bytes_per_frame": raw, "layers": sizes[0], "tokens": sizes[1]},
        "windows": held.names,
        "rows": rows,
        "aligned": aligned,
    }


def _aligned(
    runs: AlignmentRuns,
    pool: Layers,
    fit: Layers,
    trained: Sequence[CacheSetting],
    progress: Callable[..., Any],
) -> list[dict[str, Any]]:
    """Return the alignment runs: `setting` is the label of a cache, None of raw features.

    Raw features are run on the layers of every setting, and on the first of those with another
    seed too, which tells what chance alone does.
    """
    layers = [*dict.fromkeys(row.layers for row in trained)]
    first = runs.chosen.seed
    raw = [(of_raw, None, first) for of_raw in layers]
    asked = [*raw, (layers[0], None, first + 1), *((row.layers, row, first) for row in trained)]
    found = []
    for of_run, row, seed in progress(asked, label="aligning"):
        width = fit[of_run[0]].shape[-1]
        basis = basis_of(fit, row or CacheSetting(layers=of_run, channels=width))
        targets = compressed([pool[layer] for layer in of_run], basis)
        if row:
            targets = dequantise(quantise(targets, row.stored))
        cosines = _listed(runs.run(targets, basis, seed=seed))
        label = row.label if row else None
        found.append({"layers": list(of_run), "setting": label, "seed": seed, "cosine": cosines})
    return found


def _listed(values: Tensor) -> list[float]:
    return [digits(value) for value in values.tolist()]


@torch.no_grad()
def raw_layers(
    teacher: VGGT, images: Tensor, *, layers: Sequence[int], device: torch.device
) -> Layers:
    """Return the raw patch tokens (W, T, h, w, D) of layers, fp16, of images (W, T, 3, S, S)."""
    grid = teacher.config.image_size // teacher.config.patch_size
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for some in images.split(TEACHER_BATCH):
        tokens = teacher.aggregate(teacher_images(some.to(device), teacher), last_layer=max(layers))
        for layer, kept in found.items():
            kept.append(patch_tokens(tokens[layer], grid).half().cpu())
    return {layer: torch.cat(kept) for layer, kept in found.items()}


def basis_of(fit: Layers, setting: CacheSetting) -> FeatureBasis:
    """Return the basis that a cache of such a setting is made with, fitted on raw features."""
    bases = []
    for layer in setting.layers:
        tokens = resampled(fit[layer].float(), setting.grid).flatten(0, -2)
        mean, components, unit = fit_basis(tokens, setting.channels)
        bases.append(
            FeatureBasis(
                layer=layer,
                mean=mean,
                components=components,
                unit=float(unit),
                scale_prior=1.0,
                grid=setting.grid,
            )
        )
    return replace(bases[0], more=tuple(bases[1:]))


def resampled(tokens: Tensor, side: int | None) -> Tensor:
    """Return tokens (W, T, h, w, D) on another grid, each channel by itself."""
    return on_grid(tokens.movedim(-1, 2), side).movedim(2, -1)


def compressed(raw: Sequence[Tensor], basis: FeatureBasis) -> Tensor:
    """Return what a basis makes (W, T, C, h, w) of raw tokens (W, T, h, w, D) of its layers."""
    made = [
        on_grid(one.compress(tokens.float()).movedim(-1, 2), one.grid)
        for one, tokens in zip(basis.layers, raw, strict=True)
    ]
    return torch.cat(made, dim=2)


def fidelity(raw: Sequence[Tensor], basis: FeatureBasis, stored: str) -> dict[str, Any]:
    """Return the `bytes` a frame and three cosines (W,) of a cache to raw tokens (W, T, h, w, D).

    `cosine` is of restored tokens with raw ones on the grid that is stored, the mean over cells,
    frames and layers; `centred` the same with the basis' mean taken from both, which is the
    direction that alignment compares; `own_grid` of tokens brought back to the teacher's grid with
    raw ones there.

    Args:
        raw: Of each layer of the basis.
        basis: What the cache is made with.
        stored: `int8` or `bf16`.
    """
    kept = quantise(compressed(raw, basis), stored)
    size = sum(tensor.nbytes for tensor in kept.values())
    cosines: dict[str, list[Tensor]] = {"cosine": [], "centred": [], "own_grid": []}
    restored = restored_layers(dequantise(kept), basis)
    for one, tokens, back in zip(basis.layers, raw, restored, strict=True):
        own = tokens.float()
        truth = resampled(own, one.grid)
        cosines["cosine"].append(_by_window(truth, back))
        cosines["centred"].append(_by_window(truth - one.mean, back - one.mean))
        cosines["own_grid"].append(_by_window(own, resampled(back, own.shape[2])))
    means = {name: torch.stack(found).mean(0) for name, found in cosines.items()}
    return {"bytes": size / (raw[0].shape[0] * raw[0].shape[1]), **means}


def _by_window(one: Tensor, other: Tensor) -> Tensor:
    return cosine_similarity(one, other, dim=-1).flatten(1).mean(1)
