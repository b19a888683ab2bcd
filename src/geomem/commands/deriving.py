"""`geomem derive`: derive clip plans and choices of clips again, and compare them with those here.

Which clips, first frames and windows a result is of is said by lists (`data/<scale>/plans/`), which
are tracked where results are. They follow from the configuration and from what clips there are: a
list that does not is another study's, or of another version of the project or of a data set.
"""

import argparse
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from geomem.config import Config
from geomem.dag.graph import Dag
from geomem.dag.job import Job
from geomem.errors import InputError
from geomem.formats import read_json
from geomem.jobs import job_config, job_parser
from geomem.sources.registry import SOURCES, FolderSettings

ENTRIES = ("windows", "clips", "clip_ids")  # what a list lists


def lists_here(dag: Dag, root: Path) -> Iterator[tuple[Job, str]]:
    """Yield the jobs whose lists are below the root, with the names of their plan or split."""
    scale = dag.config.settings
    for name in scale.plans:
        if (root / dag.plan(name).record).exists():
            yield dag.plan(name), name
    for name in scale.splits:
        if dag.config.source_of(name).imports and (root / dag.choice(name).record).exists():
            yield dag.choice(name), name


def derive(config: Config, job: Job, name: str, root: Path) -> dict[str, Any] | None:
    """Return a list as it would be written now, None where what it is derived from is not here."""
    dag = Dag(config)
    if name in config.settings.plans and job.record == dag.layout.plan(name):
        if not all(
            (root / path).exists() for path in dag.shards(config.settings.plans[name].split)
        ):
            return None
        from geomem.clips.windows import draw_plan
        from geomem.formats import ClipStore

        folder = dag.folder(config.settings.plans[name].split)
        drawn = draw_plan(ClipStore(root / folder), dag.settings.plan(name).plan, {})
        return drawn.content()
    split = dag.settings.clips(name)
    if isinstance(split.settings, FolderSettings):
        folder = split.settings.find_root(root)
    else:
        folder = root / dag.layout.unpacked(dag.dataset(name))
        if not folder.exists():
            return None
    return SOURCES[split.settings.source].choose(split, folder)


def difference(derived: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """Return the first difference of a list to what is here, None if there is none."""
    for key in (key for key in ENTRIES if key in derived):
        pairs = zip_longest(derived[key], here.get(key, ()))
        for number, (wanted, found) in enumerate(pairs):
            if wanted != found:
                return f"{key}, number {number}: {found} is here, {wanted} would be derived"
    for key in derived.keys() - set(ENTRIES):
        if derived[key] != here.get(key):
            return f"{key}: {here.get(key)} is here, {derived[key]} would be derived"
    return None


def compare_lists(args: argparse.Namespace) -> None:
    """Derive plans and choices of clips again; fail if one that is here is another."""
    config, root = job_config(args), Path(args.root)
    drifted, compared = [], 0
    for job, name in lists_here(Dag(config), root):
        derived = derive(config, job, name, root)
        if derived is None:
            print(f"{job.record}: not compared, the clips that it lists are not here")
            continue
        compared += 1
        told = difference(derived, read_json(root / job.record))
        if told:
            drifted.append(f"{job.record}: {told}")
        else:
            length = next(len(derived[key]) for key in ENTRIES if key in derived)
            print(f"{job.record}: as derived again, {length} entries")
    if drifted:
        raise InputError("\n".join(drifted))
    if not compared:
        raise InputError(f"no list of scale {config.scale} could be compared; make its clips first")


def add_commands(commands: Any) -> None:
    """Add `derive` to the `geomem` command."""
    command = job_parser(commands.add_parser("derive", help=compare_lists.__doc__))
    command.set_defaults(command=compare_lists)
