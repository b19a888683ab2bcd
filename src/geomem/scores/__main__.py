"""Commands of the scores stage."""

import argparse
from functools import partial
from pathlib import Path

from geomem.cli import checked, job_config, job_parser, progress, run_command
from geomem.formats import InputError, write_json


def score(args: argparse.Namespace) -> None:
    """Score the videos of one variant and seed for one or several protocols."""
    config = job_config(args)
    settings = checked({p: config.scores_settings(p) for p in args.protocols}, args)
    if not len(args.output) == len(args.rollouts) == len(args.clips) == len(args.protocols):
        raise InputError("give one output, one --rollouts and one --clips for every protocol")
    import torch

    from geomem.scores.score import load_networks, score_videos
    from geomem.scores.version import VERSION

    torch.set_num_threads(args.threads)
    networks = load_networks(config.settings.scores.model_dump(mode="json"))
    jobs = zip(args.protocols, args.rollouts, args.clips, args.output, strict=True)
    for protocol, rollout, clips, output in jobs:
        result = score_videos(
            rollout,
            clips,
            settings[protocol],
            networks,
            progress=partial(progress, label=f"scoring {protocol}"),
        )
        write_json(output, {**result, "settings": settings[protocol], "version": VERSION})


def main() -> None:
    """Run a command of the stage."""
    parser = argparse.ArgumentParser(prog="python -m geomem.scores", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    command = job_parser(commands.add_parser("score", help=score.__doc__))
    command.add_argument("output", type=Path, nargs="+", help="score files to write")
    command.add_argument("--rollouts", type=Path, nargs="+", required=True, help="video folders")
    command.add_argument("--clips", type=Path, nargs="+", required=True, help="their splits")
    command.add_argument("--protocols", nargs="+", required=True)
    command.set_defaults(command=score)
    run_command(parser)


if __name__ == "__main__":
    main()
