"""Commands of the features stage."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from geomem.features.version import VERSION
from geomem.formats import ClipStore, Plan, exclusive
from geomem.formats.cache_kinds import CacheKind
from geomem.formats.records import provenance
from geomem.jobs import checked, device_parser, job_device, job_settings, progress, run_command
from geomem.settings.jobs import FeaturesJob


def fit_basis(args: argparse.Namespace) -> None:
    """Fit the basis that compresses the teacher's features."""
    settings = checked(job_settings(args).features(args.plan.stem), args)
    import torch

    from geomem.features.cache import write_basis

    torch.set_num_threads(args.threads)
    teacher = _teacher(args, settings)
    store, plan = ClipStore(args.clips), Plan.read(args.plan)
    plan.check_against(store, args.plan)
    inputs = {name: getattr(args, name) for name in ("plan", "clips", "weights")}
    made_by = provenance("features", VERSION, settings, inputs)
    write_basis(args.output, teacher, store, plan, settings.features, made_by=made_by)


def cache(args: argparse.Namespace) -> None:
    """Cache features of one part of a plan's windows."""
    settings = checked(job_settings(args).features(args.plan.stem), args)
    import torch

    from geomem.features.cache import cache_part

    torch.set_num_threads(args.threads)
    inputs = {name: getattr(args, name) for name in ("plan", "clips", "weights", "basis")}
    with exclusive(args.output.parent, part=args.output.stem):  # parts are made side by side
        cache_part(
            args.output,
            args.number,
            kind=CacheKind.parse(args.kind),
            teacher=_teacher(args, settings),
            store=ClipStore(args.clips),
            plan_path=args.plan,
            basis_path=args.basis,
            made_by=provenance("features", VERSION, settings, inputs),
            settings=settings,
            progress=partial(progress, label=f"caching {args.kind}"),
        )


def _teacher(args: argparse.Namespace, settings: FeaturesJob) -> Any:
    """Load the teacher onto the job's device."""
    from geomem.formats.teachers import load_teacher

    teacher = load_teacher(args.weights, **settings.teacher.model_dump())
    return teacher.to(job_device(args))


def main() -> None:
    """Run a command of the stage."""
    parser = argparse.ArgumentParser(prog="python -m geomem.features", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    command = device_parser(commands.add_parser("fit-basis", help=fit_basis.__doc__))
    command.add_argument("output", type=Path, help="basis to write")
    command.set_defaults(command=fit_basis)
    _window_arguments(command)

    command = device_parser(commands.add_parser("cache", help=cache.__doc__))
    command.add_argument("output", type=Path, help="part to write, .../part-000.json")
    command.add_argument("--number", type=int, required=True, help="which part")
    command.add_argument("--kind", required=True, help="`window` or `memory<K>`")
    command.add_argument("--basis", type=Path, required=True)
    command.set_defaults(command=cache)
    _window_arguments(command)
    run_command(parser)


def _window_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--plan", type=Path, required=True)
    command.add_argument("--clips", type=Path, required=True)
    command.add_argument("--weights", type=Path, required=True, help="of the teacher")


if __name__ == "__main__":
    main()
