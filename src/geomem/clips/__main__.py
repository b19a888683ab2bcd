"""Commands of the clips stage."""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from geomem.clips.version import VERSION
from geomem.errors import InputError
from geomem.formats.records import provenance, write_record
from geomem.jobs import checked, job_config, job_parser, job_settings, progress, run_command
from geomem.sources.registry import SOURCES, ClipsOfSplit, Download, FolderSettings, Shard


def make(args: argparse.Namespace) -> None:
    """Make one shard of a split: rendered, or converted from files of others."""
    split = checked(job_settings(args).clips(args.split), args)
    import torch

    torch.set_num_threads(args.threads)
    source = SOURCES[split.settings.source]
    shard = Shard(
        folder=args.shard,
        number=args.number,
        record=provenance("clips", VERSION, split, {"choice": args.choice}),
        archive=_folder(split, args),
        choice=args.choice,
    )
    label = f"clips of {args.split}"
    source.make_shard(split, shard, progress=partial(progress, label=label))


def plan(args: argparse.Namespace) -> None:
    """Draw a clip plan."""
    from geomem.clips.windows import draw_plan
    from geomem.formats import ClipStore

    settings = checked(job_settings(args).plan(args.plan), args)
    record = provenance("clips", VERSION, settings, {"clips": args.clips})
    draw_plan(ClipStore(args.clips), settings.plan, record).write(args.output)


def download(args: argparse.Namespace) -> None:
    """Fetch the archive of a downloaded data set; a stopped download goes on where it stopped."""
    from geomem.clips.archives import download_parts, fetch_below

    archive = _archive(args)
    _check_terms(args)
    download_parts(
        archive.repository,
        archive.files,
        args.folder,
        revision=archive.revision,
        fetch=fetch_below if archive.host == "internet_archive" else None,
    )
    if unknown := [file for file, sha256 in archive.files.items() if not sha256]:
        print(
            f"the SHA-256 of {len(unknown)} files were not pinned; {args.folder}/archive.json has "
            f"them: copy them to config/datasets/{args.dataset}.yaml",
            file=sys.stderr,
        )


def unpack(args: argparse.Namespace) -> None:
    """Unpack that archive; nothing is written outside the folder."""
    from geomem.clips.archives import unpack_parts

    parts = [args.archive / file for file in _archive(args).files]
    unpack_parts(parts, args.folder)


def _check_terms(args: argparse.Namespace) -> None:
    """Refuse to download what nobody has said to have read the terms of."""
    config = job_config(args)
    if args.dataset not in config.accepted_terms:
        terms = SOURCES[config.datasets[args.dataset].source].terms
        raise InputError(
            f"{args.dataset} has terms of use: {terms} (data/README.md); if you accept them, write "
            f"`accepted_terms: [{args.dataset}]` into config/config.yaml and run again"
        )


def _archive(args: argparse.Namespace) -> Download:
    datasets = job_config(args).datasets
    archives = {name: getattr(d, "archive", None) for name, d in datasets.items()}
    found = archives.get(args.dataset)
    if not isinstance(found, Download):
        names = sorted(name for name, archive in archives.items() if archive)
        raise InputError(f"{args.dataset} is no downloaded data set; those are {names}")
    return found


def choose(args: argparse.Namespace) -> None:
    """Choose clips and first frames of a split of an imported data set."""
    split = checked(job_settings(args).clips(args.split), args)
    folder = _folder(split, args)
    if folder is None:
        raise InputError(f"{args.split} is of no folder of the user's: name --archive")
    chosen = SOURCES[split.settings.source].choose(split, folder)
    write_record(args.output, provenance("clips", VERSION, split, {}), chosen)


def _folder(split: ClipsOfSplit, args: argparse.Namespace) -> Path | None:
    """Return the unpacked archive or the user's folder, None for clips that are rendered."""
    if isinstance(split.settings, FolderSettings):
        return split.settings.find_root(Path(args.root))
    archive: Path | None = args.archive
    return archive


def main() -> None:
    """Run a command of the stage."""
    parser = argparse.ArgumentParser(prog="python -m geomem.clips", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    command = job_parser(commands.add_parser("make", help=make.__doc__))
    command.add_argument("shard", type=Path, help="directory to make, .../shard-000")
    command.add_argument("--split", required=True)
    command.add_argument("--number", type=int, required=True, help="which shard")
    command.add_argument("--archive", type=Path, help="unpacked archive; downloads only")
    command.add_argument("--choice", type=Path, help="clips of the split; imports only")
    command.set_defaults(command=make)

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
    command.add_argument("--archive", type=Path, help="unpacked archive; downloads only")
    command.set_defaults(command=choose)


if __name__ == "__main__":
    main()
