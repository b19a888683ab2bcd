"""What the rows of a table cost: parameters, training, network evaluations, time."""

import csv
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geomem.diffusion.rollout_plans import plan_rollout
from geomem.formats import read_json
from geomem.paper.results import digits, sentences
from geomem.paper.tables import Cell, Column, Latex, Row, Table
from geomem.settings.jobs import CostsJob, MeasuredJob, MethodJob, RolloutJob

HOUR = 3600.0
TIMES = {"seconds": "s", "cpu_seconds": "cpu_time"}


def measured_costs(
    settings: MeasuredJob, checkpoints: Sequence[Path], benchmarks: Path
) -> dict[str, Any]:
    """Return `machine` (its processor) and by variant `parameters`, and the times where known.

    Args:
        settings: Of the job.
        checkpoints: Records of the variants' checkpoints, in their order.
        benchmarks: What jobs took, by rule (`geomem.launch`). A training that was done elsewhere
            has none here; of one that was resumed they tell the last attempt.
    """
    found: dict[str, Any] = {}
    for name, path in zip(settings.variants, checkpoints, strict=True):
        record = read_json(path)
        found[name] = {"parameters": sum(record["parameters"].values())}
        job = f"{settings.scale}/{name}/{path.parent.name}.tsv"
        if (benchmark := benchmarks / "train_variant" / job).is_file():
            with benchmark.open(encoding="utf-8", newline="") as lines:
                [taken] = csv.DictReader(lines, delimiter="\t")
            found[name] |= {key: round(float(taken[column]), 1) for key, column in TIMES.items()}
    return {"machine": processor(), "variants": found}


def processor() -> str:
    """Return the name of this machine's processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def evaluations(method: MethodJob, job: RolloutJob) -> int | None:
    """Return how often a network runs to make a clip; None where none does."""
    how = job.sampling
    if how is None:
        return None
    plan = plan_rollout(
        job.frames,
        window=how.window,
        keyframe_density=how.keyframe_density,
        context=job.context,
        kept=how.kept,
    )
    # guidance on a memory runs every branch with and without it
    twice = 1 if how.memory_guidance in (None, 0, 1) else 2
    stages = [(window, how.keyframes) for window in plan.keyframe_windows]
    stages += [(window, how.interpolation) for batch in plan.interpolation for window in batch]
    return sum(
        method.spec.evaluations(
            method.settings,
            generated=len(window.generated),
            steps=how.steps,
            branches=twice * guidance.branches,
        )
        for window, guidance in stages
    )


def costs_table(settings: CostsJob, measured: Mapping[str, Any]) -> Table:
    """Return the table of costs.

    Args:
        settings: Of the job.
        measured: What `measured_costs` returned.
    """
    found = measured["variants"]
    gpus = any(row.gpus for row in settings.rows)
    columns = [
        Column(key="parameters", label="parameters", unit="M"),
        Column(key="steps", label="steps", precision=0),
        Column(key="windows", label="windows", precision=0),
        Column(key="hours", label="GPU-hours" if gpus else "CPU-hours"),
        Column(key="frames", label=Latex(r"\shortstack{frames\\at once}"), precision=0),
        *(
            Column(
                key=f"evaluations_{name}",
                label=Latex(rf"\shortstack{{evaluations,\\{frames} frames}}"),
                precision=0,
            )
            for name, frames in settings.protocols.items()
        ),
    ]
    rows = []
    for row in settings.rows:
        trained, cells = found.get(row.weights, {}), dict[str, float]()
        if "parameters" in trained:
            cells["parameters"] = trained["parameters"] / 1e6
        if row.steps and row.batch:
            cells |= {"steps": row.steps, "windows": row.steps * row.batch}
            # beside other work a CPU's time is less than the clock's
            if row.gpus and "seconds" in trained:
                cells["hours"] = trained["seconds"] * row.gpus / HOUR
            elif "cpu_seconds" in trained:
                cells["hours"] = trained["cpu_seconds"] / HOUR
        for name, job in row.rollouts.items():
            if job.sampling:
                beside = job.memory.most if job.memory and job.memory.spec.form == "frames" else 0
                cells["frames"] = job.sampling.window + beside
            if (count := evaluations(row.method, job)) is not None:
                cells[f"evaluations_{name}"] = count
        shown = {key: Cell(value=digits(value)) for key, value in cells.items()}
        rows.append(Row(label=row.label, cells=shown, rule_above=row.rule_above))
    notes = [
        "Steps and windows are of the row's own training, beyond the weights that it starts from; "
        "frames at once are those of a window, with raw context beside it; evaluations are runs of "
        "the network on a window of one clip, all versions counted that guidance composes."
    ]
    if not gpus:
        notes += [f"Hours of a core, of the attempt that finished, on {measured['machine']}."]
    return Table(
        label="costs_table",
        caption=sentences("What each method costs."),
        columns=columns,
        rows=rows,
        notes=[sentences(note) for note in notes],
        wide=True,
    )
