"""What a run will take, before anything runs: `geomem plan`."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomem.commands.times import BENCHMARKS
from geomem.commands.verification import State
from geomem.config import Cluster, load_cluster
from geomem.dag.graph import Dag
from geomem.dag.job import Job
from geomem.errors import InputError
from geomem.jobs import job_config, job_parser

if TYPE_CHECKING:
    from geomem.planning.estimate import Estimate, Line
    from geomem.planning.work import Peak, Workload

GB = 1e9
ROW = "{:<9} {:>6} {:>6} {:>9} {:>9} {:>10} {:>10} {:>13}"


def jobs_to_run(dag: Dag, root: Path) -> tuple[list[Job], list[Job]]:
    """Return the jobs that `snakemake` would run, and those that are good already.

    What is good asks for nothing; what is not there and not needed any more does not run.
    """
    jobs = [job for group in dag.stages() for job in group]
    makers = {path: job for job in jobs for path in job.outputs}
    state = State(dag, root)
    waiting = [*dag.shown(), *(makers[path] for path in dag.scores_of(dag.config.scores()))]
    needed: dict[Path, Job] = {}
    good: dict[Path, Job] = {}
    while waiting:
        job = waiting.pop()
        if job.record in needed or job.record in good:
            continue
        if state.begun(job) and state.fault(job) is None:
            good[job.record] = job
            continue
        needed[job.record] = job
        for given in (*job.inputs.values(), *job.beside.values()):
            paths = [given] if isinstance(given, Path) else given
            waiting += [makers[path] for path in paths if path in makers]
    return list(needed.values()), [job for job in jobs if state.begun(job) and not state.fault(job)]


def _amount(bytes_: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if bytes_ >= size:
            return f"{bytes_ / size:.1f} {unit}"
    return f"{bytes_ / 1e3:.0f} kB" if bytes_ else "-"


def _hours(hours: float) -> str:
    if not hours:
        return "-"
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2f}"


def _row(name: str, line: "Line", cluster: Cluster, fetched: str = "-") -> str:
    money = line.money(cluster)
    return ROW.format(
        name,
        line.jobs,
        line.there,
        _hours(line.gpu_hours),
        _hours(line.cpu_hours),
        _amount(line.disk),
        fetched,
        "-" if money is None else f"{money:,.2f} {cluster.currency}".strip(),
    )


def table(made: "Estimate", cluster: Cluster) -> list[str]:
    """Return the estimate as lines of at most 80 characters."""
    known = sum(size or 0 for size in made.downloads.values())
    unknown = [name for name, size in made.downloads.items() if size is None]
    fetched = _amount(known) + ("+?" if unknown else "")
    lines = [ROW.format("stage", "jobs", "there", "GPU-h", "CPU-h", "disk", "download", "money")]
    lines += [_row(name, line, cluster) for name, line in made.lines.items()]
    lines += [_row("total", made.total, cluster, fetched)]
    lines += [f"download of unknown size: {name}" for name in unknown]
    if made.total.unknown:
        lines += [f"{made.total.unknown} jobs have no rate: their hours are not counted"]
    return lines


def memory_lines(peaks: "dict[str, Peak]") -> list[str]:
    """Return the peak memory of the trainings, the largest first, beside that of a card here."""
    ordered = sorted(peaks.items(), key=lambda item: -item[1].total)
    if not ordered:
        return []
    name, most = ordered[0]
    parts = {part: size for part, size in vars(most).items() if part != "windows" and size}
    told = ", ".join(f"{part} {size / GB:.2f}" for part, size in parts.items())
    lines = [
        f"peak memory of a training: {most.total / GB:.1f} GB ({name}, {most.windows} windows at "
        "once):",
        f"  {told}",
    ]
    import torch

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        fits = "fits" if most.total < card.total_memory else "does not fit"
        lines += [f"  the {card.name} here has {card.total_memory / GB:.1f} GB: it {fits}"]
    return lines


def plan(args: argparse.Namespace) -> None:
    """Print what a run will take: jobs, hours, bytes and money by stage, before anything runs."""
    config, root = job_config(args), Path(args.root)
    from geomem.planning.estimate import estimate
    from geomem.planning.networks import Counter
    from geomem.planning.rates import rates_here
    from geomem.planning.work import Workload

    dag, cluster = Dag(config), load_cluster(root)
    workload = Workload(dag, Counter(config.settings, say=_say))
    if args.calibrate:
        _calibrate(workload, root)
        return
    jobs, there = jobs_to_run(dag, root)
    if args.all:
        jobs, there = [job for group in dag.stages() for job in group], []
    made = estimate(workload, jobs, rates_here(root), there=there)
    made.downloads = workload.downloads(jobs, root)
    peaks = workload.peaks(jobs)
    if args.json:
        memory = {name: {**vars(peak), "total": peak.total} for name, peak in peaks.items()}
        print(json.dumps({"scale": config.scale, **made.to_json(cluster), "memory": memory}))
        return
    source = f"measured here at {made.calibrated}" if made.calibrated else "config/planning.yaml"
    print(f"scale {config.scale}; rates: {source}")
    print("\n".join([*table(made, cluster), *memory_lines(peaks)]))


def _calibrate(workload: "Workload", root: Path) -> None:
    """Fit the rates of this machine to what jobs of the scale took, and keep them."""
    from geomem.planning.rates import calibrate, configured_rates, measured_here, write_calibration

    scale = workload.config.scale
    measured = measured_here(workload, root / BENCHMARKS)
    if not measured:
        raise InputError(f"{root / BENCHMARKS} has no jobs of {scale}; run some of it first")
    rates = calibrate(measured, configured_rates(root), scale)
    path = write_calibration(root, rates)
    for device in ("cpu", "gpu"):
        for kind, rate in sorted(getattr(rates, device).items()):
            told = f", {rate.rate:.3g} a second" if rate.rate else ""
            print(f"{device} {kind}: {rate.jobs} jobs, start {rate.start:.1f} s{told}")
    print(f"written to {path}")


def _say(line: str) -> None:
    if sys.stderr.isatty():
        print(line, file=sys.stderr)


def add_commands(commands: Any) -> None:
    """Add `plan` to the `geomem` command."""
    command = job_parser(commands.add_parser("plan", help=plan.__doc__))
    command.add_argument("--all", action="store_true", help="as if nothing were there")
    command.add_argument("--json", action="store_true", help="for programs")
    command.add_argument(
        "--calibrate",
        action="store_true",
        help="fit this machine's rates to benchmarks/jobs of the scale instead",
    )
    command.set_defaults(command=plan)
