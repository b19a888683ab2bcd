"""Fetch published weights: `geomem download`."""

import argparse
from pathlib import Path
from typing import Any

from geomem.formats.hub import fetch_file


def download(args: argparse.Namespace) -> None:
    """Fetch one file of a hub's repository, pinned by its commit."""
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
    command.add_argument("--repository", required=True, help="on the hub")
    command.add_argument("--file", required=True, help="path in the repository")
    command.add_argument("--revision", required=True, help="commit of the repository")
    command.add_argument("--sha256", default="", help="of the file, where it is known")
    command.set_defaults(command=download)
