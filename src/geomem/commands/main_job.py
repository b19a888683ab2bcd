"""`geomem main-job`, which is DVC's stage: make the main job, check it, record what is large.

The DAG is Snakemake's; what is small is in git. Checkpoints and videos are too large for that: DVC
keeps them beside the stage (`results/<scale>/checkpoints.dvc`, `rollouts.dvc`), not as outputs of
it, since a clone without a remote has none of them and needs none while its results are good.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geomem.commands.compare import compare_with_git
from geomem.commands.verification import State, require_good
from geomem.config import load_config
from geomem.dag.graph import Dag
from geomem.errors import InputError


def forces(words: Sequence[str]) -> bool:
    """Return whether a command line is one of DVC's that was told to run everything again."""
    names = [Path(word).name for word in words]
    if "dvc" not in names:
        return False
    options = words[names.index("dvc") + 1 :]
    return any(word == "--force" or re.fullmatch("-[a-z]*f[a-z]*", word) for word in options)


def forced_by_dvc() -> bool:
    """Return whether a `dvc repro -f` has started this; DVC tells its commands of no option."""
    import psutil

    try:
        return any(forces(parent.cmdline()) for parent in psutil.Process().parents())
    except psutil.Error:  # processes of others
        return False


def make_main_job(args: argparse.Namespace) -> None:
    """Make what is missing of the main job, verify it, compare it with git, record large files."""
    again = ["--forceall"] if args.force or forced_by_dvc() else []
    snakemake = [sys.executable, "-m", "snakemake", "--config", "only=main", *again, "--", "all"]
    if subprocess.run(snakemake, check=False).returncode:
        raise InputError("the main job is not whole; what Snakemake says above tells why")
    config = load_config(main_job=True)
    require_good(config, Path(), main_job=True)
    print("\n".join(compare_with_git(config, Path())[0]))
    record_large(Dag(config))


def record_large(dag: Dag, root: Path = Path()) -> None:
    """Give DVC the checkpoints and videos, each where all of the main job's are here.

    A part of them would replace the record of all that a remote may hold.
    """
    state = State(dag, root)
    for folder in dag.layout.large:
        jobs = dag.below(folder)
        here = [job for job in jobs if (root / job.record).exists() and not state.fault(job)]
        if len(here) == len(jobs):
            added = [sys.executable, "-m", "dvc", "add", "--quiet", str(folder)]
            if subprocess.run(added, cwd=root, check=False).returncode:
                raise InputError(f"DVC could not record {folder}")
        else:
            record = f"DVC's record {folder}.dvc stays as it is"
            print(f"{folder}: {len(here)} of {len(jobs)} are here; {record}")


def add_commands(commands: Any) -> None:
    """Add `main-job` to the `geomem` command."""
    command = commands.add_parser("main-job", help=make_main_job.__doc__)
    command.add_argument("--force", action="store_true", help="make everything again")
    command.set_defaults(command=make_main_job)
