"""Commands of the scores stage."""

import argparse
from functools import partial
from pathlib import Path

from geomem.cli import checked, job_config, job_parser, progress, run_command
from geomem.formats import write_json


def score(args: argparse.Namespace) -> None:
    """Score the videos of one variant, seed and protocol."""
    config = job_config(args)
    settings = checked(config.scores_settings(args.protocol), args)
    import torch

    from geomem.scores.score import load_networks, score_videos
    from geomem.scores.version import VERSION

    torch.set_num_threads(args.threads)
    result = score_videos(
        args.rollout,
        args.clips,
        settings,
        load_networks(settings["scores"]),
        progress=partial(progress, label=f"scoring {args.protocol}"),
    )
    write_json(args.output, {**result, "settings": settings, "version": VERSION})


def main() -> None:
    """Run a command of the stage."""
    parser = argparse.ArgumentParser(prog="python -m geomem.scores", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    command = job_parser(commands.add_parser("score", help=score.__doc__))
    command.add_argument("output", type=Path, help="score file to write")
    command.add_argument("--rollout", type=Path, required=True, help="folder of the videos")
    command.add_argument("--clips", type=Path, required=True, help="directory of their split")
    command.add_argument("--protocol", required=True)
    command.set_defaults(command=score)
    run_command(parser)


if __name__ == "__main__":
    main()
