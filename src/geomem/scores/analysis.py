"""What features know of space: those of the teacher's layers, of plain patches, of a video model.

Probes are fitted on windows of training scenes and measured on held-out scenes; the last quarter of
the fitting windows chooses the ridge. Shape suffixes: B windows, T frames, N patches of the
teacher's grid, C width.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from geomem.alignment.objectives import resample_tokens
from geomem.formats import load_module, read_checkpoint
from geomem.formats.teachers import load_teacher, read_basis
from geomem.memory.reconstruction import teacher_images
from geomem.methods.registry import StateReader
from geomem.networks.projectors import AlignmentProjector
from geomem.networks.vggt.evaluation import mean_depth
from geomem.networks.vggt.model import NUM_SPECIAL, VGGT, VGGTDenseOutput
from geomem.probes.ridge import LinearMap, Moments, choose_ridge
from geomem.scores import decoding
from geomem.scores.probing import (
    TokensOf,
    Values,
    fit_probes,
    gather,
    measure,
    measure_nothing,
)
from geomem.scores.windows import AnalysisWindows, Batch, noise_of
from geomem.settings.jobs import AnalysisJob

Found = dict[str, Any]
OWN = ("angular+scale", "mse")  # objectives whose projector gives features at the teacher's scale


def probe_all(windows: AnalysisWindows, tokens_of: TokensOf, settings: AnalysisJob) -> Found:
    """Fit and measure probes of every kind of features; per kind its width, strengths, values."""
    fitted = gather(windows.probed("fitted", tokens_of))
    held = gather(windows.probed("held", tokens_of))
    probes = fit_probes(fitted, held, windows.probed("held", tokens_of), settings)
    depth = next(iter(fitted.values())).depth + next(iter(held.values())).depth
    mean = float(depth.y / depth.count)
    rows: dict[str, list[Values]] = {name: [] for name in ("nothing", *probes)}
    for features, truth in windows.probed("test", tokens_of):
        for row in range(len(truth.poses)):
            rows["nothing"].append(measure_nothing(truth, row, mean, settings))
            for name, tokens in features.items():
                rows[name].append(measure(tokens[row], truth, row, probes[name], settings))
    made: Found = {"nothing": {"values": decoding.columns(rows["nothing"])}}
    for name, probe in probes.items():
        made[name] = {
            "values": decoding.columns(rows[name]),
            "width": len(probe.projection),
            "strengths": probe.strengths,
        }
    return made


def teacher_tokens(teacher: VGGT, batch: Batch) -> dict[str, Tensor]:
    """Return features (B, T, N, C): place alone, RGB patches, image encoder, every layer."""
    images = teacher_images(batch.images, teacher)
    patch = teacher.config.patch_size
    rgb = rearrange(images, "b t c (h p) (w q) -> b t (h w) (p q c)", p=patch, q=patch)
    embedded = teacher.aggregator.embed(images)
    layers = teacher.aggregator.run(embedded, images, range(teacher.config.depth))
    place = torch.eye(rgb.shape[2], device=rgb.device).expand(*rgb.shape[:2], -1, -1)
    found = {"place": place, "rgb": rgb, "encoder": embedded[:, :, NUM_SPECIAL:]}
    return found | {f"layer{i}": x[:, :, NUM_SPECIAL:] for i, x in enumerate(layers)}


@torch.no_grad()
def analyse_teacher(
    weights: Path, basis: Path, windows: AnalysisWindows, settings: AnalysisJob
) -> tuple[Found, dict[str, Tensor]]:
    """Probe the teacher, and decode what bounds all decoding: its own tokens, and a mean depth.

    Returns:
        The record, and the clouds to draw (`truth`, `teacher`, `path`).
    """
    path = open_path(weights, basis, settings, windows.device)
    probes = probe_all(windows, lambda batch: teacher_tokens(path.teacher, batch), settings)
    decoded, clouds = _decode_teacher(path, windows, settings)
    return {"probes": probes, "decoding": decoded, **windows.record()}, clouds


def _decode_teacher(
    path: decoding.Path, windows: AnalysisWindows, settings: AnalysisJob
) -> tuple[Found, dict[str, Tensor]]:
    completion = complete(windows, path, settings)
    limit, size = settings.analysis.cloud_points, path.teacher.config.image_size
    rows: dict[str, list[Values]] = {"mean_depth": []}
    clouds: dict[str, Tensor] = {}
    for batch in windows.batches("test"):
        layers = decoding.all_layers(path.teacher, batch)
        targets = path.targets(layers[path.basis.layer][:, :, NUM_SPECIAL:])
        said = {
            "teacher": path.teacher.decode_dense(dict(enumerate(layers)), height=size, width=size),
            "path": decoding.decode(targets, path, completion),
        }
        flat = mean_depth(batch.depth, batch.depth.isfinite() & (batch.depth > 0))
        rows["mean_depth"] += decoding.decoding_values(batch, flat, None, limit=limit)
        clouds |= _compare(said, batch, windows, rows, limit)
        if windows.shown in batch.ids:
            row = batch.ids.index(windows.shown)
            truth = decoding.true_points(batch, row)[1]
            clouds |= _named("truth", decoding.cloud(batch, row, truth, limit=limit))
    return {name: {"values": decoding.columns(values)} for name, values in rows.items()}, clouds


def _compare(
    said: dict[str, VGGTDenseOutput],
    batch: Batch,
    windows: AnalysisWindows,
    rows: dict[str, list[Values]],
    limit: int,
) -> dict[str, Tensor]:
    """Add the metrics of what the heads said to `rows`; return the clouds of the shown window."""
    clouds: dict[str, Tensor] = {}
    for name, output in said.items():
        values = decoding.decoding_values(batch, output.depth, output.world_points, limit=limit)
        rows.setdefault(name, []).extend(values)
        if windows.shown in batch.ids:
            row = batch.ids.index(windows.shown)
            points = decoding.aligned_points(batch, row, output.depth[row])
            clouds |= _named(name, decoding.cloud(batch, row, points, limit=limit))
    return clouds


def open_path(
    weights: Path, basis: Path, settings: AnalysisJob, device: torch.device
) -> decoding.Path:
    """Load the teacher and its basis onto a device; the grid is that of the decoded level."""
    teacher = load_teacher(weights, **settings.teacher.model_dump())
    found = read_basis(basis).to(device)
    return decoding.Path(teacher=teacher.to(device), basis=found, side=settings.side)


def complete(
    windows: AnalysisWindows, path: decoding.Path, settings: AnalysisJob
) -> decoding.Completion:
    """Fit what stands for the layers that alignment does not know."""
    fitted, held = (
        _total(
            decoding.layer_sums(decoding.all_layers(path.teacher, batch), path)
            for batch in windows.batches(part)
        )
        for part in ("fitted", "held")
    )
    return decoding.fit_completion(fitted, held, path, settings.analysis.strengths)


def _total(parts: Iterable[Any]) -> Any:
    # one batch at a time: the sums of wide layers are large
    return reduce(add, parts)


def _named(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}.{key}": tensor for key, tensor in tensors.items()}


@dataclass(frozen=True, kw_only=True)
class Student:
    """A trained video model, seen at low noise.

    Attributes:
        read: Its network's hidden states.
        projector: Its projector and scale head where it was aligned so that they give features at
            the teacher's scale, else None.
        noise_time: Time in [0, 1] of the noise on all frames.
    """

    read: StateReader
    projector: AlignmentProjector | None
    noise_time: float

    def states(self, batch: Batch, *, cameras: bool) -> list[Tensor]:
        """Return the hidden states (B, T, C, h, w) of all levels.

        Args:
            batch: The windows; noise depends on the clip alone.
            cameras: Whether the network is told the cameras. Probes must not find them told.
        """
        frames = 2 * batch.images - 1
        times = frames.new_full(frames.shape[:2], self.noise_time)
        noise = noise_of(batch.ids, frames.shape[1:], 0).to(frames.device)
        return self.read(frames, times, noise, batch.cameras, cameras)


def load_student(checkpoint: Path, settings: AnalysisJob, device: torch.device) -> Student:
    """Load a trained variant onto a device."""
    alignment, method = settings.alignment, settings.method
    assert method is not None
    own = (
        alignment is not None
        and alignment.objective in OWN
        and alignment.level == settings.analysis.level
    )
    projector = load_module(AlignmentProjector, checkpoint, "projector").eval() if own else None
    return Student(
        read=method.spec.open_states(method.settings, checkpoint, device),
        projector=projector and projector.to(device),
        noise_time=settings.analysis.noise_time,
    )


@torch.no_grad()
def analyse_variant(
    checkpoint: Path, weights: Path, basis: Path, windows: AnalysisWindows, settings: AnalysisJob
) -> tuple[Found, dict[str, Tensor]]:
    """Probe the hidden states of a variant, and decode them with the teacher's heads.

    They are decoded in two ways: by a ridge from the level's states, which every variant has, and
    by the variant's own projector and scale head, where it was aligned.

    Returns:
        The record, and the clouds to draw (`ridge`, `projector`).
    """
    record = read_checkpoint(checkpoint)
    student = load_student(checkpoint, settings, windows.device)
    path = open_path(weights, basis, settings, windows.device)
    grid = (path.teacher_side,) * 2

    def tokens_of(batch: Batch) -> dict[str, Tensor]:
        states = student.states(batch, cameras=False)
        return {
            f"state{i}": resample_tokens(_tokens(x), (x.shape[-2], x.shape[-1]), grid)
            for i, x in enumerate(states)
        }

    probes = probe_all(windows, tokens_of, settings)
    decoded, clouds = _decode_student(student, path, windows, settings)
    made = {"probes": probes, "decoding": decoded, **windows.record()}
    return {"variant": record["variant"], "seed": record["seed"], **made}, clouds


def _tokens(state_BTChw: Tensor) -> Tensor:
    return rearrange(state_BTChw, "b t c h w -> b t (h w) c")


def _decode_student(
    student: Student, path: decoding.Path, windows: AnalysisWindows, settings: AnalysisJob
) -> tuple[Found, dict[str, Tensor]]:
    level, limit = settings.analysis.level, settings.analysis.cloud_points
    ridge, strength, completion = _fit_decoding(student, path, windows, settings)
    rows: dict[str, list[Values]] = {}
    clouds: dict[str, Tensor] = {}
    for batch in windows.batches("test"):
        state = student.states(batch, cameras=True)[level]
        features = {"ridge": ridge(_tokens(state)).float()}
        if student.projector is not None:
            # g(f(h)/|f(h)|), or f(h) itself where that was regressed
            assert settings.alignment is not None
            objective = settings.alignment.objective
            projected = student.projector(state)[int(objective == "angular+scale")]
            features["projector"] = projected[..., : settings.channels]  # of the first layer
        said = {name: decoding.decode(given, path, completion) for name, given in features.items()}
        clouds |= _compare(said, batch, windows, rows, limit)
    decoded: Found = {name: {"values": decoding.columns(v)} for name, v in rows.items()}
    decoded["ridge"]["strength"] = strength
    return decoded, clouds


def _fit_decoding(
    student: Student, path: decoding.Path, windows: AnalysisWindows, settings: AnalysisJob
) -> tuple[LinearMap, float, decoding.Completion]:
    """Fit the ridge from the level's states to what alignment teaches, and the completion."""
    level, strengths = settings.analysis.level, settings.analysis.strengths

    def both_sums(batch: Batch) -> tuple[Moments, decoding.LayerSums]:
        # the teacher runs once for both
        true = decoding.all_layers(path.teacher, batch)
        targets = path.targets(true[path.basis.layer][:, :, NUM_SPECIAL:]).flatten(0, 2)
        states = _tokens(student.states(batch, cameras=True)[level]).flatten(0, 2)
        return Moments.of(states, targets), decoding.layer_sums(true, path)

    moments, layers = {}, {}
    for part in ("fitted", "held"):
        sums = map(both_sums, windows.batches(part))
        moments[part], layers[part] = reduce(lambda a, b: (a[0] + b[0], a[1] + b[1]), sums)
    ridge, strength = choose_ridge(moments["fitted"], moments["held"], strengths)
    completion = decoding.fit_completion(layers["fitted"], layers["held"], path, strengths)
    return ridge, strength, completion
