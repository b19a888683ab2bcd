"""Commands of the training stage."""

import argparse
import shutil
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from geomem.errors import InputError
from geomem.formats import check_sha256, exclusive, read_checkpoint, write_checkpoint
from geomem.formats.files import weights_remedy
from geomem.formats.records import provenance
from geomem.formats.spools import SPOOL, Spool, spool_header
from geomem.jobs import (
    checked,
    device_parser,
    job_device,
    job_parser,
    job_settings,
    progress,
    run_command,
)
from geomem.training.version import VERSION

# Everything that a training may read, by the names of its options.
INPUTS = ("plan", "clips", "initial", "memory_features", "window_features", "weights", "basis")


def train(args: argparse.Namespace) -> None:
    """Train one variant with one seed."""
    settings = checked(job_settings(args).training(args.variant, args.seed), args)
    import torch

    from geomem.training.build import build_model, build_projector, online_teacher
    from geomem.training.data import open_dataset
    from geomem.training.loop import train as run
    from geomem.training.objective import Objective
    from geomem.training.parallel import compute_deterministically, is_main, leave_team
    from geomem.training.stopping import EXIT_RESUMABLE, StoppedError, listen_for_sigterm

    if settings.recipe.deterministic:
        compute_deterministically()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = job_device(args)
    dataset = open_dataset(
        args.clips,
        args.plan,
        settings,
        memory_cache=args.memory_features,
        window_cache=args.window_features,
    )
    inputs = {name: getattr(args, name) for name in INPUTS}
    made_by = provenance("training", VERSION, settings, inputs)
    identity = {"variant": args.variant, "seed": args.seed}
    with exclusive(args.state) if is_main() else nullcontext():
        model = Objective(
            build_model(settings, initial=args.initial),
            alignment=settings.alignment,
            projector=build_projector(settings),
            batch=settings.recipe.batch,
        )
        spool = Spool(args.state / SPOOL, spool_header(identity, made_by)) if is_main() else None
        try:
            log = run(
                model,
                dataset,
                settings,
                inputs=made_by["inputs"],
                device=device,
                teacher=online_teacher(settings, args.weights, args.basis),
                state_folder=args.state,
                progress=partial(progress, label=f"training {args.variant}"),
                told_to_stop=listen_for_sigterm(),
                say=_say,
                spool=spool.write if spool else None,
            )
        except StoppedError as stop:
            _say(str(stop))
            raise SystemExit(EXIT_RESUMABLE) from None
        if is_main():
            write_checkpoint(args.output, model.trained_modules(), made_by, identity, log)
            for state in args.state.glob("step-*"):
                state.unlink()
    if is_main():
        shutil.rmtree(args.state, ignore_errors=True)
    leave_team()


def _say(line: str) -> None:
    print(f"python -m geomem.training: {line}", file=sys.stderr, flush=True)


def import_weights(args: argparse.Namespace) -> None:
    """Bring weights that are there already, tracked or published, into a checkpoint."""
    settings = checked(job_settings(args).imported(args.variant), args)
    if settings.sha256:
        check_sha256(args.weights, settings.sha256, weights_remedy(args.weights))
    method = settings.method
    modules = method.spec.read_public(method.settings, args.weights)
    made_by = provenance("training", VERSION, settings, {"weights": args.weights})
    identity = {"variant": args.variant, "seed": args.seed}
    write_checkpoint(args.output, modules, made_by, identity, [])


def export(args: argparse.Namespace) -> None:
    """Write a checkpoint as one file in half precision, to be tracked or published."""
    from geomem.formats import atomic_path
    from geomem.formats.checkpoints import load_module
    from geomem.networks.uvit.weights import TRACKED, save_modules

    names = read_checkpoint(args.checkpoint)["weights"]
    unknown = sorted(set(names) - set(TRACKED))
    if unknown:
        raise InputError(f"{args.checkpoint} has {unknown}, which no such file can hold")
    modules = {name: load_module(TRACKED[name], args.checkpoint, name) for name in names}
    with atomic_path(args.output) as temporary:
        save_modules(temporary, modules)


def main() -> None:
    """Run a command of the stage."""
    parser = argparse.ArgumentParser(prog="python -m geomem.training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    command = device_parser(commands.add_parser("train", help=train.__doc__))
    command.add_argument("output", type=Path, help="checkpoint folder to make")
    command.add_argument("--variant", required=True)
    command.add_argument("--seed", type=int, required=True)
    command.add_argument("--clips", type=Path, required=True, help="directory of the split")
    command.add_argument("--plan", type=Path, required=True)
    command.add_argument("--initial", type=Path, help="checkpoint folder to start from")
    command.add_argument("--memory-features", type=Path, help="cache of the memory frames")
    command.add_argument("--window-features", type=Path, help="cache of the windows")
    command.add_argument("--weights", type=Path, help="of a teacher that runs online")
    command.add_argument("--basis", type=Path, help="of the 3D teacher's features")
    command.add_argument("--state", type=Path, required=True, help="folder of resumable states")
    command.set_defaults(command=train)

    command = job_parser(commands.add_parser("import", help=import_weights.__doc__))
    command.add_argument("output", type=Path, help="checkpoint folder to make")
    command.add_argument("--variant", required=True)
    command.add_argument("--seed", type=int, required=True)
    command.add_argument("--weights", type=Path, required=True, help="file of weights")
    command.set_defaults(command=import_weights)

    command = commands.add_parser("export", help=export.__doc__)
    command.add_argument("output", type=Path, help="safetensors file to write")
    command.add_argument("--checkpoint", type=Path, required=True, help="checkpoint folder")
    command.set_defaults(command=export)
    run_command(parser)


if __name__ == "__main__":
    main()
