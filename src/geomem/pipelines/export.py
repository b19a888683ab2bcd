"""Put a pipeline together from a checkpoint of a run or from tracked weights, and write it."""

from pathlib import Path

import torch

from geomem.errors import InputError
from geomem.formats.checkpoints import drop_path
from geomem.formats.files import atomic_directory, check_sha256, weights_remedy
from geomem.formats.hub import CARD
from geomem.memory.live import Reconstructor
from geomem.methods.dfot.method import Sampler
from geomem.pipelines.components import FrozenTeacher, TeacherBasis
from geomem.pipelines.memory_video import MemoryVideoPipeline
from geomem.pipelines.settings import PipelineSettings
from geomem.rollouts.protocols import load_reconstructor, load_variant
from geomem.settings.jobs import RolloutJob

CPU = torch.device("cpu")


def from_checkpoint(
    job: RolloutJob,
    *,
    keyframe_density: float,
    checkpoint: Path,
    base: Path,
    weights: Path | None,
    basis: Path | None,
) -> MemoryVideoPipeline:
    """Return the pipeline of a trained variant.

    Args:
        job: Of any of its rollouts.
        keyframe_density: Share of frames that are made first, in clips longer than a window.
        checkpoint: The variant's checkpoint.
        base: The checkpoint with its backbone.
        weights: Of the teacher; with a memory that needs it alone.
        basis: Of its features; likewise.

    Raises:
        InputError: If a file is missing or damaged, or the method has no pipeline.
    """
    _check_method(job)
    found = load_variant(
        job, checkpoint=checkpoint, base=base, weights=weights, basis=basis, device=CPU
    )
    assert isinstance(found.method, Sampler)
    reconstructor = found.memory.reconstructor if found.memory else None
    return _pipeline(job, found.method, reconstructor, keyframe_density)


def from_weights(
    job: RolloutJob,
    *,
    keyframe_density: float,
    model: Path,
    sha256: str,
    weights: Path,
    basis: Path,
) -> MemoryVideoPipeline:
    """Return the pipeline of tracked weights with their branch.

    Args:
        job: Of any rollout of a variant with the memory that they read.
        keyframe_density: As of `from_checkpoint`.
        model: The file.
        sha256: Its checksum.
        weights: Of the teacher.
        basis: Of its features.

    Raises:
        InputError: If a file is missing, damaged, or has no branch for the memory.
    """
    _check_method(job)
    check_sha256(model, sha256, weights_remedy(model))
    modules = job.method.spec.read_public(job.method.settings, model)
    if job.memory and "control" not in modules:
        raise InputError(f"{model} has no branch that reads a memory")
    sampler = Sampler(**modules)  # type: ignore[arg-type]  # by their names in a checkpoint
    reconstructor = load_reconstructor(job, weights, basis, CPU)
    return _pipeline(job, sampler, reconstructor, keyframe_density)


def _check_method(job: RolloutJob) -> None:
    if job.method.name != "dfot":
        raise InputError(f"method {job.method.name} has no pipeline; variants of dfot have one")
    if job.memory and job.memory.geometry == "truth":
        raise InputError("a memory of true depth is a ceiling of the study and has no pipeline")


def _pipeline(
    job: RolloutJob, sampler: Sampler, reconstructor: Reconstructor | None, density: float
) -> MemoryVideoPipeline:
    return MemoryVideoPipeline(
        backbone=sampler.backbone,
        control=sampler.control,
        gate=sampler.gate,
        compress=sampler.memory,
        teacher=FrozenTeacher.of(reconstructor.teacher) if reconstructor else None,
        basis=TeacherBasis.of(reconstructor.basis) if reconstructor else None,
        settings=PipelineSettings.of(job, keyframe_density=density).recorded(),
    )


def write_pipeline(folder: Path, pipeline: MemoryVideoPipeline, card: str) -> None:
    """Write `model_index.json`, a folder a component and the card, whole or not at all.

    Args:
        folder: To make; one that is there is replaced.
        pipeline: What is saved, as safetensors.
        card: Text of its README.md.
    """
    with atomic_directory(folder) as temporary:
        pipeline.save_pretrained(temporary)
        for config in (*temporary.glob("*/config.json"), temporary / "model_index.json"):
            drop_path(config)
        (temporary / CARD).write_text(card, encoding="utf-8")
        for weights in temporary.glob("*/*.safetensors"):
            weights.chmod(0o644)  # safetensors makes private files
