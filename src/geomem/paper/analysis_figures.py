"""Figures of what features know: probes by layer, and decoded point clouds."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from geomem.paper.analysis import WAYS, Analyses, numbered
from geomem.paper.clouds import Cloud, cloud_figure
from geomem.paper.collect import clip_interval
from geomem.paper.figures import CurveBand, Panel, panels_figure
from geomem.settings.jobs import FigureJob


def probe_curves(settings: FigureJob, analyses: Analyses) -> tuple[Figure, dict[str, Any]]:
    """Return what probes read by layer of the teacher and by state of the video models.

    Args:
        settings: Of the job, for probes.
        analyses: Records of the teacher and of the variants of all rows and seeds.
    """
    assert settings.analysis is not None
    metrics = {
        "depth_r2": "depth R$^2$",
        "rotation_deg": "rotation [deg]",
        "direction_deg": "direction [deg]",
        f"pck_{settings.analysis.pck_pixels[0]}": "right matches",
    }
    panels = [
        [
            Panel(title="layers of VGGT", y_label=label, curves=_layers(settings, analyses, key)),
            Panel(title="states of video models", y_label=label,
                  curves=_states(settings, analyses, key)),
        ]
        for key, label in metrics.items()
    ]  # fmt: skip
    figure = panels_figure(panels, x_label="layer or state", legend_columns=4)
    return figure, {"analyses": analyses.paths}


def _layers(settings: FigureJob, analyses: Analyses, metric: str) -> dict[str, CurveBand]:
    numbers = numbered(analyses.teacher, "layer")
    names = [f"layer{i}" for i in numbers]
    controls = _controls(settings, analyses, metric, numbers)
    return controls | {"VGGT": _band(settings, analyses, [analyses.teacher], names, metric)}


def _states(settings: FigureJob, analyses: Analyses, metric: str) -> dict[str, CurveBand]:
    curves: dict[str, CurveBand] = {}
    for row in settings.of_analysis.rows:
        records = analyses.of(row.variant, settings.seeds)
        numbers = numbered(records[0], "state")
        curves = curves or _controls(settings, analyses, metric, numbers)
        names = [f"state{i}" for i in numbers]
        curves[row.label] = _band(settings, analyses, records, names, metric)
    return curves


def _controls(
    settings: FigureJob, analyses: Analyses, metric: str, numbers: list[int]
) -> dict[str, CurveBand]:
    shown = {"nothing": "trivial", "rgb": "RGB patches", "encoder": "image encoder (2D)"}
    x = np.array(numbers, dtype=np.float64)
    return {
        label: CurveBand(
            x=x,
            value=np.full(len(x), analyses.probe_values([analyses.teacher], source, metric).mean()),
        )
        for source, label in shown.items()
    }


def _band(
    settings: FigureJob,
    analyses: Analyses,
    records: list[dict[str, Any]],
    names: list[str],
    metric: str,
) -> CurveBand:
    assert settings.bootstrap is not None
    intervals = [
        clip_interval(analyses.probe_values(records, name, metric), resamples=settings.bootstrap)
        for name in names
    ]
    return CurveBand(
        x=np.arange(len(names), dtype=np.float64),
        value=np.array([interval.value for interval in intervals]),
        low=np.array([interval.low for interval in intervals]),
        high=np.array([interval.high for interval in intervals]),
    )


def clouds(settings: FigureJob, analyses: Analyses) -> tuple[Figure, dict[str, Any]]:
    """Return the point clouds of one window: the truth, VGGT's, and those decoded from states.

    A variant's cloud comes by its own projector where it has one, else by the ridge.
    """
    labels = {"truth": "truth", "teacher": "VGGT", "path": "aligned layer\nalone"}
    given = analyses.clouds(None, 0)
    shown = {label: _cloud(given, name) for name, label in labels.items()}
    for row in settings.of_analysis.rows:
        found = analyses.clouds(row.variant, settings.seeds[0])
        way = "projector" if "projector.points" in found else "ridge"
        shown[f"{row.label}\n({WAYS[way]})".replace(", ", ",\n")] = _cloud(found, way)
    assert settings.analysis is not None
    clip = analyses.teacher["clips"][settings.analysis.shown_clip]
    record = {"analyses": analyses.paths, "clip": clip}
    return cloud_figure(shown), record


def _cloud(tensors: dict[str, Any], name: str) -> Cloud:
    return Cloud(
        points=tensors[f"{name}.points"].numpy(), colours=tensors[f"{name}.colours"].numpy()
    )
