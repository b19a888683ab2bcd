"""How fast work gets done: configured rates, and those that this machine was measured at.

A job takes `start + amount / rate` seconds of a core or of a GPU. `config/planning.yaml` has rates
with their sources; `geomem plan --calibrate` fits them to what jobs of a scale took and
keeps them in `benchmarks/calibration.json`, which is this machine's and not tracked.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from geomem.dag.job import Job
from geomem.errors import InputError
from geomem.formats import read_json, write_json
from geomem.planning.work import Work, Workload
from geomem.registry.strict import Strict

DEFAULTS = Path("config/planning.yaml")
CALIBRATION = Path("benchmarks/calibration.json")
Device = Literal["cpu", "gpu"]
Measured = Mapping[str, float]
SPREAD = 3.0  # how much longer than to start a job takes that tells a rate


class Rate(Strict):
    """Of one kind of job."""

    start: float = Field(ge=0, description="seconds until it works")
    rate: float | None = Field(
        default=None, gt=0, description="FLOPs, rays or frames a second; none: it only starts"
    )
    jobs: int = Field(default=0, ge=0, description="jobs that it was fitted to")


class Rates(Strict):
    """By device and kind of job; a stage's stands for its details."""

    cpu: dict[str, Rate] = Field(description="of a core")
    gpu: dict[str, Rate] = Field(description="of a GPU")
    scale: str = Field(default="", description="that they were measured at")

    def of(self, device: Device, kind: str) -> Rate | None:
        """Return the rate of a kind of job, None if nobody knows it."""
        known = self.cpu if device == "cpu" else self.gpu
        return known.get(kind) or known.get(kind.split(".")[0])

    def over(self, others: "Rates") -> "Rates":
        """Return these, and others where these know nothing."""
        return Rates(cpu=others.cpu | self.cpu, gpu=others.gpu | self.gpu, scale=self.scale)


def device_of(work: Work) -> Device:
    """Return what a job computes on."""
    return "gpu" if work.asked.gpu else "cpu"


def devices_of(work: Work) -> int:
    """Return how many GPUs a job holds; of cores it is counted what they do."""
    return max(1, work.asked.gpu * work.asked.nodes)


def seconds_of(work: Work, rates: Rates) -> float | None:
    """Return the GPU-seconds or core-seconds of a job, None if no rate is known."""
    rate = rates.of(device_of(work), work.kind)
    if rate is None or (work.amount and rate.rate is None):
        return None
    return rate.start * devices_of(work) + (work.amount / rate.rate if rate.rate else 0.0)


def _read(path: Path) -> Rates:
    try:
        text = path.read_text(encoding="utf-8")
        return Rates.model_validate(yaml.safe_load(text))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; restore it from git") from None
    except (ValidationError, yaml.YAMLError) as error:
        told = " ".join(str(error).split())
        raise InputError(f"{path}: {told}") from None


def configured_rates(root: Path) -> Rates:
    """Return the rates of `config/planning.yaml`.

    Raises:
        InputError: If it is missing or no such file.
    """
    return _read(root / DEFAULTS)


def rates_here(root: Path) -> Rates:
    """Return those that this machine was measured at, over the configured ones."""
    common, path = configured_rates(root), root / CALIBRATION
    if not path.exists():
        return common
    try:
        return Rates.model_validate(read_json(path)).over(common)
    except ValidationError:
        raise InputError(
            f"{path} is no calibration; delete it or run `geomem plan --calibrate`"
        ) from None


def write_calibration(root: Path, rates: Rates) -> Path:
    """Keep the rates of this machine; returns where."""
    path = root / CALIBRATION
    write_json(path, rates.recorded())
    return path


# --- measured ---------------------------------------------------------------------------------


def benchmark_of(job: Job, scale: str) -> str | None:
    """Return where below `benchmarks/jobs` what a job took is written; None of what is not
    planned by itself."""
    path, kind = job.record, job.stage
    folder, name = path.parent, path.stem
    names = folder.parts
    found = {
        ("clips", "index"): lambda: (
            f"make_clips/{scale}/{names[-3]}/{names[-2]}-{names[-1].removeprefix('shard-')}"
        ),
        ("training", "checkpoint"): lambda: f"{{}}/{scale}/{names[-2]}/{names[-1]}",
        ("picks", "checkpoint"): lambda: f"adopt_checkpoint/{scale}/{names[-2]}/{names[-1]}",
        ("rollouts", "rollout"): lambda: f"generate_videos/{scale}/{'/'.join(names[-3:])}",
        ("teacher", "teacher"): lambda: f"evaluate_teacher/{scale}",
        ("features", "basis"): lambda: f"fit_basis/{scale}",
        ("scores", "teacher"): lambda: f"analyse_teacher/{scale}",
        ("scores", "content_bias"): lambda: f"measure_content_bias/{scale}",
        ("scores", "consistency"): lambda: f"measure_consistency/{scale}",
    }
    if (kind, name) in found:
        rule = "import_weights" if "weights" in job.options and "plan" not in job.inputs else ""
        return found[kind, name]().format(rule or "train_variant") + ".tsv"
    if kind == "clips" and folder.name == "plans":
        return f"draw_plan/{scale}/{name}.tsv"
    if kind == "features":
        number = name.removeprefix("part-")
        return f"cache_features/{scale}/{names[-2]}/{names[-1]}-{number}.tsv"
    if kind == "scores" and "scores" in names:
        return f"score_videos/{scale}/{'/'.join(names[-3:])}/{name}.tsv"
    if kind == "scores" and folder.name == "sanity":
        return f"check_sanity/{scale}/{name}.tsv"
    if kind == "scores":
        return f"analyse_variant/{scale}/{names[-1]}/{name}.tsv"
    if kind == "picks":
        return f"choose_variant/{scale}/{name}.tsv"
    return None


def read_benchmark(path: Path, device: Device) -> float | None:
    """Return the seconds of a core or a GPU that a job took, None if the file does not tell.

    Beside other work a CPU's time is less than the clock's, so of cores it is their time.
    """
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    column = "cpu_time" if device == "cpu" else "s"
    try:
        return float(rows[-1][column]) or None
    except (KeyError, IndexError, ValueError):
        return None


def measured_here(workload: Workload, folder: Path) -> list[tuple[Work, float]]:
    """Return the jobs that have a benchmark below a folder, with their seconds."""
    found = []
    for job in (job for group in workload.dag.stages() for job in group):
        name = benchmark_of(job, workload.config.scale)
        if name is None or not (folder / name).is_file():
            continue
        work = workload.of(job)
        seconds = read_benchmark(folder / name, device_of(work))
        if seconds:
            found.append((work, seconds * devices_of(work)))
    return found


def fitted(points: Iterable[tuple[float, float]], known: Rate) -> Rate:
    """Return the rate of jobs whose amounts and seconds were measured.

    Jobs that took far longer than to start tell the rate, the others the start; what none of them
    tells stays as it is known.

    Args:
        points: Amount and seconds of each job.
        known: What is taken of what they do not tell.
    """
    pairs = [*points]
    start, rate = known.start, known.rate
    long = [(x, s) for x, s in pairs if x and s > SPREAD * start]
    short = [pair for pair in pairs if pair not in long]
    if long:
        worked = sum(s for _, s in long) - len(long) * start
        rate = sum(x for x, _ in long) / worked
    if short:
        rest = mean(s - (x / rate if rate else 0.0) for x, s in short)
        start = rest if rest > 0 else start
    return Rate(start=start, rate=rate, jobs=len(pairs))


def calibrate(measured: Iterable[tuple[Work, float]], known: Rates, scale: str) -> Rates:
    """Return the rates of measured jobs by device and kind."""
    points: dict[tuple[Device, str], list[tuple[float, float]]] = {}
    for work, seconds in measured:
        points.setdefault((device_of(work), work.kind), []).append((work.amount, seconds))
    found: dict[Device, dict[str, Rate]] = {"cpu": {}, "gpu": {}}
    for (device, kind), pairs in points.items():
        before = known.of(device, kind) or Rate(start=0.0)
        found[device][kind] = fitted(pairs, before)
    return Rates(**found, scale=scale)
