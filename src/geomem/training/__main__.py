"""Commands of the training stage."""

import argparse
import shutil
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from geomem.cli import (
    checked,
    device_parser,
    job_config,
    job_device,
    job_parser,
    progress,
    run_command,
)
from geomem.formats import digest, exclusive, sha256_file, write_json
from geomem.formats.spools import SPOOL, Spool, spool_header


def train(args: argparse.Namespace) -> None:
    """Train one variant with one seed."""
    config = job_config(args)
    settings = checked(config.training_settings(args.variant, args.seed), args)
    recipe = config.settings.recipes[config.recipe_of(args.variant)[0]]
    import torch

    from geomem.training.build import build_model, online_teacher
    from geomem.training.data import open_dataset
    from geomem.training.loop import train as run
    from geomem.training.parallel import compute_deterministically, is_main, leave_team
    from geomem.training.stopping import EXIT_RESUMABLE, StoppedError, listen_for_sigterm

    if recipe.deterministic:
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
    with exclusive(args.state) if is_main() else nullcontext():
        model = build_model(settings, dataset, initial=args.initial)
        record = _record(args, settings)
        spool = Spool(args.state / SPOOL, spool_header(record)).write if is_main() else None
        try:
            log = run(
                model,
                dataset,
                settings,
                inputs=record["inputs"],
                device=device,
                teacher=online_teacher(settings, args.weights, args.basis),
                state_folder=args.state,
                checkpoint_steps=recipe.checkpoint_steps,
                workers=recipe.workers,
                progress=partial(progress, label=f"training {args.variant}"),
                parallel=recipe.parallel,
                kept=recipe.states,
                told_to_stop=listen_for_sigterm(),
                say=_say,
                spool=spool,
            )
        except StoppedError as stop:
            _say(str(stop))
            raise SystemExit(EXIT_RESUMABLE) from None
        if is_main():
            _write(args, model.trained_modules(), record, log)
            for state in args.state.glob("step-*"):
                state.unlink()
    if is_main():
        shutil.rmtree(args.state, ignore_errors=True)
    leave_team()


def _say(line: str) -> None:
    print(f"python -m geomem.training: {line}", file=sys.stderr, flush=True)


def _record(args: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    from geomem.training.version import VERSION

    return {
        "variant": args.variant,
        "seed": args.seed,
        "settings": settings,
        "version": VERSION,
        "inputs": _inputs(args),
    }


def _inputs(args: argparse.Namespace) -> dict[str, str]:
    """Return the checksums of all that a training reads; many files have one together."""
    files = {
        "plan": args.plan,
        "initial": args.initial and args.initial / "checkpoint.json",
        "teacher": args.weights,
        "basis": args.basis,
    }
    folders = {
        "clips": (args.clips, "shard-*/index.json"),
        "memory_features": (args.memory_features, "part-*.json"),
        "window_features": (args.window_features, "part-*.json"),
    }
    return {
        **{name: sha256_file(path) for name, path in files.items() if path},
        **{
            name: digest([sha256_file(path) for path in sorted(folder.glob(pattern))])
            for name, (folder, pattern) in folders.items()
            if folder
        },
    }


def _write(
    args: argparse.Namespace,
    modules: dict[str, Any],
    record: dict[str, Any],
    log: list[dict[str, float]],
) -> None:
    from geomem.formats import write_checkpoint

    parameters = {
        name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()
    }
    write_checkpoint(args.output, modules, {**record, "parameters": parameters}, log)


def choose(args: argparse.Namespace) -> None:
    """Pick the best of several trained variants by their scores."""
    settings = checked(job_config(args).choice_settings(args.variant), args)
    from geomem.training.choice import choose as run
    from geomem.training.version import VERSION

    record = {"variant": args.variant, "settings": settings, "version": VERSION}
    write_json(args.output, {**record, **run(args.scores, settings)})


def adopt(args: argparse.Namespace) -> None:
    """Copy the picked variant's checkpoint to where the pick's own belongs."""
    settings = checked(job_config(args).choice_settings(args.variant), args)
    from geomem.training.choice import adopt as run
    from geomem.training.version import VERSION

    identity = {"variant": args.variant, "seed": args.seed}
    record = {**identity, "settings": settings, "version": VERSION}
    run(args.output, args.choice, args.candidates, record=record)


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
