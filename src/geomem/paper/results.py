"""Tables of the paper, built from scores."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from geomem.errors import InputError
from geomem.metrics.families.sets import FRECHET_CLIPS
from geomem.metrics.registry import NetworkName, metric_of
from geomem.paper.collect import (
    RESAMPLING_SEED,
    Array,
    ScoreFile,
    ScoreRun,
    Scores,
    clip_interval,
    clip_values,
    distance_interval,
    distance_values,
    known_clips,
    trace,
)
from geomem.paper.coverage import LEAST_COVERAGE, Law, coverage_record, law_of
from geomem.paper.tables import Cell, Column, Direction, Latex, Row, Table, escape_latex
from geomem.settings.evaluation import TableColumn, TableRow
from geomem.settings.jobs import TableJob, TeacherTableJob
from geomem.statistics import (
    ALPHA,
    LEAST_QUARTERS,
    Interval,
    PairedTest,
    interquartile_mean,
    paired_differences,
    paired_tests,
    smallest_p,
)

# By column key and variant.
Tests = dict[tuple[str, str], PairedTest]
DIRECTIONS: dict[str, Direction] = {"higher": "up", "lower": "down", "neither": "none"}
DEPTH: dict[str, Any] = {"group": "depth", "precision": 3}
POSE: dict[str, Any] = {"group": "relative pose", "direction": "down"}
TEACHER_COLUMNS = (
    Column(key="abs_rel", label="AbsRel", direction="down", **DEPTH),
    Column(key="delta_125", label=Latex(r"$\delta<1.25$"), direction="up", **DEPTH),
    Column(key="rotation_deg", label="rotation", unit="deg", precision=2, **POSE),
    Column(key="direction_deg", label="direction", unit="deg", precision=1, **POSE),
    Column(key="translation", label="translation", unit="m", precision=3, **POSE),
)


def score_table(
    name: str,
    settings: TableJob,
    scores: Scores,
    *,
    published: Sequence[Mapping[str, str]] = (),
    blind: Collection[str] = (),
) -> tuple[Table, dict[str, Any]]:
    """Return a table of scores, and the provenance of every cell.

    Args:
        name: Of the table; names its LaTeX label.
        settings: Of the job.
        scores: At least the score files of the rows, columns and seeds.
        published: Numbers of the literature: `source`, `dataset`, `frames`, `method`, `metric`,
            `value`; for columns that ask for them.
        blind: Networks that do not see time: distances of theirs are told to be of frames.

    Raises:
        InputError: If a score file is missing, or a published number is not unique.
    """
    chosen = settings.table
    tests = _tests(settings, scores)
    rows: list[Row] = []
    origin: dict[str, Any] = {}
    used: dict[str, ScoreFile] = {}
    for row in chosen.rows:
        made, origin[row.label], files = _row(row, settings, scores, tests)
        reported = _published_cells(row, chosen.columns, scores, published)
        rows.append(replace(made, cells=made.cells | reported))
        used |= {file.path: file for file in files}
    columns = [made for column in chosen.columns for made in _columns(column, scores, blind)]
    [reference] = [
        made for made, row in zip(rows, chosen.rows, strict=True) if row.variant == chosen.reference
    ]
    floors = [
        made
        for made, row in zip(rows, chosen.rows, strict=True)
        if row.variant in settings.floors and not row.bound
    ]
    held = coverage_record(_laws(settings, scores))
    table = Table(
        label=name,
        caption=_caption(settings, scores),
        columns=columns,
        rows=rows,
        notes=[
            *_notes(settings, scores, tests, blind),
            *_coverage_note(held),
            *(note for floor in floors for note in _unbeaten(floor, rows, columns)),
            *(_better(reference, rows, columns) if tests else []),
        ],
        wide=True,
    )
    return table, {"cells": origin, "coverage": held, **trace(used.values())}


def _row(
    row: TableRow, settings: TableJob, scores: Scores, tests: Tests
) -> tuple[Row, dict[str, Any], list[ScoreFile]]:
    """Return a row, the record of each of its cells, and the score files it was read from."""
    cells: dict[str, Cell] = {}
    records: dict[str, Any] = {}
    used: list[ScoreFile] = []
    for column in settings.table.columns:
        key = column_key(column, scores)
        runs = runs_of(row, column, settings, scores)
        interval = _interval(column, runs, settings)
        if interval is None:
            continue
        metric = metric_of(column.metric)
        kind = "sets" if metric.level == "set" else "per_clip"
        files = [file for run in runs if (file := run.having(kind, column.metric))]
        test = tests.get((key, row.variant))
        cells[key] = cell_of(interval, test, cap=metric.cap)
        records[key] = _cell_record(cells[key], test, files)
        values = clip_values(runs, column.metric) if kind == "per_clip" else None
        if values is not None and values.size >= LEAST_QUARTERS:
            records[key]["interquartile_mean"] = digits(interquartile_mean(values))
        used += files
    made = Row(
        label=row.label,
        cells=cells,
        bound=row.bound or row.variant in settings.floors,
        rule_above=row.rule_above,
    )
    return made, records, used


def column_key(column: TableColumn, scores: Scores) -> str:
    """Return a column's name in the CSV: protocol and metric, networks by their own names."""
    network = scores.network(column.protocol, column.metric)
    return f"{column.protocol}_{network.key if network else column.metric}"


def teacher_table(settings: TeacherTableJob, metrics: dict[str, Any]) -> Table:
    """Return the table of the teacher's errors beside predictions that know nothing.

    Args:
        settings: Of the job.
        metrics: What `geomem.teacher evaluate` measured.
    """
    blind = metrics["depth"]["mean_depth"] | metrics["pose"]["identity"]
    known = metrics["depth"]["teacher"] | metrics["pose"]["teacher"]
    return Table(
        label="teacher_table",
        caption=sentences(
            "The frozen teacher on held-out clips, against the mean depth and the identity pose.",
            f"Scale {settings.scale}, {metrics['clips']} clips, {metrics['frames']} frames of "
            f"each, {metrics['stride']} apart.",
            stands_in(settings.stands_in, []),
        ),
        columns=TEACHER_COLUMNS,
        rows=[
            Row(label="mean depth, identity pose", cells=_plain_cells(blind)),
            Row(label=f"teacher ({settings.teacher})", cells=_plain_cells(known)),
        ],
        corner="Prediction",
    )


def runs_of(
    row: TableRow, column: TableColumn, settings: TableJob, scores: Scores
) -> list[ScoreRun]:
    """Return the runs behind a cell, of every seed; a floor has one."""
    seeds = settings.seeds[:1] if row.variant in settings.floors else settings.seeds
    return scores.of(row.variant, column.protocol, seeds)


def _interval(column: TableColumn, runs: list[ScoreRun], settings: TableJob) -> Interval | None:
    known_as, resamples = metric_of(column.metric), settings.bootstrap
    if known_as.level == "set":
        return distance_interval(runs, known_as.name, resamples=resamples)
    values = clip_values(runs, known_as.name)
    if values is None:
        return None
    return clip_interval(values, resamples=resamples).within(known_as.least, known_as.most)


def _tests(settings: TableJob, scores: Scores) -> Tests:
    """Test every trained row against the reference in every column; one family for Holm."""
    differences: dict[tuple[str, str], Array] = {}
    for column in settings.table.columns:
        of_set = metric_of(column.metric).level == "set"
        values = {} if of_set else _column_values(column, settings, scores)
        reference = values.pop(settings.table.reference, None)
        if reference is not None:
            key = column_key(column, scores)
            differences |= {(key, v): paired_differences(x, reference) for v, x in values.items()}
    return paired_tests(differences, seed=RESAMPLING_SEED)


def _column_values(column: TableColumn, settings: TableJob, scores: Scores) -> dict[str, Array]:
    """Return the values (S, C) of the trained rows that know a column, by variant."""
    values, clips = {}, {}
    for row in settings.table.rows:
        if row.variant not in settings.floors:
            runs = runs_of(row, column, settings, scores)
            found = clip_values(runs, column.metric)
            if found is not None:
                values[row.variant] = found
                clips[row.variant] = known_clips(runs, column.metric)
    # other clips than the reference's are no pairs
    paired = clips.get(settings.table.reference)
    return {variant: found for variant, found in values.items() if clips[variant] == paired}


def _laws(settings: TableJob, scores: Scores) -> dict[str, Law]:
    """Return by column what the values behind its intervals are like."""
    laws = {}
    for column in settings.table.columns:
        of_set = metric_of(column.metric).level == "set"
        values = distance_values if of_set else clip_values
        rows = [runs_of(row, column, settings, scores) for row in settings.table.rows]
        found = [of for runs in rows if (of := values(runs, column.metric)) is not None]
        if law := law_of(found):
            laws[column_key(column, scores)] = law
    return laws


def cell_of(
    interval: Interval, test: PairedTest | None = None, *, cap: float | None = None
) -> Cell:
    """Return an interval, with bounds where they are known, as a cell.

    Args:
        interval: The value.
        test: Its test against the reference.
        cap: The metric's value of a perfect copy; a mean that reaches it is shown as exact.
    """
    known = math.isfinite(interval.low)
    return Cell(
        exact=cap is not None and interval.value >= cap,
        value=digits(interval.value),
        low=digits(interval.low) if known else None,
        high=digits(interval.high) if known else None,
        dagger=test is not None and test.significant,
    )


def _cell_record(cell: Cell, test: PairedTest | None, files: list[ScoreFile]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "value": cell.value,
        "low": cell.low,
        "high": cell.high,
        "scores": [file.path for file in files],
    }
    if test is not None:
        record["test"] = {"difference": digits(test.difference), "p_holm": digits(test.p_holm)}
    return record


def _sees_no_time(column: TableColumn, scores: Scores, blind: Collection[str]) -> bool:
    """Return whether a column's distance of videos is of a network that does not see time."""
    used = scores.sees_with(column.protocol, column.metric)
    return metric_of(column.metric).of_videos and not used.isdisjoint(blind)


def _columns(column: TableColumn, scores: Scores, blind: Collection[str]) -> list[Column]:
    """Return a column, and beside it the one of published numbers where it asks for one."""
    metric, network = metric_of(column.metric), scores.network(column.protocol, column.metric)
    if network is not None and _sees_no_time(column, scores, blind):
        network = replace(network, heading=(*network.heading, "of frames"))
    made = Column(
        key=column_key(column, scores),
        label=metric.label if network is None else heading(network),
        direction=DIRECTIONS[metric.better],
        precision=metric.precision if column.precision is None else column.precision,
        unit=metric.unit,
        group=column.title or column.protocol.replace("_", " "),
    )
    asked = column.published
    if not asked:
        return [made]
    of_frames = f"{asked.frames} frames"
    label = Latex(rf"\shortstack{{{escape_latex(asked.metric)}\\published,\\{of_frames}}}")
    key = f"{made.key}_published"
    return [made, Column(key=key, label=label, precision=made.precision, group=made.group)]


def heading(network: NetworkName) -> Latex:
    """Return the heading of a column that is named by a network; a stand-in bears its own name."""
    lines = [_with_accents(line) for line in network.heading]
    return Latex(lines[0] if len(lines) == 1 else r"\shortstack{" + r"\\".join(lines) + "}")


def _with_accents(text: str) -> Latex:
    return Latex(escape_latex(text).replace("Frechet", r"Fr\'echet"))


def _published_cells(
    row: TableRow,
    columns: Sequence[TableColumn],
    scores: Scores,
    published: Sequence[Mapping[str, str]],
) -> dict[str, Cell]:
    """Return what the literature reports of a row's method, by column key."""
    cells = {}
    for column in columns:
        asked = column.published
        if not (asked and row.published):
            continue
        wanted = {**asked.model_dump(), "method": row.published}
        values = [n["value"] for n in published if all(n[k] == v for k, v in wanted.items())]
        if len(values) > 1:
            raise InputError(f"config/published_numbers.csv has {len(values)} numbers of {wanted}")
        if values:
            cells[f"{column_key(column, scores)}_published"] = Cell(value=float(values[0]))
    return cells


def _caption(settings: TableJob, scores: Scores) -> Latex:
    columns = settings.table.columns
    protocols = list(dict.fromkeys(column.protocol for column in columns))
    shared = {protocol: scores.protocol(protocol) for protocol in protocols}
    networks = [scores.network(column.protocol, column.metric) for column in columns]
    stand_ins = sorted({network.stands_for for network in networks if network} - {""})
    seeds = len(settings.seeds)
    return sentences(
        settings.table.caption,
        f"Scale {settings.scale}: {_lengths(columns, shared)}; {seeds} training "
        f"seed{'s' * (seeds > 1)}; teacher {settings.teacher}.",
        stands_in(settings.stands_in, stand_ins),
    )


def _lengths(columns: Sequence[TableColumn], shared: Mapping[str, Any]) -> str:
    """Say how many clips of each protocol there are and how long they are."""
    titled = {column.protocol for column in columns if column.title}
    of_length: dict[tuple[int, int], list[str]] = {}
    for protocol, content in shared.items():
        # what a heading tells in other words is counted alone
        name = "" if protocol in titled else f" {protocol.replace('_', ' ')}"
        shown = of_length.setdefault((content["frames"], content["context"]), [])
        shown += [] if (told := f"{len(content['clips'])}{name}") in shown else [told]
    return ", ".join(
        f"{' and '.join(clips)} clips of {frames} frames, {context} of them given"
        for (frames, context), clips in of_length.items()
    )


def stands_in(general: str, networks: list[str]) -> Latex:
    """Return one sentence on what stands in for what, of the scale and of networks."""
    sentence = escape_latex(general[:1].upper() + general[1:])
    return Latex("; ".join([sentence, *map(_with_accents, networks)]) + ".")


def _notes(settings: TableJob, scores: Scores, tests: Tests, blind: Collection[str]) -> list[str]:
    return [
        sentences(
            "Means over clips and seeds of the generated frames alone; PSNR pools the squared "
            "error of a clip, revisit PSNR is a mean over frames.",
            interval_note(settings.bootstrap),
            *_set_notes(settings, scores, blind),
            *_left_out_note(settings),
            _test_note(settings, scores, tests),
            "Bold: best, underlined: second; rows in italics are floors and bounds and are not "
            "ranked.",
        )
    ]


def _left_out_note(settings: TableJob) -> list[str]:
    """Say which columns a scale leaves out."""
    names = ", ".join(name.replace("_", " ") for name in settings.table.left_out)
    return [f"Left out at this scale: {names}."] if names else []


def _coverage_note(held: Mapping[str, Any]) -> list[str]:
    """Say of intervals that hold less often than they should."""
    if not held or held["least"] >= LEAST_COVERAGE:
        return []
    worst, share = held["columns"][held["column"]], f"{100 * held['least']:.0f} %"
    return [
        f"Of 95 % intervals, {share} hold the true mean in simulations that are like the worst "
        f"column ({worst['clips']} clips, skewness {worst['skewness']:g})."
    ]


def _unbeaten(floor: Row, rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """Say in which columns no method is better than a floor; exact cells are no contest."""
    methods = [row for row in rows if not row.bound]
    names = []
    for column in columns:
        cell, key = floor.cells.get(column.key), column.key
        others = [row.cells[key].value for row in methods if key in row.cells]
        if cell is None or cell.exact or not others or column.direction == "none":
            continue
        sign = 1 if column.direction == "up" else -1
        if max(sign * value for value in others) <= sign * cell.value:
            names.append(f"{escape_latex(column.group)} {heading_in_one_line(column.label)}")
    label, listed = escape_latex(floor.label), ", ".join(names).removesuffix(".")
    return [Latex(f"No method beats the floor ``{label}'' in {listed}.")] if names else []


def _better(reference: Row, rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """Say which methods are better than the reference, and where, by the tests of the table."""
    found = []
    for row in rows:
        names = [
            f"{escape_latex(column.group)} {heading_in_one_line(column.label)}"
            for column in columns
            if not row.bound and _beats(row.cells.get(column.key), reference, column)
        ]
        if names:
            found.append(f"``{escape_latex(row.label)}'' ({', '.join(names)})")
    label = escape_latex(reference.label)
    if not found:
        return [Latex(f"No method is better than ``{label}'' beyond chance.")]
    return [Latex(f"Better than ``{label}'' beyond chance: {'; '.join(found)}.")]


def _beats(cell: Cell | None, reference: Row, column: Column) -> bool:
    """Return whether a cell that differs significantly differs to the better."""
    other = reference.cells.get(column.key)
    if cell is None or other is None or not cell.dagger or column.direction == "none":
        return False
    return (cell.value > other.value) == (column.direction == "up")


def heading_in_one_line(heading: str) -> str:
    r"""Return a heading as LaTeX without the \shortstack that lays it out in lines."""
    inner = escape_latex(heading).removeprefix(r"\shortstack{").removesuffix("}")
    return inner.replace(r"-\\", "-").replace(r"\\", " ")


def interval_note(resamples: int) -> Latex:
    """Return one sentence on what the brackets of a table are."""
    return Latex(
        r"Brackets: 95\,\% studentised interval over clips and seeds (each bound the farther of "
        rf"Student's $t$ and bootstrap-$t$, {resamples} resamples; seeds by the two-way layout)."
    )


def _set_notes(settings: TableJob, scores: Scores, blind: Collection[str]) -> list[str]:
    """Say how distances between sets are made, and why some are not there."""
    columns = settings.table.columns
    sets = [column for column in columns if metric_of(column.metric).level == "set"]
    short = any(
        len(scores.protocol(column.protocol)["clips"]) < FRECHET_CLIPS
        for column in sets
        if "frechet" in column.metric
    )
    notes = []
    if sets:
        notes.append("Distances between sets: intervals of jackknife pseudovalues by clip.")
    if any(_sees_no_time(column, scores, blind) for column in sets):
        notes.append(
            "Distances of frames are of a network that fails the content-bias test: they do not "
            "see time, and are none of videos."
        )
    if short:
        notes.append(Latex(rf"No Fr\'echet distance of fewer than {FRECHET_CLIPS} clips."))
    return notes


def _test_note(settings: TableJob, scores: Scores, tests: Tests) -> Latex:
    """Say what a dagger means, and how small a p-value the clips allow."""
    chosen = settings.table
    if not tests:
        return Latex("Nothing is tested.")
    reference = next(row.label for row in chosen.rows if row.variant == chosen.reference)
    protocols = {c.protocol for c in chosen.columns if metric_of(c.metric).level != "set"}
    clips = max(len(scores.protocol(protocol)["clips"]) for protocol in protocols)
    least = min(len(tests) * smallest_p(clips), 1.0)
    reach = (
        f"with at most {clips} clips no corrected $p$ can lie below {least:.2g}"
        + ", so that no mark is possible" * (least >= ALPHA)
    )
    return Latex(
        rf"$^{{\dagger}}$: differs from ``{escape_latex(reference)}'' by a two-sided sign-flip "
        rf"test paired by clip (seeds averaged), $p<{ALPHA}$ after one Holm correction over the "
        rf"{len(tests)} tests of the table; {reach}. Distances between sets are not tested."
    )


def _plain_cells(values: dict[str, float]) -> dict[str, Cell]:
    return {name: Cell(value=digits(value)) for name, value in values.items()}


def sentences(*parts: str) -> Latex:
    """Return sentences of text or `Latex` as one."""
    return Latex(" ".join(escape_latex(part) for part in parts))


def digits(value: float) -> float:
    """Return a number with six digits."""
    # What lies beyond differs from machine to machine.
    return float(f"{value:.6g}")
