"""Compare every result on disk with the configuration: what is good, and what has to be made again.

Time stamps say nothing after a clone, a pull or a cleaning. Every result records its settings, its
version and the recipes of its inputs (`geomem.formats.records`), and the recipe that it should have
follows from the configuration alone. So what is good is known with nothing else on disk, and an
edit, a clone or deleted intermediate data make again what they change and no more. The workflow
asks here (`workflow/rules/common.smk`); `geomem verify` reports.
"""

import argparse
import os
from functools import cached_property
from importlib import import_module
from pathlib import Path
from shutil import which
from typing import Any

from geomem.canonical import digest
from geomem.config import Config, configured_scale
from geomem.dag.graph import Dag
from geomem.dag.job import Files, Job
from geomem.errors import InputError
from geomem.formats import read_json
from geomem.formats.records import checksum, joined, read_provenance, recipe, recipe_of
from geomem.jobs import job_config, job_parser

# Made again they may differ in last bits from machine to machine: of them the recipe is compared,
# of all else the very bytes too.
REGENERATED = {"clips", "fit_clips", "test_clips", "memory_features", "window_features", "basis"}


class State:
    """What is on disk below a root, beside what the configuration asks for.

    It looks once: make another one when files have changed.
    """

    def __init__(self, dag: Dag, root: Path = Path()) -> None:
        """Look at nothing yet."""
        self.dag, self.root = dag, root
        self._recipes: dict[Path, str | None] = {}
        self._leaves: dict[Path, str | None] = dag.pinned()
        self._old: dict[Path, str | None] = {}
        self._faults: dict[Path, str | None] = {}

    @cached_property
    def _makers(self) -> dict[Path, Job]:
        groups = [*self.dag.stages(), [self.dag.paper(self.root)], self.dag.by_name(self.root)]
        return {path: job for jobs in groups for job in jobs for path in job.outputs}

    def recipe(self, job: Job) -> str | None:
        """Return the recipe that a job's result should have, None if that cannot be known yet."""
        if job.record not in self._recipes:
            self._recipes[job.record] = self._adopted(job) if job.choice else self._made(job)
        return self._recipes[job.record]

    def _made(self, job: Job) -> str | None:
        parts = dict[str, str]()
        for name, given in job.inputs.items():
            found = self._recipe_of(given)
            if found is None:
                return None
            parts[name] = found
        return recipe(job.stage, _version(job), job.settings.digest, parts)

    def _adopted(self, job: Job) -> str | None:
        """Return the recipe of the checkpoint that a pick adopts; there may be no pick yet."""
        assert job.choice
        choice = self.root / job.choice
        known = list(job.candidates)
        if choice.exists():
            known = [read_json(choice).get("picked")]
        if len(known) != 1 or known[0] not in job.candidates:
            return None
        return self._recipe_of(job.candidates[known[0]])

    def _recipe_of(self, given: Files) -> str | None:
        paths = [given] if isinstance(given, Path) else sorted(given)
        found = [self._recipe_of_file(path) for path in paths]
        known = [one for one in found if one is not None]
        return joined(known) if len(known) == len(found) else None

    def _recipe_of_file(self, path: Path) -> str | None:
        if path in self._makers:
            return self.recipe(self._makers[path])
        if path not in self._leaves:
            there = self.root / path
            # a record of a job that this part of the study does not ask for tells its own
            self._leaves[path] = recipe_of(there) if there.is_file() else None
        return self._leaves[path]

    def begun(self, job: Job) -> bool:
        """Return whether all files of a job's result are there, good or not."""
        return all((self.root / path).exists() for path in job.outputs)

    def fault(self, job: Job) -> str | None:
        """Return what is wrong with a job's result in one line, or None if it is good."""
        if job.record not in self._faults:
            self._faults[job.record] = self._fault(job)
        return self._faults[job.record]

    def _fault(self, job: Job) -> str | None:
        return self._outdated(job) or self._differing(job)

    def _shown(self, job: Job) -> Path:
        # people know a table or figure by itself, not by the record of where it comes from
        return self.root / (job.outputs[0] if job.stage == "paper" else job.record)

    def _outdated(self, job: Job) -> str | None:
        """Return why a result is not of the recipe that it should have; nothing else is read."""
        if job.record not in self._old:
            self._old[job.record] = self._why_outdated(job)
        return self._old[job.record]

    def _why_outdated(self, job: Job) -> str | None:
        record, shown = self.root / job.record, self._shown(job)
        gone = [path for path in job.outputs if not (self.root / path).exists()]
        if gone:
            return f"{self.root / gone[0]} is missing"
        try:
            made_by = read_provenance(record)
        except InputError as error:
            return str(error)
        if digest(made_by["settings"]) != job.settings.digest:
            return f"{shown} was made with other settings than the configuration has"
        if made_by["version"] != _version(job):
            return f"{shown} was made by another version of the {job.stage} stage"
        recipes = made_by.get("recipes", {})  # records of earlier times have none
        for name, given in job.inputs.items():
            expected = self._recipe_of(given)
            if expected is not None and recipes.get(name) != expected:
                return f"{shown} was made from other {name.replace('_', ' ')} than it would be now"
        return None

    def _differing(self, job: Job) -> str | None:
        """Return which input or output of a result has other bytes than its record says."""
        record, shown = self.root / job.record, self._shown(job)
        content = read_json(record)
        made_by = content["provenance"]  # as `_outdated` has found it
        for name, given in job.inputs.items():
            parts = [given] if isinstance(given, Path) else given
            if name in REGENERATED or not all(map(self._tells, parts)):
                continue
            paths = [self.root / path for path in parts]
            if made_by["inputs"].get(name) != checksum(paths):
                return f"{shown} was made from another {_in_words(paths)}"
            for path in parts:
                if path in self._makers and self.fault(self._makers[path]):
                    return f"{shown} was made from {self.root / path}, which is outdated"
        for name, path in job.sums.items():
            if content.get(name) != checksum(self.root / path):
                return f"{record} was made with another {self.root / path}"
        return self._fault_of_adoption(job, content, made_by) if job.choice else None

    def _tells(self, path: Path) -> bool:
        """Return whether the bytes of an input say anything about what was made of it.

        Not if it was cleaned or not pulled, and not if another recipe made it; what should have
        been read is then known by its recipe alone.
        """
        maker = self._makers.get(path)
        return (self.root / path).exists() and (maker is None or not self._outdated(maker))

    def _fault_of_adoption(
        self, job: Job, content: dict[str, Any], made_by: dict[str, Any]
    ) -> str | None:
        """Return what is wrong with a checkpoint that a pick adopts."""
        assert job.choice
        record, choice = self.root / job.record, self.root / job.choice
        adopted = content.get("adopted")
        if choice.exists() and adopted != (picked := read_json(choice).get("picked")):
            return f"{record} adopts {adopted}, {choice} picks {picked}"
        if adopted not in job.candidates:
            return f"{record} adopts {adopted}, which is no candidate any more"
        source = self.root / job.candidates[adopted]
        expected = self._recipe_of(job.candidates[adopted])
        same = expected is None or made_by.get("recipes", {}).get("adopted") == expected
        if not same or (source.exists() and made_by["inputs"].get("adopted") != checksum(source)):
            return f"{record} was adopted from another {source}"
        return None

    def good(self, path: Path) -> bool:
        """Return whether a file that a job makes is there and good."""
        return self.fault(self._makers[path]) is None

    def copied(self, copy: Path) -> str | None:
        """Return what is wrong with a copy of a product in one line, or None if it is good."""
        source = self.dag.copies()[copy]
        path, origin = self.root / copy, self.root / source
        if not path.exists():
            return f"{path} is missing"
        if not origin.exists():
            return f"{path} is a copy of {origin}, which is missing"
        maker = self._makers.get(source)
        if path.read_bytes() != origin.read_bytes() or (maker and self.fault(maker)):
            return f"{path} is no copy of a good {origin}"
        return None


def _version(job: Job) -> int:
    version: int = import_module(f"geomem.{job.stage}.version").VERSION
    return version


def _in_words(paths: list[Path]) -> str:
    if len(paths) == 1:
        return str(paths[0])
    return f"one of {len(paths)} files below {os.path.commonpath(paths)}"


def orphans(config: Config, root: Path) -> list[str]:
    """Return results below this scale that the configuration no longer asks for."""
    dag = Dag(config)
    groups = [*dag.stages(), [dag.paper(root)], dag.by_name(root)]
    expected = {root / job.record for jobs in groups for job in jobs}
    folder = root / dag.layout.results
    patterns = (
        "checkpoints/*/*/checkpoint.json",
        "rollouts/*/*/*/rollout.json",
        "scores/*/*/*/*.json",
        "sanity/*.json",
        "analysis/teacher.json",
        "analysis/*/*.json",
        "provenance/*.json",
    )
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return [f"{path} is not asked for by the configuration" for path in sorted(found - expected)]


def verify(config: Config, root: Path, *, main_job: bool = False) -> list[str]:
    """Return every fault of the results below `results/<scale>`, and the orphans.

    With `main_job` the configuration knows a part of the results, so that no others are orphans.
    What is large (checkpoints, videos) may be missing, and is looked at through what was made of
    it alone.
    """
    dag = Dag(config)
    state = State(dag, root)
    large = {job.record for folder in dag.layout.large for job in dag.below(folder)}
    papers = [dag.paper(root)] if which("latexmk") or (root / dag.layout.paper).exists() else []
    faults = [
        message
        for jobs in [*dag.stages(), papers, [job for job in dag.by_name(root) if state.begun(job)]]
        for job in jobs
        if job.record.is_relative_to("results")
        and job.record not in large
        and (message := state.fault(job))
    ]
    if config.scale == configured_scale(root):
        # without LaTeX there may be no PDF to copy, and what nobody asked for by name is not there
        optional = {path for job in dag.by_name(root) for path in job.outputs}
        copies = [
            copy
            for copy, source in dag.copies().items()
            if (source.suffix != ".pdf" and source not in optional) or (root / source).exists()
        ]
        faults += [message for copy in copies if (message := state.copied(copy))]
    return faults + ([] if main_job else orphans(config, root))


def require_good(config: Config, root: Path, *, main_job: bool = False) -> None:
    """Raise InputError with every fault that `verify` finds."""
    if faults := verify(config, root, main_job=main_job):
        raise InputError("\n".join([*faults, f"{len(faults)} faults; run `snakemake`"]))


def run_verify(args: argparse.Namespace) -> None:
    """Compare every result with the configuration; fail if any is missing, outdated or unasked."""
    require_good(job_config(args), Path(args.root), main_job=args.main_job)


def add_commands(commands: Any) -> None:
    """Add `verify` to the `geomem` command."""
    command = job_parser(commands.add_parser("verify", help=run_verify.__doc__))
    command.add_argument("--main-job", action="store_true", help="its tables and figures alone")
    command.set_defaults(command=run_verify)
