"""Commands of the rollouts stage."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from geomem.cli import checked, device_parser, job_config, job_device, progress, run_command
from geomem.formats import exclusive, sha256_file, write_videos


def generate(args: argparse.Namespace) -> None:
    """Generate the videos of one variant, seed and protocol."""
    config = job_config(args)
    settings = checked(config.rollout_settings(args.variant, args.protocol), args)
    import torch

    from geomem.rollouts.protocols import load_variant, run_protocol

    torch.set_num_threads(args.threads)
    variant = load_variant(
        args.checkpoint,
        args.base,
        settings,
        weights=args.weights,
        basis=args.basis,
        teacher=config.settings.teacher,
        device=job_device(args),
    )
    with exclusive(args.output):
        rgb, coverage = run_protocol(
            variant,
            args.clips,
            settings,
            batch=config.settings.rollouts.batch,
            parts=args.output,
            progress=partial(progress, label=f"{args.variant} {args.protocol}"),
        )
        write_videos(args.output, rgb, _record(args, settings, coverage))
    for part in args.output.glob("part-*.npy"):
        part.unlink()


def _record(args: argparse.Namespace, settings: dict[str, Any], coverage: Any) -> dict[str, Any]:
    from geomem.formats import ClipStore
    from geomem.rollouts.version import VERSION

    inputs = {"weights": args.weights, "basis": args.basis}
    return {
        "variant": args.variant,
        "seed": args.seed,
        "protocol": args.protocol,
        "settings": settings,
        "version": VERSION,
        "checkpoint": args.checkpoint and sha256_file(args.checkpoint / "checkpoint.json"),
        "inputs": {name: sha256_file(path) for name, path in inputs.items() if path},
        "clips": [clip.clip_id for clip in ClipStore(args.clips).clips],
        "coverage": coverage,
    }


def main() -> None:
    """Run a command of the stage."""
    parser = argparse.ArgumentParser(prog="python -m geomem.rollouts", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    command = device_parser(commands.add_parser("generate", help=generate.__doc__))
    command.add_argument("output", type=Path, help="folder to fill")
    command.add_argument("--variant", required=True)
    command.add_argument("--protocol", required=True)
    command.add_argument("--clips", type=Path, required=True, help="directory of the split")
    command.add_argument("--seed", type=int, required=True)
    command.add_argument("--checkpoint", type=Path, help="none for a floor")
    command.add_argument("--base", type=Path, help="checkpoint with the backbone")
    command.add_argument("--weights", type=Path, help="of the teacher; with memory alone")
    command.add_argument("--basis", type=Path, help="of the features; with memory alone")
    command.set_defaults(command=generate)
    run_command(parser)


if __name__ == "__main__":
    main()
