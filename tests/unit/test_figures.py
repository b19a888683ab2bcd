"""Figures: what they show, what they refuse, and that their files are reproducible."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from geomem.paper.figures import (
    CurveBand,
    Panel,
    panels_figure,
    qualitative_strip,
    revisit_figure,
    save_figure,
)


def _clips(frames: int = 6) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shape = (frames, 8, 8, 3)
    return {name: generator.integers(0, 256, shape, dtype=np.uint8) for name in ("truth", "memory")}


def _curves() -> dict[str, CurveBand]:
    x = np.arange(5.0)
    banded = CurveBand(x=x, value=x, low=x - 1, high=x + 1)
    return {"without": CurveBand(x=x, value=2 * x), "memory": banded}


def _panels(curves: dict[str, CurveBand]) -> Figure:
    return panels_figure([[Panel(title="t", y_label="PSNR [dB]", curves=curves)]], x_label="frame")


def _images(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(axis.images[0].get_array()) for axis in figure.axes]


def test_strip_shows_the_chosen_frames_in_order() -> None:
    clips = _clips()
    figure = qualitative_strip(clips, frames=[0, 2, 5], context=1)
    expected = [clips[name][index] for name in clips for index in (0, 2, 5)]
    assert all(np.array_equal(*pair) for pair in zip(_images(figure), expected, strict=True))
    assert [axis.get_title() for axis in figure.axes[:3]] == ["context", "frame 2", "frame 5"]
    assert [figure.axes[i].get_ylabel() for i in (0, 3)] == ["truth", "memory"]
    assert [len(axis.patches) for axis in figure.axes] == [1, 0, 0, 1, 0, 0]
    assert {axis.images[0].get_interpolation() for axis in figure.axes} == {"nearest"}


def test_revisits_stand_beside_their_difference() -> None:
    clips = _clips()
    figure = revisit_figure(clips, pairs=[(0, 5), (1, 4)], context=1)
    images = _images(figure)
    assert len(images) == 12
    first, second = clips["memory"][1].astype(int), clips["memory"][4].astype(int)
    assert np.array_equal(images[9], first) and np.array_equal(images[10], second)
    assert np.array_equal(images[11], np.abs(first - second))
    assert figure.axes[4].get_title() == "revisit 4"


def test_curves_carry_their_values_bands_and_distinct_looks() -> None:
    figure = _panels(_curves())
    (axis,) = figure.axes
    assert axis.lines[0].get_ydata().tolist() == [0, 2, 4, 6, 8]
    assert axis.lines[0].get_linestyle() != axis.lines[1].get_linestyle()
    assert to_rgb(axis.lines[0].get_color()) != to_rgb(axis.lines[1].get_color())
    (band,) = axis.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (-1, 5)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["without", "memory"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("frame", "PSNR [dB]")


def test_saved_bytes_depend_on_the_arrays_alone(tmp_path: Path) -> None:
    for suffix in (".pdf", ".png"):
        for name in ("a", "b"):
            save_figure(
                qualitative_strip(_clips(), frames=[0, 1], context=1), tmp_path / f"{name}{suffix}"
            )
        first, second = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("a", "b"))
        assert first == second
        assert b"CreationDate" not in first and b"atplotlib" not in first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pdf", "a.png", "b.pdf", "b.png"]


def test_saved_pixels_are_those_of_the_frame(tmp_path: Path) -> None:
    clip = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    clip[0, 0, 0], clip[0, 1, 1] = (255, 0, 0), (0, 0, 255)
    save_figure(qualitative_strip({"x": clip}, frames=[0], context=0), tmp_path / "deep" / "x.png")
    pixels = np.asarray(Image.open(tmp_path / "deep" / "x.png").convert("RGB")).reshape(-1, 3)
    red, blue = ((pixels == colour).all(1).sum() for colour in ((255, 0, 0), (0, 0, 255)))
    # Nearest-neighbour enlargement keeps the quarters pure and equal; any smoothing would not.
    assert red > 10_000 and red == pytest.approx(blue, rel=0.02)


def test_the_style_stays_inside_its_figures(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    save_figure(_panels(_curves()), tmp_path / "curves.pdf")
    assert dict(mpl.rcParams) == before


def test_unusable_arrays_are_refused(tmp_path: Path) -> None:
    clips = _clips()
    with pytest.raises(ValueError, match=r"'truth' has 6 frames, asked for \[6\]"):
        qualitative_strip(clips, frames=[0, 6], context=1)
    with pytest.raises(ValueError, match="nothing to show"):
        revisit_figure(clips, pairs=[], context=1)
    with pytest.raises(ValueError, match="uint8"):
        qualitative_strip({"x": np.zeros((2, 8, 8, 3))}, frames=[0], context=1)
    with pytest.raises(ValueError, match="one shape"):
        bad = CurveBand(x=np.arange(3.0), value=np.arange(4.0))
        _panels({"bad": bad})
    with pytest.raises(ValueError, match="no curve"):
        _panels({})
    with pytest.raises(ValueError, match=r"x\.gif"):
        save_figure(_panels(_curves()), tmp_path / "x.gif")
