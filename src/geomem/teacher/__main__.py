"""Commands of the teacher stage."""

import argparse
import shutil
from functools import partial
from pathlib import Path

from geomem.errors import InputError
from geomem.formats import ClipStore, atomic_path, exclusive
from geomem.formats.records import checksum, provenance, write_record
from geomem.jobs import checked, device_parser, job_device, job_settings, progress, run_command
from geomem.teacher.version import VERSION


def train(args: argparse.Namespace) -> None:
    """Train the small teacher on the embedded worlds."""
    settings = checked(job_settings(args).teacher(), args)
    if settings.training is None:
        raise InputError("this scale's teacher is downloaded, it has no `teacher.training`")
    import torch

    from geomem.networks.vggt.weights import save_vggt
    from geomem.teacher.train import train_teacher

    torch.set_num_threads(args.threads)
    device = job_device(args)
    with exclusive(args.state):
        model, log = train_teacher(
            ClipStore(args.clips),
            settings,
            clips=checksum(args.clips),
            device=device,
            state_folder=args.state,
            progress=partial(progress, label="training the teacher"),
        )
        with atomic_path(args.output) as temporary:
            save_vggt(model, temporary)
        made_by = provenance("teacher", VERSION, settings, {"clips": args.clips})
        write_record(args.output.with_name("training.json"), made_by, {"log": log[::50]})
    shutil.rmtree(args.state, ignore_errors=True)


def evaluate(args: argparse.Namespace) -> None:
    """Measure the teacher's depth and pose errors on held-out clips."""
    jobs = job_settings(args)
    settings, model = checked(jobs.teacher(), args), jobs.teacher_model()
    import torch

    from geomem.formats.teachers import load_teacher
    from geomem.teacher.evaluate import evaluate_teacher

    torch.set_num_threads(args.threads)
    # in full precision, whatever that of the cache
    teacher = load_teacher(args.weights, model.architecture, sha256=model.sha256)
    metrics = evaluate_teacher(teacher.to(job_device(args)), ClipStore(args.clips))
    inputs = {"clips": args.clips, "weights": args.weights}
    write_record(args.output, provenance("teacher", VERSION, settings, inputs), metrics)


def main() -> None:
    """Run a command of the stage."""
    parser = argparse.ArgumentParser(prog="python -m geomem.teacher", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    command = device_parser(commands.add_parser("train", help=train.__doc__))
    command.add_argument("output", type=Path, help="safetensors file to write")
    command.add_argument("--clips", type=Path, required=True)
    command.add_argument("--state", type=Path, required=True, help="folder of resumable states")
    command.set_defaults(command=train)

    command = device_parser(commands.add_parser("evaluate", help=evaluate.__doc__))
    command.add_argument("output", type=Path, help="metrics to write")
    command.add_argument("--clips", type=Path, required=True, help="held-out split")
    command.add_argument("--weights", type=Path, required=True)
    command.set_defaults(command=evaluate)
    run_command(parser)


if __name__ == "__main__":
    main()
