"""The `geomem` command."""

import argparse
from collections.abc import Sequence

from geomem.commands import (
    compare,
    deriving,
    doctor,
    download,
    export,
    housekeeping,
    listing,
    main_job,
    planning,
    study,
    times,
    tracking,
    verification,
)
from geomem.jobs import run_command


def main(argv: Sequence[str] | None = None) -> None:
    """Run the `geomem` command."""
    parser = argparse.ArgumentParser(
        prog="geomem", description="Look after the project's results and files."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    parts = (
        main_job,
        verification,
        compare,
        deriving,
        doctor,
        listing,
        tracking,
        download,
        export,
        planning,
        study,
        times,
        housekeeping,
    )
    for module in parts:
        module.add_commands(commands)
    run_command(parser, argv)
