"""Take models to a hub or a plain folder and back: `geomem hub`."""

import argparse
from pathlib import Path
from typing import Any

from geomem.formats.hub import pull_folder, push_folder


def push(args: argparse.Namespace) -> None:
    """Send a model's folder to a Hugging Face repository, privately, or to a plain folder."""
    print(push_folder(args.folder, args.place, public=args.public))


def pull(args: argparse.Namespace) -> None:
    """Bring a model from a Hugging Face repository or a plain folder."""
    pull_folder(args.place, args.folder, revision=args.revision)
    print(args.folder)


def add_commands(commands: Any) -> None:
    """Add `hub` to the `geomem` command."""
    command = commands.add_parser("hub", help="Take models to a hub or a folder and back.")
    ways = command.add_subparsers(required=True, metavar="way")
    place = "owner/name on the hub, or a path (/... or ./...)"
    out = ways.add_parser("push", help=push.__doc__, description=push.__doc__)
    out.add_argument("folder", type=Path, help="as `geomem export pipeline` writes it")
    out.add_argument("place", help=place)
    out.add_argument("--public", action="store_true", help="a new repository is for everybody")
    out.set_defaults(command=push)
    back = ways.add_parser("pull", help=pull.__doc__, description=pull.__doc__)
    back.add_argument("place", help=place)
    back.add_argument("folder", type=Path, help="folder to make")
    back.add_argument("--revision", help="commit, branch or tag of a repository")
    back.set_defaults(command=pull)
