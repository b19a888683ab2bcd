"""Commands of the rollouts stage."""

import argparse
from functools import partial
from pathlib import Path

from geomem.formats import exclusive, write_videos
from geomem.formats.records import provenance
from geomem.formats.runs import trained_run
from geomem.jobs import checked, device_parser, job_device, job_settings, progress, run_command
from geomem.rollouts.version import VERSION


def generate(args: argparse.Namespace) -> None:
    """Generate the videos of one variant, seed and protocol."""
    jobs = job_settings(args)
    settings = checked(jobs.rollout(args.variant, args.protocol), args)
    import torch

    from geomem.formats import ClipStore
    from geomem.rollouts.protocols import load_variant, run_protocol

    torch.set_num_threads(args.threads)
    made_of = {name: getattr(args, name) for name in ("checkpoint", "base", "weights", "basis")}
    variant = load_variant(settings, **made_of, device=job_device(args))
    with exclusive(args.output):
        rgb, coverage = run_protocol(
            variant,
            args.clips,
            settings,
            batch=jobs.config.settings.rollouts.batch,
            parts=args.output,
            progress=partial(progress, label=f"{args.variant} {args.protocol}"),
        )
        content = {
            "variant": args.variant,
            "seed": args.seed,
            "protocol": args.protocol,
            "clips": [clip.clip_id for clip in ClipStore(args.clips).clips],
            "coverage": coverage,
            "run": args.checkpoint and trained_run(args.checkpoint, jobs.config.scale),
        }
        inputs = {"clips": args.clips, **made_of}
        write_videos(args.output, rgb, provenance("rollouts", VERSION, settings, inputs), content)
    for part in args.output.glob("part-*.npy"):
        part.unlink()


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
