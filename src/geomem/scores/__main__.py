"""Commands of the scores stage."""

import argparse
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from geomem.errors import InputError
from geomem.formats import sha256_file, write_tensors
from geomem.formats.records import provenance, write_record
from geomem.jobs import checked, device_parser, job_device, job_settings, progress, run_command
from geomem.scores.version import VERSION
from geomem.settings.jobs import ScoresJob

if TYPE_CHECKING:
    from torch import device as Device

    from geomem.metrics.registry import Scorer


def score(args: argparse.Namespace) -> None:
    """Score the videos of one variant, seed and protocol by one family of metrics."""
    settings = checked(job_settings(args).scores(args.protocol, args.family), args)
    import torch

    from geomem.scores.score import score_videos

    torch.set_num_threads(args.threads)
    device = job_device(args)
    scorer = _opened(settings, args, device)
    for metric, reason in scorer.left_out.items():
        print(f"{metric} is left out: {reason}", file=sys.stderr, flush=True)
    result = score_videos(
        args.rollout,
        args.clips,
        settings,
        scorer,
        device=device,
        progress=partial(progress, label=f"scoring {args.protocol}"),
    )
    names = ("clips", "rollout", "calibration", "weights")
    inputs = {name: getattr(args, name) for name in names}
    write_record(args.output, provenance("scores", VERSION, settings, inputs), result)


def _opened(settings: ScoresJob, args: argparse.Namespace, device: "Device") -> "Scorer":
    """Return a family at work, by the scale's own calibration where it has one."""
    own = {name: str(path) for name in ("calibration", "weights") if (path := getattr(args, name))}
    return settings.spec.open(settings.settings.model_copy(update=own), device)


def analyse(args: argparse.Namespace) -> None:
    """Probe and decode the features of the teacher, or of a variant with one seed."""
    settings = checked(job_settings(args).analysis(args.variant), args)
    import torch

    from geomem.scores.analysis import analyse_teacher, analyse_variant
    from geomem.scores.windows import AnalysisWindows

    torch.set_num_threads(args.threads)
    bar = partial(progress, label=f"analysing {args.variant or 'the teacher'}")
    windows = AnalysisWindows(
        args.fit_clips, args.test_clips, settings, device=job_device(args), progress=bar
    )
    if args.variant is None:
        result, clouds = analyse_teacher(args.weights, args.basis, windows, settings)
    else:
        if args.checkpoint is None:
            raise InputError(f"--variant {args.variant} needs --checkpoint")
        result, clouds = analyse_variant(
            args.checkpoint, args.weights, args.basis, windows, settings
        )
    write_tensors(args.clouds, {name: cloud.cpu() for name, cloud in clouds.items()}, {})
    names = ("fit_clips", "test_clips", "weights", "basis", "checkpoint")
    inputs = {name: getattr(args, name) for name in names}
    made_by = provenance("scores", VERSION, settings, inputs)
    write_record(args.output, made_by, {**result, "clouds": sha256_file(args.clouds)})


def sanity(args: argparse.Namespace) -> None:
    """Score truth, shuffled truth and noise by one family of metrics, before tables show it."""
    jobs = job_settings(args)
    if jobs.config.sanity is None:
        raise InputError("config/experiments.yaml has no `sanity`")
    settings = checked(jobs.sanity(args.family), args)
    import torch

    from geomem.scores.sanity import score_fakes

    torch.set_num_threads(args.threads)
    device, chosen = job_device(args), settings.scores
    found = score_fakes(
        args.clips,
        settings,
        _opened(chosen, args, device),
        device=device,
        progress=partial(progress, label=f"checking {args.family}"),
    )
    inputs = {name: getattr(args, name) for name in ("clips", "calibration", "weights")}
    write_record(args.output, provenance("scores", VERSION, settings, inputs), found)


def content_bias(args: argparse.Namespace) -> None:
    """Test which video features see time, of every network that is here."""
    jobs = job_settings(args)
    if jobs.config.content_bias is None:
        raise InputError("config/experiments.yaml has no `content_bias`")
    settings = checked(jobs.content_bias(), args)
    import torch

    from geomem.scores.content_bias import measure_content_bias

    torch.set_num_threads(args.threads)
    found = measure_content_bias(args.clips, settings, device=job_device(args), progress=progress)
    made_by = provenance("scores", VERSION, settings, {"clips": args.clips})
    write_record(args.output, made_by, found)


def consistency(args: argparse.Namespace) -> None:
    """Score rooms that are spoiled by known amounts, by the metrics of 3D consistency."""
    jobs = job_settings(args)
    if jobs.config.consistency is None:
        raise InputError("config/experiments.yaml has no `consistency`")
    settings = checked(jobs.consistency(), args)
    import torch

    from geomem.scores.consistency import measure_consistency

    torch.set_num_threads(args.threads)
    found = measure_consistency(settings, device=job_device(args), progress=progress)
    made_by = provenance("scores", VERSION, settings, {"weights": args.weights})
    write_record(args.output, made_by, found)


def cache_fidelity(args: argparse.Namespace) -> None:
    """Weigh settings of the feature cache: bytes, cosine to raw features, effect on alignment."""
    settings = checked(job_settings(args).cache_fidelity(), args)
    import torch

    from geomem.scores.cache_fidelity import measure_cache_fidelity

    torch.set_num_threads(args.threads)
    found = measure_cache_fidelity(
        args.fit_clips,
        args.test_clips,
        args.weights,
        settings,
        device=job_device(args),
        progress=progress,
    )
    inputs = {name: getattr(args, name) for name in ("fit_clips", "test_clips", "weights")}
    write_record(args.output, provenance("scores", VERSION, settings, inputs), found)


def calibrate(args: argparse.Namespace) -> None:
    """Calibrate the VGGT score of the scale's teacher on clips and their mixtures."""
    jobs = job_settings(args)
    settings = checked(jobs.calibration(), args)
    import torch

    from geomem.formats.teacher_sizes import teacher_config
    from geomem.formats.teachers import load_teacher
    from geomem.scores.calibrate import calibrate

    torch.set_num_threads(args.threads)
    device, known = job_device(args), settings.teacher
    teacher = load_teacher(
        args.weights, known.architecture, sha256=known.sha256, precision=known.precision
    ).to(device)
    found = calibrate(
        args.fit_clips, args.test_clips, teacher, settings, device=device, progress=progress
    )
    judge = {
        "name": jobs.config.settings.teacher.name,
        "sha256": sha256_file(args.weights),
        "architecture": asdict(teacher_config(known.architecture)),
        "precision": known.precision,
    }
    inputs = {name: getattr(args, name) for name in ("fit_clips", "test_clips", "weights")}
    made_by = provenance("scores", VERSION, settings, inputs)
    write_record(args.output, made_by, {"teacher": judge, **found})


def _calibration_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--calibration", type=Path, help="of the scale's teacher, where it is used"
    )
    command.add_argument("--weights", type=Path, help="of that teacher")


def main() -> None:
    """Run a command of the stage."""
    parser = argparse.ArgumentParser(prog="python -m geomem.scores", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    command = device_parser(commands.add_parser("score", help=score.__doc__))
    command.add_argument("output", type=Path, help="score file to write")
    command.add_argument("--rollout", type=Path, required=True, help="folder of the videos")
    command.add_argument("--clips", type=Path, required=True, help="directory of their split")
    command.add_argument("--protocol", required=True)
    command.add_argument("--family", required=True, help="of metrics: `geomem list metrics`")
    _calibration_options(command)
    command.set_defaults(command=score)

    command = device_parser(commands.add_parser("analyse", help=analyse.__doc__))
    command.add_argument("output", type=Path, help="record to write")
    command.add_argument("--clouds", type=Path, required=True, help="point clouds to write")
    command.add_argument("--fit-clips", type=Path, required=True, help="split to fit probes on")
    command.add_argument("--test-clips", type=Path, required=True, help="held-out split")
    command.add_argument("--weights", type=Path, required=True, help="of the teacher")
    command.add_argument("--basis", type=Path, required=True, help="of its features")
    command.add_argument("--variant", help="whose hidden states; without, the teacher's features")
    command.add_argument("--checkpoint", type=Path, help="folder of the variant's checkpoint")
    command.set_defaults(command=analyse)

    command = device_parser(commands.add_parser("sanity", help=sanity.__doc__))
    command.add_argument("output", type=Path, help="record to write")
    command.add_argument("--clips", type=Path, required=True, help="directory of the split")
    command.add_argument("--family", required=True, help="of metrics: `geomem list metrics`")
    _calibration_options(command)
    command.set_defaults(command=sanity)

    command = device_parser(commands.add_parser("content-bias", help=content_bias.__doc__))
    command.add_argument("output", type=Path, help="record to write")
    command.add_argument("--clips", type=Path, required=True, help="directory of the split")
    command.set_defaults(command=content_bias)

    command = device_parser(commands.add_parser("consistency", help=consistency.__doc__))
    command.add_argument("output", type=Path, help="record to write")
    command.add_argument("--weights", type=Path, required=True, help="of the teacher to start from")
    command.set_defaults(command=consistency)

    command = device_parser(commands.add_parser("cache-fidelity", help=cache_fidelity.__doc__))
    command.add_argument("output", type=Path, help="record to write")
    command.add_argument("--fit-clips", type=Path, required=True, help="split to fit bases on")
    command.add_argument("--test-clips", type=Path, required=True, help="held-out split")
    command.add_argument("--weights", type=Path, required=True, help="of the teacher")
    command.set_defaults(command=cache_fidelity)

    command = device_parser(commands.add_parser("calibrate", help=calibrate.__doc__))
    command.add_argument("output", type=Path, help="record to write")
    command.add_argument("--fit-clips", type=Path, required=True, help="split to fit it on")
    command.add_argument("--test-clips", type=Path, required=True, help="split of other scenes")
    command.add_argument("--weights", type=Path, required=True, help="of the teacher")
    command.set_defaults(command=calibrate)
    run_command(parser)


if __name__ == "__main__":
    main()
