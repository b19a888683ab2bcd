"""The figure of training curves: histories whose means are known, and what is drawn of them."""

from pathlib import Path

import numpy as np
import pytest

from conftest import EXPERIMENTS, Edit
from geomem.config import load_config
from geomem.dag.graph import Dag
from geomem.errors import InputError
from geomem.formats import sha256_file, write_json
from geomem.paper.figures import save_figure
from geomem.paper.training_curves import POINTS, training_curves
from geomem.settings.jobs import FigureJob

STEPS, SEEDS = 4 * POINTS, (0, 1)
ROWS = [{"variant": "base", "label": "without"}, {"variant": "repa", "label": "with"}]


def settings() -> FigureJob:
    figure = {"kind": "training", "rows": ROWS}
    return FigureJob.model_validate(
        {"figure": figure, "seeds": SEEDS, "floors": (), "contexts": {}}
    )


def write_histories(folder: Path) -> list[Path]:
    """Losses fall by 1 a step from 1000; of every other seed, by 1 from 1010."""
    records = []
    for variant in ("base", "repa"):
        for seed in SEEDS:
            records.append(folder / variant / f"seed{seed}/checkpoint.json")
            content = {"variant": variant, "seed": seed, "provenance": {}}
            records[-1].parent.mkdir(parents=True)
            write_json(records[-1], content)
            names = ["step", *(["align_scale"] if variant == "repa" else []), "loss"]
            lines = [
                ",".join(
                    [str(i + 1), *(["0.5"] if variant == "repa" else []), f"{1000 - i + 10 * seed}"]
                )
                for i in range(STEPS)
            ]
            records[-1].with_name("curves.csv").write_text("\n".join([",".join(names), *lines]))
    return records


def test_points_are_means_over_steps_and_seeds_and_bands_the_seeds(tmp_path: Path) -> None:
    records = write_histories(tmp_path)
    figure, origin = training_curves(settings(), records)
    loss, scale = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["loss", "scale"]
    without, with_alignment = loss.get_lines()
    # four steps a point: their middle is 1.5 steps after the first of them
    first = np.arange(POINTS) * 4
    np.testing.assert_allclose(without.get_xdata(), first + 1 + 1.5)
    np.testing.assert_allclose(without.get_ydata(), 1000 - first - 1.5 + 5)
    band = loss.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == 1010 - 1.5 and band[:, 1].min() == 1000 - first[-1] - 1.5
    # a row without alignment has no curve of it, and one with it looks alike in both panels
    [aligned] = scale.get_lines()
    assert aligned.get_color() == with_alignment.get_color() != without.get_color()
    assert set(np.asarray(aligned.get_ydata())) == {0.5}
    path = records[0].with_name("curves.csv")
    assert origin["histories"][path.as_posix()] == sha256_file(path)
    save_figure(figure, tmp_path / "training.png")
    assert (tmp_path / "training.png").stat().st_size > 0


def test_few_steps_are_drawn_each(tmp_path: Path) -> None:
    records = write_histories(tmp_path)
    for record in records:
        path = record.with_name("curves.csv")
        path.write_text("\n".join(path.read_text().splitlines()[:4]))
    figure, _ = training_curves(settings(), records)
    assert list(figure.axes[0].get_lines()[0].get_xdata()) == [1, 2, 3]


@pytest.mark.parametrize("text", ["step,loss\n", "step,loss\n1,none\n", ""])
def test_what_is_no_history_is_told_with_its_remedy(tmp_path: Path, text: str) -> None:
    records = write_histories(tmp_path)
    records[0].with_name("curves.csv").write_text(text)
    with pytest.raises(InputError, match=r"curves\.csv is no history of a training; delete"):
        training_curves(settings(), records)
    with pytest.raises(InputError, match="no record of base, seed 0, was given"):
        training_curves(settings(), records[1:])


def test_the_job_reads_the_histories_beside_the_records() -> None:
    dag = Dag(load_config(scale="smoke"))
    job = dag.figure("training_curves")
    read = [path.parent for path in job.beside["curves"]]  # type: ignore[union-attr]
    assert read == [path.parent for path in job.inputs["checkpoints"]]  # type: ignore[union-attr]
    assert {path.name for path in job.beside["curves"]} == {"curves.csv"}  # type: ignore[union-attr]
    assert set(job.options) == {"checkpoints"}


def test_what_was_not_trained_has_no_curves(edit: Edit) -> None:
    rows = [{"variant": "best", "label": "picked"}]
    root = edit(EXPERIMENTS, "figures.training_curves.rows", rows)
    with pytest.raises(InputError, match=r"training_curves\.rows: best has no training of its own"):
        load_config(root, scale="smoke")
