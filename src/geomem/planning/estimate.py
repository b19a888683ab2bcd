"""What a run will take: the jobs that would run, by stage, with hours, bytes and money."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from geomem.config import Cluster
from geomem.dag.job import Job
from geomem.planning.rates import Rates, device_of, seconds_of
from geomem.planning.work import Workload

HOUR = 3600.0
STAGES = ("clips", "plans", "teacher", "features", "training", "rollouts", "scores", "picks")


@dataclass
class Line:
    """Of a stage.

    Attributes:
        jobs: That would run.
        there: That are good already.
        gpu_hours: Of them.
        cpu_hours: Of cores, of the jobs that ask for no GPU.
        disk: Bytes that they leave.
        unknown: Jobs whose time nobody knows.
    """

    jobs: int = 0
    there: int = 0
    gpu_hours: float = 0.0
    cpu_hours: float = 0.0
    disk: float = 0.0
    unknown: int = 0

    def __add__(self, other: "Line") -> "Line":
        """Return both together."""
        return Line(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def money(self, cluster: Cluster) -> float | None:
        """Return what they cost, None if a price of what they use is not known."""
        used = (
            (self.gpu_hours, cluster.price_per_gpu_hour),
            (self.cpu_hours, cluster.price_per_cpu_hour),
        )
        if all(price is None for _, price in used):
            return None
        return sum(hours * (price or 0.0) for hours, price in used)


@dataclass
class Estimate:
    """Of a run.

    Attributes:
        lines: By stage.
        downloads: What is fetched first, with its bytes where they are known.
        calibrated: The scale that this machine was measured at; empty if it was not.
    """

    lines: dict[str, Line] = field(default_factory=dict)
    downloads: dict[str, float | None] = field(default_factory=dict)
    calibrated: str = ""

    @property
    def total(self) -> Line:
        """All stages together."""
        return sum(self.lines.values(), Line())

    def to_json(self, cluster: Cluster) -> dict[str, Any]:
        """Return plain values."""
        lines = {**self.lines, "total": self.total}
        return {
            "stages": {name: {**vars(x), "money": x.money(cluster)} for name, x in lines.items()},
            "downloads": self.downloads,
            "currency": cluster.currency,
            "calibrated": self.calibrated,
        }


def stage_of(kind: str) -> str:
    """Return the line in which a kind of job stands."""
    return kind.split(".")[0]


def estimate(
    workload: Workload, jobs: Iterable[Job], rates: Rates, *, there: Iterable[Job] = ()
) -> Estimate:
    """Return what jobs will take.

    Args:
        workload: Of their configuration.
        jobs: Those that would run.
        rates: How fast.
        there: Jobs whose results are good, which are counted alone.
    """
    found = Estimate(calibrated=rates.scale)
    for job in jobs:
        work = workload.of(job)
        line = found.lines.setdefault(stage_of(work.kind), Line())
        seconds = seconds_of(work, rates)
        line.jobs += 1
        line.disk += work.disk
        line.unknown += seconds is None
        if device_of(work) == "gpu":
            line.gpu_hours += (seconds or 0.0) / HOUR
        else:
            line.cpu_hours += (seconds or 0.0) / HOUR
    for job in there:
        found.lines.setdefault(workload.kind_of(job), Line()).there += 1
    order = [*STAGES, "paper"]
    found.lines = {name: found.lines[name] for name in order if name in found.lines}
    return found
