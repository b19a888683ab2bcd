"""Commands of the picks stage."""

import argparse
from pathlib import Path

from geomem.formats.records import provenance, write_record
from geomem.jobs import checked, job_parser, job_settings, run_command
from geomem.picks.version import VERSION


def choose(args: argparse.Namespace) -> None:
    """Pick the best of several trained variants by their scores."""
    settings = checked(job_settings(args).pick(args.variant), args)
    from geomem.picks.choice import choose as run

    inputs = {f"{path.parts[-4]}-{path.parts[-3]}-{path.stem}": path for path in args.scores}
    content = {"variant": args.variant, **run(args.scores, settings)}
    write_record(args.output, provenance("picks", VERSION, settings, inputs), content)


def adopt(args: argparse.Namespace) -> None:
    """Copy the picked variant's checkpoint to where the pick's own belongs."""
    settings = checked(job_settings(args).pick(args.variant), args)
    from geomem.picks.choice import adopt as run

    run(
        args.output,
        args.choice,
        args.candidates,
        settings=settings,
        seed=args.seed,
        variant=args.variant,
        version=VERSION,
    )


def main() -> None:
    """Run a command of the stage."""
    parser = argparse.ArgumentParser(prog="python -m geomem.picks", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    command = job_parser(commands.add_parser("choose", help=choose.__doc__))
    command.add_argument("output", type=Path, help="record of the pick to write")
    command.add_argument("--variant", required=True)
    command.add_argument("--scores", type=Path, nargs="*", default=[], help="of all candidates")
    command.set_defaults(command=choose)

    command = job_parser(commands.add_parser("adopt", help=adopt.__doc__))
    command.add_argument("output", type=Path, help="checkpoint folder to make")
    command.add_argument("--variant", required=True)
    command.add_argument("--seed", type=int, required=True)
    command.add_argument("--choice", type=Path, required=True)
    command.add_argument("--candidates", type=Path, nargs="+", required=True, help="checkpoints")
    command.set_defaults(command=adopt)
    run_command(parser)


if __name__ == "__main__":
    main()
