"""The `geomem` command."""

import argparse
from collections.abc import Sequence

from geomem.commands import (
    checking,
    compare,
    deriving,
    doctor,
    download,
    export,
    housekeeping,
    hub,
    listing,
    main_job,
    planning,
    site,
    study,
    times,
    tracking,
    verification,
)
from geomem.jobs import run_command

STORY = """\
What makes the results is the workflow:
  snakemake --config only=main        table 2, its figures, the paper's PDF
  snakemake                           every table and figure of the study
  snakemake results/main_table.tex    one of them
  snakemake --config scale=smoke      the same in minutes, for tests
  snakemake --profile slurm all       on a Slurm cluster

and in the order in which one needs them:
  geomem doctor                       what this machine has and lacks
  geomem list variants                what can be named (methods, metrics ...)
  geomem plan --scale paper           hours, bytes and money beforehand
  snakemake -n                        what would run, and why
  geomem times                        what it took
  geomem verify                       whether all results are as configured
  geomem check                        whether tables and claims agree with git
  geomem site                         all of it as pages for a browser

A stage runs by itself as well: python -m geomem.<stage> --help, of clips,
teacher, features, training, rollouts, scores, picks, paper. Settings are
config/*.yaml; docs/ has the rest.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the `geomem` command."""
    parser = argparse.ArgumentParser(
        prog="geomem",
        description="Look after the results and files of a study.",
        epilog=STORY,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    parts = (
        main_job,
        verification,
        compare,
        checking,
        deriving,
        doctor,
        listing,
        tracking,
        download,
        export,
        hub,
        planning,
        site,
        study,
        times,
        housekeeping,
    )
    for module in parts:
        module.add_commands(commands)
    run_command(parser, argv)
