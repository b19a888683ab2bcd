"""Compare every result on disk with the configuration, and put a fresh clone's times in order.

After a clone or `dvc pull`, time stamps say nothing and Snakemake has no record of how files were
made. Every result records its own settings, version and inputs, so this module can tell which are
still good: `verify` reports the others, `restore` makes the good ones newer than their inputs and
the others older than everything, so that the workflow makes exactly those again.
"""

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from geomem.cli import job_config, job_parser
from geomem.config import Config, configured_scale
from geomem.formats import InputError, digest, read_json, sha256_file

OLDER_THAN_ALL = 1  # seconds of the epoch; Snakemake takes 0 for "no time" and would keep the file


@dataclass(frozen=True, kw_only=True)
class Result:
    """One result the configuration asks for.

    Attributes:
        record: The JSON file that says how it was made.
        files: All its files, the record among them.
        settings: What it must have been made with.
        stage: The stage whose version it must carry.
        inputs: Record key -> file whose SHA-256 it must name.
        choice: The record of the pick that it adopts. A pick that is made again with the same
            outcome changes nothing after it, so the outcome is compared.
        rootless: Whether it is made from the configuration alone. No file can then be newer than an
            outdated one, whose record has to go for it to be made again.
    """

    record: Path
    files: tuple[Path, ...]
    settings: Any
    stage: str
    inputs: dict[str, Path]
    choice: Path | None = None
    rootless: bool = False


def expected_results(config: Config, root: Path) -> Iterator[list[Result]]:
    """Yield the results of each stage, stages in the order in which they are made."""
    data, results = root / "data" / config.scale, root / "results" / config.scale
    scale = config.settings
    yield [
        _clips(config, data, name, shard)
        for name, split in scale.splits.items()
        for shard in range(split.shards)
    ]
    yield [
        _simple(data / "plans" / f"{name}.json", config.plan_settings(name), "clips")
        for name in scale.plans
    ]
    yield [_simple(results / "teacher.json", config.teacher_settings(), "features")]
    runs = config.runs()
    trained = [name for name in runs if config.variants[name].trained]
    yield list(_features(config, data, trained))
    # what a checkpoint is made from comes before it
    for group in _generations(config, list(runs)):
        picked = [name for name in group if config.variants[name].best_of]
        yield [_choice(config, results, name) for name in picked]
        make = {True: _adopted, False: _checkpoint}
        yield [
            make[name in picked](config, data, results, name, seed)
            for name in group
            if name not in config.floors
            for seed in scale.seeds
        ]
        made = [(n, seed, p) for n in group for seed in config.seeds_of(n) for p in runs[n]]
        yield [_rollout(config, root, results, *run) for run in made]
        yield [_score(config, results, *run) for run in made]
    yield list(_analyses(config, results))


def _simple(record: Path, settings: Any, stage: str) -> Result:
    return Result(record=record, files=(record,), settings=settings, stage=stage, inputs={})


def _clips(config: Config, data: Path, name: str, shard: int) -> Result:
    folder = data / "clips" / config.settings.splits[name].dataset / name / f"shard-{shard:03d}"
    arrays = [folder / f"{array}.npy" for array in ("rgb", "cam", "depth")]
    return Result(
        record=folder / "index.json",
        files=(*(path for path in arrays if path.exists()), folder / "index.json"),
        settings=config.clips_settings(name),
        stage="clips",
        inputs={},
        rootless=not config.datasets[config.settings.splits[name].dataset].archive,
    )


def _features(config: Config, data: Path, variants: list[str]) -> Iterator[Result]:
    teacher = data / "features" / config.settings.teacher.name
    kinds = dict.fromkeys(
        (config.recipe_of(name)[1], kind)
        for name in variants
        for kind in config.caches_of(name).values()
    )
    for plan, kind in kinds:
        for number in range(config.settings.features.shards):
            part = teacher / plan / kind / f"part-{number:03d}.json"
            yield Result(
                record=part,
                files=(teacher / "basis.safetensors", part),
                settings=config.features_settings(plan),
                stage="features",
                inputs={"key.plan": data / "plans" / f"{plan}.json"},
            )


def _checkpoint(config: Config, data: Path, results: Path, variant: str, seed: int) -> Result:
    folder = results / "checkpoints" / variant / f"seed{seed}"
    chosen = config.variants[variant]
    inputs = {"inputs.plan": data / "plans" / f"{config.recipe_of(variant)[1]}.json"}
    if chosen.initial:
        initial = results / "checkpoints" / chosen.initial / f"seed{seed}"
        inputs["inputs.initial"] = initial / "checkpoint.json"
    return Result(
        record=folder / "checkpoint.json",
        files=(folder / "model", folder / "curves.csv", folder / "checkpoint.json"),
        settings=config.training_settings(variant, seed),
        stage="training",
        inputs=inputs,
    )


def _choice(config: Config, results: Path, variant: str) -> Result:
    record = results / "choices" / f"{variant}.json"
    among, rule = config.candidates_of(variant), config.variants[variant].best_of
    assert rule is not None
    scores = {
        f"inputs.{name}-seed{seed}": results / f"scores/{name}/seed{seed}/{rule.protocol}.json"
        for name in (among if len(among) > 1 else ())
        for seed in config.settings.seeds
    }
    made = _simple(record, config.choice_settings(variant), "training")
    return replace(made, inputs=scores, rootless=not scores)


def _adopted(config: Config, data: Path, results: Path, variant: str, seed: int) -> Result:
    folder = results / "checkpoints" / variant / f"seed{seed}"
    return Result(
        record=folder / "checkpoint.json",
        files=(folder / "model", folder / "curves.csv", folder / "checkpoint.json"),
        settings=config.choice_settings(variant),
        stage="training",
        inputs={},
        choice=results / "choices" / f"{variant}.json",
    )


def _rollout(
    config: Config, root: Path, results: Path, variant: str, seed: int, protocol: str
) -> Result:
    folder = results / "rollouts" / variant / f"seed{seed}" / protocol
    checkpoint = results / "checkpoints" / variant / f"seed{seed}" / "checkpoint.json"
    inputs = {} if variant in config.floors else {"checkpoint": checkpoint}
    if config.variants[variant].memory:
        teacher = config.settings.teacher
        inputs["inputs.weights"] = root / teacher.weights.format(scale=config.scale)
        folder_of_basis = root / "data" / config.scale / "features" / teacher.name
        inputs["inputs.basis"] = folder_of_basis / "basis.safetensors"
    return Result(
        record=folder / "rollout.json",
        files=(folder / "rgb.npy", folder / "rollout.json"),
        settings=config.rollout_settings(variant, protocol),
        stage="rollouts",
        inputs=inputs,
    )


def _score(config: Config, results: Path, variant: str, seed: int, protocol: str) -> Result:
    record = results / "scores" / variant / f"seed{seed}" / f"{protocol}.json"
    rollout = results / "rollouts" / variant / f"seed{seed}" / protocol / "rollout.json"
    return Result(
        record=record,
        files=(record,),
        settings=config.scores_settings(protocol),
        stage="scores",
        inputs={"inputs.rollout.sha256": rollout},
    )


def _analyses(config: Config, results: Path) -> Iterator[Result]:
    """Yield what is known of features: the teacher's, and those of analysed variants."""
    variants = config.analysed()
    runs = [(name, seed) for name in variants for seed in config.settings.seeds]
    for name, seed in [(None, 0), *runs] if variants else []:
        place = "teacher" if name is None else f"{name}/seed{seed}"
        record = results / "analysis" / f"{place}.json"
        clouds = record.with_suffix(".safetensors")
        checkpoint = results / "checkpoints" / place / "checkpoint.json"
        inputs = {} if name is None else {"inputs.checkpoint": checkpoint}
        yield Result(
            record=record,
            files=(clouds, record),
            settings=config.analysis_settings(name),
            stage="scores",
            inputs={**inputs, "clouds": clouds},
        )


def _generations(config: Config, variants: list[str]) -> Iterator[list[str]]:
    made: set[str] = set()
    left = list(variants)
    while left:
        ready = [name for name in left if made.issuperset(config.starts_of(name))]
        yield ready
        made |= set(ready)
        left = [name for name in left if name not in ready]


def fault(result: Result) -> str | None:
    """Return what is wrong with a result in one line, or None if it is good."""
    gone = [path for path in result.files if not path.exists()]
    if gone:
        return f"{gone[0]} is missing"
    try:
        record = read_json(result.record)
    except InputError as error:
        return str(error)
    provenance = record.get("provenance") or record.get("key") or record
    if digest(provenance.get("settings")) != digest(result.settings):
        return f"{result.record} was made with other settings than the configuration has"
    version = import_module(f"geomem.{result.stage}.version").VERSION
    if provenance.get("version") != version:
        return f"{result.record} was made by another version of the {result.stage} stage"
    for key, path in result.inputs.items():
        stored: Any = record
        for part in key.split("."):
            stored = stored.get(part, {})
        # an input that was not pulled cannot be compared; the record still names its checksum
        if path.exists() and stored != sha256_file(path):
            return f"{result.record} was made from another {path}"
    if result.choice and result.choice.exists():
        picked = read_json(result.choice).get("picked")
        if record.get("adopted") != picked:
            return f"{result.record} adopts {record.get('adopted')}, {result.choice} picks {picked}"
    return None


def orphans(config: Config, root: Path) -> list[str]:
    """Return results below this scale that the configuration no longer asks for."""
    expected = {result.record for stage in expected_results(config, root) for result in stage}
    folder = root / "results" / config.scale
    patterns = (
        "checkpoints/*/*/checkpoint.json",
        "rollouts/*/*/*/rollout.json",
        "scores/*/*/*.json",
        "analysis/teacher.json",
        "analysis/*/*.json",
    )
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return [f"{path} is not asked for by the configuration" for path in sorted(found - expected)]


def verify(config: Config, root: Path, *, main_job: bool = False) -> list[str]:
    """Return every fault of the results below `results/<scale>`, and the orphans.

    With `main_job` the configuration knows a part of the results, so that no others are orphans.
    """
    folder = root / "results"
    faults = [
        message
        for results in expected_results(config, root)
        for result in results
        if result.record.is_relative_to(folder) and (message := fault(result))
    ]
    missing = [f"{path} is missing" for path in products(config, root) if not path.exists()]
    return faults + missing + ([] if main_job else orphans(config, root))


def products(config: Config, root: Path) -> list[Path]:
    """Return the tables' files; figures and the PDF are made from the same scores."""
    folders = [root / "results" / config.scale / "tables"]
    if config.scale == configured_scale(root):
        folders.append(root / "results")
    names = [*config.tables, *(["feature_analysis", "feature_decoding"] if config.analysis else [])]
    kinds = ("csv", "tex")
    return [folder / f"{name}.{kind}" for folder in folders for name in names for kind in kinds]


def restore(config: Config, root: Path) -> tuple[int, int]:
    """Order the time stamps of what is there; return how many results are good and how many not.

    Tables and figures are good only where every score is.
    """
    now = time.time()
    good = bad = 0
    complete = True
    for results in expected_results(config, root):
        now += 0.01
        for result in results:
            present = [path for path in result.files if path.exists()]
            sound = bool(present) and fault(result) is None
            complete &= sound or result.stage != "scores"
            good, bad = good + sound, bad + (bool(present) and not sound)
            if result.rootless and not sound:
                result.record.unlink(missing_ok=True)
                present = [path for path in present if path.exists()]
            _set_times(present, now if sound else OLDER_THAN_ALL)
    own = root / "results" / config.scale
    kinds = ("tables", "figures", "provenance", "metrics", "videos")
    made = [[path for kind in kinds for path in (own / kind).glob("*.*")]]
    made += [[*(own / "paper").glob("*.pdf")]]
    if config.scale == configured_scale(root):
        folder = root / "results"
        made += [[*folder.glob("*.*"), *(folder / "figures").glob("*.*"), root / "paper/main.pdf"]]
    for paths in made:
        now += 0.01
        there = [path for path in paths if path.exists()]
        _set_times(there, now if complete else OLDER_THAN_ALL)
    # Snakemake takes a job's benchmark for one of its outputs
    _set_times(list((root / "benchmarks" / "jobs").rglob("*.tsv")), now)
    # what a job makes at once must not be older than what lies in the future
    time.sleep(max(0.0, now - time.time()))
    return good, bad


def _set_times(paths: list[Path], when: float) -> None:
    for path in paths:
        os.utime(path, (when, when))
        # Snakemake dates a directory by this file
        if path.is_dir() and (path / ".snakemake_timestamp").exists():
            os.utime(path / ".snakemake_timestamp", (when, when))


def run_verify(args: argparse.Namespace) -> None:
    """Compare every result with the configuration; fail if any is missing, outdated or unasked."""
    faults = verify(job_config(args), Path(args.root), main_job=args.main_job)
    if faults:
        raise InputError("\n".join([*faults, f"{len(faults)} faults; run `snakemake`"]))


def run_restore(args: argparse.Namespace) -> None:
    """Put the time stamps of a fresh clone in order, so that only what is missing is made."""
    good, bad = restore(job_config(args), Path(args.root))
    print(f"{good} results are good, {bad} will be made again")


def add_commands(commands: Any) -> None:
    """Add `verify` and `restore` to the `geomem` command."""
    for name, run in (("verify", run_verify), ("restore", run_restore)):
        command = job_parser(commands.add_parser(name, help=run.__doc__))
        command.add_argument("--main-job", action="store_true", help="its tables and figures alone")
        command.set_defaults(command=run)
