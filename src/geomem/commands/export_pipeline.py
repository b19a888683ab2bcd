"""Write a model as a folder that diffusers loads: `geomem export pipeline`."""

import argparse
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from geomem.canonical import digest
from geomem.config import Config, JobSettings
from geomem.dag.graph import Dag
from geomem.errors import InputError
from geomem.formats.files import read_json
from geomem.formats.records import read_provenance
from geomem.jobs import job_config, job_parser
from geomem.settings.jobs import RolloutJob

if TYPE_CHECKING:
    from geomem.pipelines.card import Score
    from geomem.pipelines.memory_video import MemoryVideoPipeline

# The tracked weights, and the variant that says what memory they were trained with
TRACKED, TRACKED_AS = "uvit_tiny", "pretraining_memory"
INDEX = "model_index.json"  # says of a folder that it is a pipeline
METRICS = ("psnr", "ssim", "perceptual")
FAMILIES = ("frames", "perceptual")


def export_pipeline(args: argparse.Namespace) -> None:
    """Write a variant's model, or the tracked weights, as a diffusers pipeline with its card."""
    tracked = args.source == "tracked"
    if tracked == bool(args.variant):
        raise InputError("name either `tracked` or --variant, whose model is exported")
    config = job_config(args)
    if args.folder.exists() and not (args.replace and (args.folder / INDEX).is_file()):
        told = "--replace it" if (args.folder / INDEX).is_file() else f"it has no {INDEX}"
        raise InputError(f"{args.folder} exists; name another folder ({told})")
    root = Path(args.root)
    if tracked:
        pipeline, data = _tracked(config, root)
    else:
        seeds = config.seeds_of(args.variant)
        seed = seeds[0] if args.seed is None else args.seed
        pipeline, data = _trained(config, root, args.variant, seed)
    from geomem.pipelines.card import CardData, write_card
    from geomem.pipelines.export import write_pipeline

    networks = [pipeline.backbone, pipeline.control, pipeline.gate, pipeline.compress]
    parameters = sum(p.numel() for m in networks if m is not None for p in m.parameters())
    settings = pipeline.settings
    card = CardData(
        **data,
        scale=config.scale,
        memory=_memory_in_words(settings.memory),
        resolution=settings.resolution,
        window=settings.sampling.window,
        parameters=parameters,
    )
    write_pipeline(args.folder, pipeline, write_card(card))
    print(f"{args.folder}: {card.name}, {parameters / 1e6:.1f} M parameters")


def _tracked(config: Config, root: Path) -> "tuple[MemoryVideoPipeline, dict[str, Any]]":
    chosen = config.variants[TRACKED].checkpoint if TRACKED in config.variants else None
    if chosen is None or TRACKED_AS not in config.variants:
        raise InputError(
            f"scale {config.scale} has no tracked weights of its sizes; those are of --scale tiny"
        )
    from geomem.pipelines.export import from_weights

    dag, job = Dag(config), _any_rollout(config, TRACKED_AS)
    model = root / chosen.weights.format(scale=config.scale)
    pipeline = from_weights(
        job,
        keyframe_density=config.settings.rollouts.keyframe_density,
        model=model,
        sha256=chosen.sha256,
        weights=root / dag.weights,
        basis=root / dag.basis,
    )
    return pipeline, {
        "variant": TRACKED,
        "seed": None,
        "settings": chosen.sha256,
        "origin": f"The weights are `{chosen.weights}`, whose README says how they were made.",
        "dataset": _dataset(config, TRACKED_AS),
    }


def _trained(
    config: Config, root: Path, variant: str, seed: int
) -> "tuple[MemoryVideoPipeline, dict[str, Any]]":
    if config.variants[variant].floor:
        raise InputError(f"--variant {variant} is a floor: it has no model")
    dag, layout = Dag(config), Dag(config).layout
    folders = {
        "checkpoint": root / layout.checkpoint(config.weights_of(variant), seed),
        "base": root / layout.checkpoint(config.backbone_of(variant), seed),
    }
    for folder in folders.values():
        if not (folder / "checkpoint.json").is_file():
            raise InputError(f"{folder} is not there; make it: snakemake {folder}/checkpoint.json")
    from geomem.pipelines.export import from_checkpoint

    asks = bool(config.needs_of(variant))
    pipeline = from_checkpoint(
        _any_rollout(config, variant),
        keyframe_density=_density(config, variant),
        weights=root / dag.weights if asks else None,
        basis=root / dag.basis if asks else None,
        **folders,
    )
    made_by = read_provenance(folders["checkpoint"] / "checkpoint.json")
    return pipeline, {
        "variant": variant,
        "seed": seed,
        "settings": digest(made_by["settings"]),
        "origin": f"Trained by the stage `{made_by['stage']}`, version {made_by['version']}.",
        "dataset": _dataset(config, config.weights_of(variant)),
        "scores": _scores(config, root, variant, seed),
    }


def _any_rollout(config: Config, variant: str) -> RolloutJob:
    """Return the settings of one of a variant's rollouts; what differs between them is not kept."""
    return JobSettings(config).rollout(variant, min(config.settings.rollouts.protocols))


def _density(config: Config, variant: str) -> float:
    return config.settings.rollouts.keyframe_density if config.interpolates(variant) else 1.0


def _dataset(config: Config, variant: str) -> str:
    """Return what the last training behind a variant saw."""
    settings = config.settings
    plan = config.variants[variant].plan
    if plan is None:
        starts = config.starts_of(variant)
        return _dataset(config, starts[0] if starts else TRACKED_AS)
    return settings.splits[settings.plans[plan].split].dataset


def _memory_in_words(memory: Any) -> str:
    if memory is None:
        return "It has no memory beyond its window."
    return (
        f"Before each window it reads a memory of kind `{memory.kind}`, built of up to "
        f"{memory.most} finished frames."
    )


def _scores(config: Config, root: Path, variant: str, seed: int) -> "list[Score]":
    """Return what the variant's videos scored, as far as results have it."""
    from geomem.pipelines.card import Score

    layout, settings, found = Dag(config).layout, config.settings, []
    for protocol, chosen in sorted(settings.rollouts.protocols.items()):
        for family in FAMILIES:
            path = root / layout.scores(variant, seed, protocol, family)
            content = read_json(path) if path.is_file() else {"per_clip": {}}
            for metric in METRICS:
                values = [v for v in content["per_clip"].get(metric, []) if v is not None]
                if values:
                    found.append(
                        Score(
                            protocol=protocol,
                            dataset=settings.splits[chosen.split].dataset,
                            metric=content["names"].get(metric, {"key": metric})["key"],
                            value=fmean(values),
                            clips=len(values),
                        )
                    )
    return found


def add_command(formats: Any) -> None:
    """Add `pipeline` to `geomem export`."""
    told = export_pipeline.__doc__
    command = formats.add_parser("pipeline", help=told, description=told)
    job_parser(command)
    command.add_argument("folder", type=Path, help="folder to make")
    command.add_argument("source", nargs="?", choices=["tracked"], help="the tracked weights")
    command.add_argument("--variant", help="whose checkpoint, instead")
    command.add_argument("--seed", type=int, help="of its training (default: the first)")
    command.add_argument("--replace", action="store_true", help="replace a pipeline that is there")
    command.set_defaults(command=export_pipeline)
