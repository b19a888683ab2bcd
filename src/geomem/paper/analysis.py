"""Tables of what features know, built from the records of the analysis.

Legend: S seeds, C test clips.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geomem.errors import InputError
from geomem.formats import read_record, read_tensors, sha256_file
from geomem.paper.collect import Array, clip_interval
from geomem.paper.results import cell_of, interval_note, sentences, stands_in
from geomem.paper.tables import Cell, Column, Row, Table
from geomem.settings.jobs import AnalysisTableJob

Found = dict[str, Any]

CONTROLS = {
    "nothing": "mean depth, identity pose, same place",
    "place": "place of the patch alone",
    "rgb": "RGB patches",
    "encoder": "2D teacher: image encoder of VGGT",
}
BOUNDS = {
    "mean_depth": "mean depth",
    "teacher": "VGGT, all its layers",
    "path": "VGGT, aligned layer alone",
}
WAYS = {"ridge": "ridge", "projector": "own projector"}
DECODING_COLUMNS = (
    Column(key="abs_rel", label="AbsRel", direction="down", precision=3, group="depth"),
    Column(key="delta_125", label="share < 1.25", direction="up", precision=3, group="depth"),
    Column(key="chamfer_depth", label="of depth", unit="m", direction="down", group="Chamfer"),
    Column(key="chamfer_points", label="of points", unit="m", direction="down", group="Chamfer"),
)


class Analyses:
    """Records of the analysis: the teacher's, and those of variants by seed."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Read the records.

        Raises:
            InputError: If one is damaged, the teacher's is missing, or they differ in clips or
                settings, so that their numbers must not share a table.
        """
        self.paths = {path.as_posix(): sha256_file(path) for path in paths}
        self._records: dict[tuple[str, int] | None, Found] = {}
        self._places: dict[tuple[str, int] | None, Path] = {}
        for path in map(Path, self.paths):
            record = read_record(path, "clips", "provenance")
            key = (record["variant"], record["seed"]) if "variant" in record else None
            self._records[key], self._places[key] = record, path
        if None not in self._records:
            raise InputError("the record of the teacher's features was not given")
        self.teacher = self._records[None]
        for key, record in self._records.items():
            same = _analysis(record) == _analysis(self.teacher)
            if record["clips"] != self.teacher["clips"] or not same:
                raise InputError(
                    f"{self._places[key]} is of other clips or settings than "
                    f"{self._places[None]}; analyse both again to compare"
                )

    def of(self, variant: str, seeds: Sequence[int]) -> list[Found]:
        """Return the records of a variant in the order of seeds; InputError if one is missing."""
        missing = [seed for seed in seeds if (variant, seed) not in self._records]
        if missing:
            raise InputError(f"no analysis of {variant}, seeds {missing} was given")
        return [self._records[variant, seed] for seed in seeds]

    def clouds(self, variant: str | None, seed: int) -> dict[str, Any]:
        """Return the tensors of the clouds beside a record."""
        key = None if variant is None else (variant, seed)
        path = self._places[key].with_suffix(".safetensors")
        if sha256_file(path) != self._records[key]["clouds"]:
            raise InputError(f"{path} is not the file its record was written with; make it again")
        return read_tensors(path)[0]

    def probe_values(self, records: list[Found], source: str, metric: str) -> Array:
        """Return the values (S, C) of a probe, of the clips in which the metric means something.

        `depth_r2` is 1 - e / E, with a clip's squared error e and the mean E over clips of the
        error of the fitting windows' mean depth: its mean is the share of that error that is gone.
        """
        if metric != "depth_r2":
            return _known([record["probes"][source]["values"][metric] for record in records])
        plain = np.mean(self.teacher["probes"]["nothing"]["values"]["depth_error"])
        errors = [record["probes"][source]["values"]["depth_error"] for record in records]
        return 1 - _known(errors) / plain


def _analysis(record: Found) -> Any:
    return record["provenance"]["settings"]["analysis"]


def _known(rows: list[list[float | None]]) -> Array:
    values = np.array(rows, dtype=np.float64)  # None becomes NaN
    return values[:, np.isfinite(values).all(0)]


def probe_metrics(settings: AnalysisTableJob) -> list[Column]:
    """Return the columns of the probes."""
    radii = settings.analysis.pck_pixels
    matches = [
        Column(key=f"pck_{r}", label=f"within {r} px", direction="up", group="matches")
        for r in radii
    ]
    pose: Found = {"group": "relative pose", "unit": "deg", "direction": "down", "precision": 1}
    return [
        Column(key="depth_abs_rel", label="AbsRel", direction="down", precision=3, group="depth"),
        Column(key="depth_r2", label="R2", direction="up", group="depth"),
        Column(key="rotation_deg", label="rotation", **pose),
        Column(key="direction_deg", label="direction", **pose),
        *matches,
    ]


def analysis_tables(
    settings: AnalysisTableJob, analyses: Analyses
) -> tuple[tuple[Table, Table], dict[str, Any]]:
    """Return the table of probes, the table of decoding, and what they were made from.

    Args:
        settings: Of the job.
        analyses: Records of the teacher and of the variants of all rows and seeds.

    Raises:
        InputError: If a record is missing.
    """
    both = _probe_table(settings, analyses), _decoding_table(settings, analyses)
    return both, {"analyses": analyses.paths}


def _probe_table(settings: AnalysisTableJob, analyses: Analyses) -> Table:
    columns = probe_metrics(settings)

    def row(records: list[Found], source: str, label: str, **options: bool) -> Row:
        values = {c.key: analyses.probe_values(records, source, c.key) for c in columns}
        return Row(label=label, cells=_cells(values, settings), **options)

    teacher, level = [analyses.teacher], settings.analysis.level
    blind = ("nothing", "place")
    rows = [row(teacher, s, label, bound=s in blind) for s, label in CONTROLS.items()]
    layers = numbered(analyses.teacher, "layer")
    rows += [row(teacher, f"layer{i}", f"VGGT, layer {i}", rule_above=i == 0) for i in layers]
    for number, shown in enumerate(settings.rows):
        records = analyses.of(shown.variant, settings.seeds)
        label = f"video model, {shown.label}"
        rows.append(row(records, f"state{level}", label, rule_above=number == 0))
    moving = analyses.probe_values(teacher, "nothing", "direction_deg").shape[1]
    return Table(
        label="feature_analysis",
        caption=sentences(
            "What one linear map reads from features: depth of a patch, relative pose of two "
            "frames, matches between them.",
            _scene(settings, analyses),
            stands_in(settings.stands_in, []),
        ),
        columns=columns,
        rows=rows,
        notes=[
            sentences(
                f"Video models: state {level}, noise at time {settings.analysis.noise_time}, "
                "cameras withheld. AbsRel after the median of a window is aligned; R2 against the "
                "mean depth of the fitting windows; direction of motion in the "
                f"{moving} clips that move; matches are nearest neighbours. Rows in italics know "
                "nothing of the images and are not ranked.",
                interval_note(settings.bootstrap),
            )
        ],
        corner="Features",
        wide=True,
    )


def _decoding_table(settings: AnalysisTableJob, analyses: Analyses) -> Table:
    def row(records: list[Found], source: str, label: str, **options: bool) -> Row:
        found = [record["decoding"][source]["values"] for record in records]
        values = {c.key: _known([v[c.key] for v in found]) for c in DECODING_COLUMNS}
        return Row(label=label, cells=_cells(values, settings), **options)

    rows = [row([analyses.teacher], s, label, bound=True) for s, label in BOUNDS.items()]
    for way, name in WAYS.items():
        first = len(rows)
        for shown in settings.rows:
            records = analyses.of(shown.variant, settings.seeds)
            if way in records[0]["decoding"]:
                label = f"{shown.label}: {name}"
                rows.append(row(records, way, label, rule_above=len(rows) == first))
    return Table(
        label="feature_decoding",
        caption=sentences(
            "Depth and points that the heads of VGGT decode from hidden states of video models.",
            _scene(settings, analyses),
            stands_in(settings.stands_in, []),
        ),
        columns=DECODING_COLUMNS,
        rows=rows,
        notes=[
            sentences(
                "Each window is scaled to the true median first; distances in metres, of depths "
                "lifted by the given cameras and of the point head. Rows in italics are bounds.",
                interval_note(settings.bootstrap),
            )
        ],
        corner="Decoded from",
        wide=True,
    )


def _cells(values: dict[str, Array], settings: AnalysisTableJob) -> dict[str, Cell]:
    cells = {}
    for key, found in values.items():
        if found.size:
            cells[key] = cell_of(clip_interval(found, resamples=settings.bootstrap))
    return cells


def _scene(settings: AnalysisTableJob, analyses: Analyses) -> str:
    analysis, seeds = settings.analysis, len(settings.seeds)
    return (
        f"Scale {settings.scale}: fitted on {analyses.teacher['fit_windows']} windows, measured "
        f"on {len(analyses.teacher['clips'])} windows of {analysis.frames} frames, "
        f"{analysis.stride} apart, from other scenes; {seeds} training seed{'s' * (seeds > 1)}; "
        f"teacher {settings.teacher}."
    )


def numbered(record: Found, kind: str) -> list[int]:
    """Return the numbers of the layers or states of a record, rising."""
    names = [name for name in record["probes"] if name.startswith(kind)]
    return sorted(int(name.removeprefix(kind)) for name in names)
