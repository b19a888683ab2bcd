"""Fetch published weights: `geomem download`.

Where nobody has said which file it has to be, the first download records its SHA-256 in the tracked
`weights/downloads.json`; every later one, here or in a clone, is held to it.
"""

import argparse
from pathlib import Path
from typing import Any

from geomem.config import load_config
from geomem.errors import InputError
from geomem.formats.addresses import fetch_address
from geomem.formats.files import exclusive, read_json, sha256_file, write_json
from geomem.formats.hub import fetch_file

CHECKSUMS = Path("weights/downloads.json")  # by where a file comes from


def download(args: argparse.Namespace) -> None:
    """Fetch one file: of a hub's repository, pinned by its commit, or from an address."""
    if not args.url and not (args.repository and args.file and args.revision):
        raise InputError("name --url, or --repository with --file and --revision")
    if args.terms and str(args.output) not in load_config().accepted_terms:
        raise InputError(
            f"{args.output} is not downloaded yet. {args.terms}. If you accept that, put "
            f"`accepted_terms: [{args.output}]` into config/config.yaml and run again"
        )
    source = args.url or f"{args.repository}@{args.revision}/{args.file}"
    sha256 = args.sha256 or recorded().get(source, "")
    if args.url:
        fetch_address(args.output, args.url, sha256=sha256)
    else:
        place = {"repository": args.repository, "file": args.file, "revision": args.revision}
        fetch_file(args.output, **place, sha256=sha256)
    if not sha256:
        record(source, sha256_file(args.output))


def recorded() -> dict[str, str]:
    """Return the checksums of what was downloaded before without one."""
    return dict(read_json(CHECKSUMS)) if CHECKSUMS.exists() else {}


def record(source: str, sha256: str) -> None:
    """Add a checksum; several downloads may end at once."""
    with exclusive(CHECKSUMS.parent, part=CHECKSUMS.name, wait=True):
        write_json(CHECKSUMS, recorded() | {source: sha256})


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
    command.add_argument(
        "--terms", default="", help="what `accepted_terms` has to accept by the file's name"
    )
    command.set_defaults(command=download)
