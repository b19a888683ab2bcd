"""Commands of the clips stage."""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from geomem.cli import checked, job_config, job_parser, progress, run_command
from geomem.config import Dataset
from geomem.formats import InputError


def render(args: argparse.Namespace) -> None:
    """Render one shard of a split of an embedded world."""
    config = job_config(args)
    import torch

    from geomem.clips.embedded import render_shard

    torch.set_num_threads(args.threads)
    settings = checked(config.clips_settings(args.split), args)
    label = f"rendering {args.split}"
    render_shard(args.shard, args.number, settings, progress=partial(progress, label=label))


def plan(args: argparse.Namespace) -> None:
    """Draw a clip plan."""
    from geomem.clips.plans import draw_plan
    from geomem.formats import ClipStore

    config = job_config(args)
    settings = checked(config.plan_settings(args.plan), args)
    draw_plan(ClipStore(args.clips), settings, split=settings["split"]).write(args.output)


def download(args: argparse.Namespace) -> None:
    """Fetch the archive of a downloaded data set; a stopped download goes on where it stopped."""
    from geomem.clips.archives import download_parts

    dataset = _downloaded(args)
    download_parts(
        dataset.archive, dataset.archive_files, args.folder, revision=dataset.archive_revision
    )
    if unknown := [file for file, sha256 in dataset.archive_files.items() if not sha256]:
        print(
            f"the SHA-256 of {len(unknown)} files were not pinned; {args.folder}/archive.json has "
            f"them: copy them to config/datasets/{args.dataset}.yaml",
            file=sys.stderr,
        )


def unpack(args: argparse.Namespace) -> None:
    """Unpack that archive; nothing is written outside the folder."""
    from geomem.clips.archives import unpack_parts

    parts = [args.archive / file for file in _downloaded(args).archive_files]
    unpack_parts(parts, args.folder)


def _downloaded(args: argparse.Namespace) -> Dataset:
    datasets = job_config(args).datasets
    if args.dataset not in datasets or not datasets[args.dataset].archive:
        names = sorted(name for name, dataset in datasets.items() if dataset.archive)
        raise InputError(f"{args.dataset} is no downloaded data set; those are {names}")
    return datasets[args.dataset]


def choose(args: argparse.Namespace) -> None:
    """Choose clips and first frames of a split of a downloaded data set."""
    config = job_config(args)
    settings = checked(config.clips_settings(args.split), args)
    from geomem.clips.realestate10k import write_choice

    write_choice(args.output, args.folder, settings)


def import_clips(args: argparse.Namespace) -> None:
    """Convert one shard of a split of a downloaded data set."""
    config = job_config(args)
    settings = checked(config.clips_settings(args.split), args)
    import torch

    from geomem.clips.realestate10k import import_shard

    torch.set_num_threads(args.threads)
    import_shard(
        args.shard,
        args.number,
        settings,
        folder=args.folder,
        choice=args.choice,
        progress=partial(progress, label=f"importing {args.split}"),
    )


def main() -> None:
    """Run a command of the stage."""
    parser = argparse.ArgumentParser(prog="python -m geomem.clips", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    command = job_parser(commands.add_parser("render", help=render.__doc__))
    command.add_argument("shard", type=Path, help="directory to make, .../shard-000")
    command.add_argument("--split", required=True)
    command.add_argument("--number", type=int, required=True, help="which shard")
    command.set_defaults(command=render)

    command = job_parser(commands.add_parser("plan", help=plan.__doc__))
    command.add_argument("output", type=Path, help="plan to write")
    command.add_argument("--plan", required=True)
    command.add_argument("--clips", type=Path, required=True, help="directory of the split")
    command.set_defaults(command=plan)
    _add_downloads(commands)
    run_command(parser)


def _add_downloads(commands: Any) -> None:
    command = job_parser(commands.add_parser("download", help=download.__doc__))
    command.add_argument("folder", type=Path, help="where the archive's parts go")
    command.add_argument("--dataset", required=True)
    command.set_defaults(command=download)

    command = job_parser(commands.add_parser("unpack", help=unpack.__doc__))
    command.add_argument("folder", type=Path, help="folder to make")
    command.add_argument("--dataset", required=True)
    command.add_argument("--archive", type=Path, required=True, help="folder of the parts")
    command.set_defaults(command=unpack)

    command = job_parser(commands.add_parser("choose", help=choose.__doc__))
    command.add_argument("output", type=Path, help="choice to write")
    command.add_argument("--split", required=True)
    command.add_argument("--folder", type=Path, required=True, help="unpacked archive")
    command.set_defaults(command=choose)

    command = job_parser(commands.add_parser("import", help=import_clips.__doc__))
    command.add_argument("shard", type=Path, help="directory to make, .../shard-000")
    command.add_argument("--split", required=True)
    command.add_argument("--number", type=int, required=True, help="which shard")
    command.add_argument("--folder", type=Path, required=True, help="unpacked archive")
    command.add_argument("--choice", type=Path, required=True, help="clips of the split")
    command.set_defaults(command=import_clips)


if __name__ == "__main__":
    main()
