"""Fetch published weights: `geomem download`."""

import argparse
from pathlib import Path
from typing import Any

from geomem.errors import InputError
from geomem.formats.hub import fetch_address, fetch_file


def download(args: argparse.Namespace) -> None:
    """Fetch one file: of a hub's repository, pinned by its commit, or from an address."""
    if args.url:
        fetch_address(args.output, args.url, sha256=args.sha256)
        return
    if not (args.repository and args.file and args.revision):
        raise InputError("name --url, or --repository with --file and --revision")
    fetch_file(
        args.output,
        repository=args.repository,
        file=args.file,
        revision=args.revision,
        sha256=args.sha256,
    )


def add_commands(commands: Any) -> None:
    """Add `download` to the `geomem` command."""
    command = commands.add_parser("download", help=download.__doc__)
    command.add_argument("output", type=Path, help="file to write")
    command.add_argument("--url", help="https address of the file, instead of a hub")
    command.add_argument("--repository", help="on the hub")
    command.add_argument("--file", help="path in the repository")
    command.add_argument("--revision", help="commit of the repository")
    command.add_argument(
        "--sha256", default="", help="of the file, where it is known; of an address, first digits"
    )
    command.set_defaults(command=download)
