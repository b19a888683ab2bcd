"""Tables of the paper, built from scores."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from geomem.formats import InputError, digest
from geomem.paper.collect import (
    BOOTSTRAP_SEED,
    SETS,
    Array,
    ScoreFile,
    Scores,
    clip_interval,
    clip_values,
    distance_interval,
    trace,
)
from geomem.paper.tables import Cell, Column, Direction, Latex, Row, Table, escape_latex
from geomem.statistics import Interval, PairedTest, paired_tests

Settings = dict[str, Any]

# Headings; a stand-in never bears the name of what it stands for.
NETWORK_HEADINGS = {
    "lpips": "LPIPS",
    "efficientnet_lite0_distance": Latex(r"\shortstack{EfficientNet-\\Lite0 dist.}"),
    "fvd": "FVD",
    "frechet_efficientnet_lite0": Latex(r"\shortstack{EfficientNet-\\Lite0 Fr\'echet}"),
}
STANDS_FOR = {
    "efficientnet_lite0_distance": "a distance of EfficientNet-Lite0 features for LPIPS",
    "frechet_efficientnet_lite0": Latex(
        r"a Fr\'echet distance of EfficientNet-Lite0 features for FVD"
    ),
}
DIRECTIONS: dict[str, Direction] = {"higher": "up", "lower": "down"}
DEPTH: Settings = {"group": "depth", "precision": 3}
POSE: Settings = {"group": "relative pose", "direction": "down"}
TEACHER_COLUMNS = (
    Column(key="abs_rel", label="AbsRel", direction="down", **DEPTH),
    Column(key="delta_125", label=Latex(r"$\delta<1.25$"), direction="up", **DEPTH),
    Column(key="rotation_deg", label="rotation", unit="deg", precision=2, **POSE),
    Column(key="direction_deg", label="direction", unit="deg", precision=1, **POSE),
    Column(key="translation", label="translation", unit="m", precision=3, **POSE),
)


def score_table(
    name: str,
    settings: Settings,
    scores: Scores,
    checkpoints: Iterable[Path],
    *,
    published: Sequence[Mapping[str, str]] = (),
) -> tuple[Table, dict[str, Any]]:
    """Return a table of scores, and the provenance of every cell.

    Args:
        name: Of the table; names its LaTeX label.
        settings: `Config.table_settings`.
        scores: At least the score files of the rows, columns and seeds.
        checkpoints: `checkpoint.json` of every run behind them.
        published: Numbers of the literature: `source`, `dataset`, `frames`, `method`, `metric`,
            `value`; for columns that ask for them.

    Raises:
        InputError: If a score file or checkpoint is missing, or a published number is not unique.
    """
    chosen = settings["table"]
    tests = {column_key(c, scores): _tests(c, settings, scores) for c in chosen["columns"]}
    rows: list[Row] = []
    origin: dict[str, Any] = {}
    used: dict[str, ScoreFile] = {}
    for row in chosen["rows"]:
        made, origin[row["label"]], files = _row(row, settings, scores, tests)
        reported = _published_cells(row, chosen["columns"], scores, published)
        rows.append(replace(made, cells=made.cells | reported))
        used |= {file.path: file for file in files}
    table = Table(
        label=name,
        caption=_caption(settings, scores),
        columns=[made for column in chosen["columns"] for made in _columns(column, scores)],
        rows=rows,
        notes=_notes(settings),
        wide=True,
    )
    traced = trace(used.values(), checkpoints, scale=settings["scale"])
    return table, {"settings": digest(settings), "cells": origin, **traced}


def _row(
    row: Settings, settings: Settings, scores: Scores, tests: dict[str, dict[str, PairedTest]]
) -> tuple[Row, dict[str, Any], list[ScoreFile]]:
    """Return a row, the record of each of its cells, and the score files it was read from."""
    cells: dict[str, Cell] = {}
    records: dict[str, Any] = {}
    used: list[ScoreFile] = []
    for column in settings["table"]["columns"]:
        key = column_key(column, scores)
        files = _files(row, column, settings, scores)
        interval = _interval(row, column, files, settings)
        if interval is None:
            continue
        test = None if row["repeat_context"] else tests[key].get(row["variant"])
        cells[key] = _cell(interval, test)
        records[key] = _cell_record(cells[key], test, files)
        used += files
    made = Row(
        label=row["label"],
        cells=cells,
        bound=row["bound"] or row["repeat_context"],
        rule_above=row["rule_above"],
    )
    return made, records, used


def column_key(column: Settings, scores: Scores) -> str:
    """Return a column's name in the CSV: protocol and metric, networks by their own names."""
    labels = scores.protocol(column["protocol"])["labels"]
    return f"{column['protocol']}_{labels.get(column['metric'], column['metric'])}"


def teacher_table(settings: Settings, metrics: Settings) -> Table:
    """Return the table of the teacher's errors beside predictions that know nothing.

    Args:
        settings: `Config.teacher_table_settings`.
        metrics: What `geomem.features evaluate-teacher` measured.
    """
    blind = metrics["depth"]["mean_depth"] | metrics["pose"]["identity"]
    known = metrics["depth"]["teacher"] | metrics["pose"]["teacher"]
    return Table(
        label="teacher_table",
        caption=sentences(
            "The frozen teacher on held-out clips, against the mean depth and the identity pose.",
            f"Scale {settings['scale']}, {metrics['clips']} clips, {metrics['frames']} frames of "
            f"each, {metrics['stride']} apart.",
            stands_in(settings["stands_in"], []),
        ),
        columns=TEACHER_COLUMNS,
        rows=[
            Row(label="mean depth, identity pose", cells=_plain_cells(blind)),
            Row(label=f"teacher ({settings['teacher']})", cells=_plain_cells(known)),
        ],
        corner="Prediction",
    )


def _files(row: Settings, column: Settings, settings: Settings, scores: Scores) -> list[ScoreFile]:
    seeds = settings["seeds"][:1] if row["repeat_context"] else settings["seeds"]
    return scores.of(row["variant"], column["protocol"], seeds)


def _interval(
    row: Settings, column: Settings, files: list[ScoreFile], settings: Settings
) -> Interval | None:
    metric = column["metric"]
    if metric in SETS:
        return None if row["repeat_context"] else distance_interval(files, metric)
    part = "repeat_context" if row["repeat_context"] else "per_clip"
    values = clip_values(files, metric, part=part)
    return None if values is None else clip_interval(values, resamples=settings["bootstrap"])


def _tests(column: Settings, settings: Settings, scores: Scores) -> dict[str, PairedTest]:
    """Test all trained rows of a column against the reference; one family for Holm."""
    table = settings["table"]
    if column["metric"] in SETS:
        return {}
    values: dict[str, Array] = {}
    for row in table["rows"]:
        if not row["repeat_context"]:
            found = clip_values(_files(row, column, settings, scores), column["metric"])
            if found is not None:
                values[row["variant"]] = found
    reference = values.pop(table["reference"], None)
    if reference is None or not values:
        return {}
    return paired_tests(reference, values, seed=BOOTSTRAP_SEED)


def _cell(interval: Interval, test: PairedTest | None) -> Cell:
    known = math.isfinite(interval.low)
    return Cell(
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


def _columns(column: Settings, scores: Scores) -> list[Column]:
    """Return a column, and beside it the one of published numbers where it asks for one."""
    labels = scores.protocol(column["protocol"])["labels"]
    network = labels.get(column["metric"])
    made = Column(
        key=column_key(column, scores),
        label=column["label"] if network is None else NETWORK_HEADINGS[network],
        direction=DIRECTIONS[column["better"]],
        precision=column["precision"],
        unit=column["unit"],
        group=column["protocol"].replace("_", " "),
    )
    asked = column["published"]
    if not asked:
        return [made]
    heading = Latex(rf"\shortstack{{{escape_latex(asked['metric'])}\\published}}")
    key = f"{made.key}_published"
    return [
        made,
        Column(key=key, label=heading, precision=made.precision, group=made.group),
    ]


def _published_cells(
    row: Settings, columns: list[Settings], scores: Scores, published: Sequence[Mapping[str, str]]
) -> dict[str, Cell]:
    """Return what the literature reports of a row's method, by column key."""
    cells = {}
    for column in columns:
        asked = column["published"]
        if not (asked and row["published"]):
            continue
        wanted = {**asked, "method": row["published"]}
        values = [n["value"] for n in published if all(n[k] == v for k, v in wanted.items())]
        if len(values) > 1:
            raise InputError(f"config/published_numbers.csv has {len(values)} numbers of {wanted}")
        if values:
            cells[f"{column_key(column, scores)}_published"] = Cell(value=float(values[0]))
    return cells


def _caption(settings: Settings, scores: Scores) -> Latex:
    columns = settings["table"]["columns"]
    protocols = list(dict.fromkeys(column["protocol"] for column in columns))
    shared = [scores.protocol(protocol) for protocol in protocols]
    clips = " and ".join(
        f"{len(content['clips'])} {protocol.replace('_', ' ')}"
        for protocol, content in zip(protocols, shared, strict=True)
    )
    labels = {shared[0]["labels"].get(column["metric"]) for column in columns}
    stand_ins = [STANDS_FOR[label] for label in sorted(labels - {None}) if label in STANDS_FOR]
    seeds = len(settings["seeds"])
    return sentences(
        settings["table"]["caption"],
        f"Scale {settings['scale']}: {clips} clips of {shared[0]['frames']} frames, "
        f"{shared[0]['context']} of them given; {seeds} training seed{'s' * (seeds > 1)}; "
        f"teacher {settings['teacher']}.",
        stands_in(settings["stands_in"], stand_ins),
    )


def stands_in(general: str, networks: list[str]) -> Latex:
    """Return one sentence on what stands in for what, of the scale and of networks."""
    sentence = escape_latex(general[:1].upper() + general[1:])
    return Latex("; ".join([sentence, *(escape_latex(text) for text in networks)]) + ".")


def _notes(settings: Settings) -> list[str]:
    reference = next(
        row["label"]
        for row in settings["table"]["rows"]
        if row["variant"] == settings["table"]["reference"] and not row["repeat_context"]
    )
    return [
        sentences(
            "Means over clips and seeds of the generated frames alone; PSNR pools the squared "
            "error of a clip, revisit PSNR is a mean over frames.",
            Latex(
                r"Brackets: 95\,\% percentile bootstrap over clips and seeds "
                rf"({settings['bootstrap']} resamples; {settings['set_bootstrap']} for distances "
                r"between sets)."
            ),
            Latex(
                rf"$^{{\dagger}}$: differs from ``{escape_latex(reference)}'' by a two-sided "
                r"sign-flip test paired by clip, Holm-corrected over the rows of a column, "
                r"$p<0.05$ (distances between sets are not tested)."
            ),
            "Bold: best, underlined: second; rows in italics are bounds and are not ranked.",
        )
    ]


def _plain_cells(values: Settings) -> dict[str, Cell]:
    return {name: Cell(value=digits(value)) for name, value in values.items()}


def sentences(*parts: str) -> Latex:
    """Return sentences of text or `Latex` as one."""
    return Latex(" ".join(escape_latex(part) for part in parts))


def digits(value: float) -> float:
    """Return a number with six digits."""
    # What lies beyond differs from machine to machine.
    return float(f"{value:.6g}")
