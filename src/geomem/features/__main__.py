"""Commands of the features stage."""

import argparse
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from geomem.cli import checked, device_parser, job_config, job_device, progress, run_command
from geomem.formats import (
    ClipStore,
    InputError,
    Plan,
    atomic_path,
    check_sha256,
    digest,
    exclusive,
    sha256_file,
    write_json,
)


def train_teacher(args: argparse.Namespace) -> None:
    """Train the small teacher on the embedded worlds."""
    config = job_config(args)
    settings = checked(config.teacher_settings(), args)
    if settings["teacher"]["training"] is None:
        raise InputError("this scale's teacher is downloaded, it has no `teacher.training`")
    import torch

    from geomem.features.teacher import train_teacher as run
    from geomem.models.vggt_weights import save_vggt

    torch.set_num_threads(args.threads)
    device = job_device(args)
    with exclusive(args.state):
        model, log = run(
            ClipStore(args.clips),
            settings,
            clips=digest([sha256_file(p) for p in sorted(args.clips.glob("shard-*/index.json"))]),
            device=device,
            state_folder=args.state,
            progress=partial(progress, label="training the teacher"),
        )
        with atomic_path(args.output) as temporary:
            save_vggt(model, temporary)
        write_json(args.output.with_name("training.json"), {"settings": settings, "log": log[::50]})
    shutil.rmtree(args.state, ignore_errors=True)


def evaluate_teacher(args: argparse.Namespace) -> None:
    """Measure the teacher's depth and pose errors on held-out clips."""
    config = job_config(args)
    settings = checked(config.teacher_settings(), args)
    import torch

    from geomem.features.teacher import evaluate_teacher as measure
    from geomem.features.version import VERSION
    from geomem.formats.teachers import load_teacher

    torch.set_num_threads(args.threads)
    teacher = load_teacher(
        args.weights,
        settings["teacher"]["architecture"],
        sha256=config.settings.teacher.sha256,
    )
    metrics = measure(teacher.to(job_device(args)), ClipStore(args.clips))
    record = {"weights": sha256_file(args.weights), "settings": settings, "version": VERSION}
    write_json(args.output, {**metrics, **record})


def fit_basis(args: argparse.Namespace) -> None:
    """Fit the basis that compresses the teacher's features."""
    config = job_config(args)
    settings = checked(config.features_settings(args.plan.stem), args)
    import torch

    from geomem.features.cache import write_basis

    torch.set_num_threads(args.threads)
    teacher = _teacher(args, settings)
    store, plan = ClipStore(args.clips), Plan.read(args.plan)
    plan.check_against(store, args.plan)
    write_basis(args.output, teacher, store, plan, settings["features"])


def cache(args: argparse.Namespace) -> None:
    """Cache features of one part of a plan's windows."""
    config = job_config(args)
    settings = checked(config.features_settings(args.plan.stem), args)
    import torch

    from geomem.features.cache import cache_part

    torch.set_num_threads(args.threads)
    with exclusive(args.output.parent, part=args.output.stem):  # parts are made side by side
        cache_part(
            args.output,
            args.number,
            kind=args.kind,
            teacher=_teacher(args, settings),
            store=ClipStore(args.clips),
            plan_path=args.plan,
            basis_path=args.basis,
            teacher_sha256=sha256_file(args.weights),
            settings=settings,
            progress=partial(progress, label=f"caching {args.kind}"),
        )


def _teacher(args: argparse.Namespace, settings: dict[str, Any]) -> Any:
    """Load the teacher onto the job's device."""
    from geomem.formats.teachers import load_teacher

    teacher = load_teacher(
        args.weights,
        settings["teacher"],
        sha256=settings["sha256"],
        precision=settings["features"]["precision"],
    )
    return teacher.to(job_device(args))


def download(args: argparse.Namespace) -> None:
    """Fetch the official weights from the hub."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        fetched = hf_hub_download(args.repository, "model.safetensors", revision=args.revision)
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise InputError(
            f"{args.repository} cannot be fetched ({type(error).__name__}); on a machine without "
            f"the hub, bring its model.safetensors to {args.output}"
        ) from None
    check_sha256(Path(fetched), args.sha256)
    with atomic_path(args.output) as temporary:
        shutil.copyfile(fetched, temporary)


def main() -> None:
    """Run a command of the stage."""
    parser = argparse.ArgumentParser(prog="python -m geomem.features", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    command = device_parser(commands.add_parser("train-teacher", help=train_teacher.__doc__))
    command.add_argument("output", type=Path, help="safetensors file to write")
    command.add_argument("--clips", type=Path, required=True)
    command.add_argument("--state", type=Path, required=True, help="folder of resumable states")
    command.set_defaults(command=train_teacher)

    command = commands.add_parser("download", help=download.__doc__)
    command.add_argument("output", type=Path, help="safetensors file to write")
    command.add_argument("--repository", required=True, help="on the hub")
    command.add_argument("--revision", required=True, help="commit of the repository")
    command.add_argument("--sha256", required=True, help="of the file")
    command.set_defaults(command=download)

    command = device_parser(commands.add_parser("evaluate-teacher", help=evaluate_teacher.__doc__))
    command.add_argument("output", type=Path, help="metrics to write")
    command.add_argument("--clips", type=Path, required=True, help="held-out split")
    command.add_argument("--weights", type=Path, required=True)
    command.set_defaults(command=evaluate_teacher)

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
